"""The worker entries: they serve, take a database's absence calmly, and get a new connection after it."""

import pytest
from django.db import OperationalError, connection

from channels_integration import inbound, outbox, send_loop, tasks, web_messages
from tests.channels import doubles
from tests.channels.sending import deliver_all, post, row

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_bell_delivers_what_is_due():
    outgoing = post(platform="web", code="lobby")

    assert tasks.deliver() == 1
    assert row(outgoing).status == "sent"


def test_a_bell_routes_what_is_due():
    web_messages.say("acme", "web", "lobby", text="hi", author="Ann")

    assert tasks.route() == 1
    assert len(doubles.heard) == 1


def test_names_and_queues_are_what_the_doorbell_rings():
    assert (tasks.deliver.name, outbox.TASK, outbox.QUEUE) == ("channels.deliver", "channels.deliver", "deliveries")
    assert (tasks.route.name, inbound.TASK, inbound.QUEUE) == ("channels.route", "channels.route", "inbound")


def kill_connection():
    """Ends this thread's session, as a restart of PostgreSQL does."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    other.close()


@pytest.mark.parametrize("entry", [tasks.deliver, tasks.route])
def test_a_lost_session_is_replaced(entry):
    outgoing = post(platform="web", code="lobby")
    kill_connection()

    entry()
    tasks.deliver()
    assert row(outgoing).status == "sent"


def test_a_session_that_is_lost_in_the_middle_sends_nothing_twice(slack):
    outgoing = post()
    doubles.on_delivery.append(lambda _: kill_connection())
    tasks.deliver()
    doubles.on_delivery.clear()
    connection.close()
    deliver_all()

    assert [p.id for p in slack.posts] == [str(outgoing.id)]
    assert row(outgoing).status == "sent"


def test_another_error_is_not_swallowed(monkeypatch):
    def broken(**_):
        raise OperationalError("the database is away")

    monkeypatch.setattr(send_loop, "deliver_due", broken)
    assert tasks.deliver() == 0

    def wrong(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(send_loop, "deliver_due", wrong)
    with pytest.raises(ZeroDivisionError):
        tasks.deliver()
