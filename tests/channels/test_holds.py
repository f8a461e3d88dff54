"""Messages whose owner keeps hours: held while those are closed, sent in order when they open, never lost for it."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models import F

from channels_integration import outbox, send_order
from channels_integration.messages import Hold
from channels_integration.models import OutboundMessage
from tests.channels import doubles
from tests.channels.sending import deliver, deliver_all, deliver_now, overdue, post, row
from tests.fakes.slack import Fault, Step

pytestmark = pytest.mark.django_db(transaction=True)


def closed_for(seconds, *, owner="", closed_seconds=0.0):
    """Hours that are closed for one owner, or for all of them."""

    def hours(outgoing, written_at):
        return Hold(seconds if owner in ("", outgoing.owner_key) else 0.0, closed_seconds)

    doubles.on_hours[:] = [hours]


def test_a_message_is_held_until_hours_open_and_nothing_is_posted_before(slack):
    closed_for(3600)
    held = post()

    deliver()

    assert slack.posts == []
    waiting = row(held)
    assert (waiting.status, waiting.error_code, waiting.failures) == ("pending", "held", 0)
    assert 3590 < send_order.seconds_until_due() <= 3600

    closed_for(0)
    overdue()
    deliver_all()

    assert [posted.text for posted in slack.posts] == ["Hello"]
    assert (row(held).status, row(held).error_code) == ("sent", "")
    assert [delivery.is_sent for delivery in doubles.deliveries] == [True]


def test_what_follows_in_the_thread_waits_with_it_and_in_order(slack):
    closed_for(3600)
    for number in range(3):
        post(f"{number}")

    deliver()

    assert set(OutboundMessage.objects.values_list("error_code", "is_in_lane")) == {("held", False)}
    assert send_order.seconds_until_due() > 3590, "nobody looks at the lane before it opens"

    closed_for(0)
    overdue()
    deliver_all()

    assert [posted.text for posted in slack.posts] == ["0", "1", "2"]


def test_others_in_the_same_channel_go_on_at_once(slack):
    closed_for(3600, owner="sleeper")
    post("later", owner_key="sleeper")
    post("now", owner_key="awake")

    deliver()

    assert [posted.text for posted in slack.posts] == ["now"]


def test_a_platform_that_says_later_over_closing_time_sends_in_the_morning(slack):
    slack.script(Step(Fault.RATE_LIMITED, retry_after=1))
    message = post()
    deliver_now()
    assert row(message).error_code == "ratelimited"
    closed_for(3600)

    deliver()

    assert (slack.posts, row(message).error_code) == ([], "held")


@pytest.mark.parametrize(("closed_hours", "status"), [(0, "dead"), (60, "pending")])
def test_what_hours_held_a_message_for_does_not_count_as_its_platforms_no(slack, closed_hours, status):
    """Written on a Friday evening, held until Monday; then the platform says "later" once."""
    message = post()
    OutboundMessage.objects.update(created_at=F("created_at") - timedelta(hours=61))
    closed_for(0, closed_seconds=closed_hours * 3600)
    slack.script(Step(Fault.RATE_LIMITED, retry_after=1))

    deliver_now()

    assert row(message).status == status


def test_other_hours_make_what_was_held_due_at_once(slack):
    closed_for(3600)
    post("ours")
    deliver()
    with transaction.atomic():
        assert outbox.look_again("rival") == 0
        assert outbox.look_again("acme") == 1
    closed_for(0)

    deliver_all()

    assert [posted.text for posted in slack.posts] == ["ours"]


def test_a_held_message_can_be_withdrawn(slack):
    closed_for(3600)
    held = post()
    deliver()
    with transaction.atomic():
        assert outbox.withdraw("acme", "owner") == [held.id]
    closed_for(0)
    overdue()

    deliver()

    assert (slack.posts, row(held).status) == ([], "withdrawn")


def test_hours_that_cannot_be_told_hold_the_message_and_are_asked_again(slack):
    def broken(outgoing, written_at):
        raise RuntimeError("no hours")

    doubles.on_hours[:] = [broken]
    message = post()
    deliver_now()
    assert (slack.posts, row(message).status, row(message).failures) == ([], "pending", 1)

    closed_for(0)
    overdue()
    deliver_all()

    assert len(slack.posts) == 1
