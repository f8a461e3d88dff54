"""Messages on their way in: stored once, routed once and in order, kept where nobody waited, never lost."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from channels_integration import inbound
from channels_integration.messages import Incoming
from channels_integration.models import InboundEvent
from tests.channels import doubles
from tests.channels.sending import deliver_all, post
from tests.races import in_threads
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def said(text="hello", **changes):
    fields = {
        "org_id": "acme",
        "platform": "slack",
        "team": "T0ACME",
        "code": "C0ONE",
        "thread": "1.1",
        "author": "U1",
        "sent_at": NOON,
        "event_id": f"Ev{text}",
    }
    return Incoming(text=text, **{**fields, **changes})


def event(text="hello"):
    return InboundEvent.objects.get(text=text)


def due_now(**where):
    InboundEvent.objects.filter(**where).update(due_at=Now())


def texts():
    return [incoming.text for incoming in doubles.heard]


def test_an_event_is_kept_once_and_rings_on_commit(rings):
    with transaction.atomic():
        assert inbound.record(said()) is True
        assert not rings
    assert inbound.record(said(text="hello")) is False

    assert rings == [("inbound", "channels.route")]
    assert InboundEvent.objects.count() == 1


def test_one_event_id_of_two_organisations_or_platforms_is_two_events():
    for changes in ({}, {"org_id": "rival"}, {"platform": "web"}):
        assert inbound.record(said(**changes))

    assert InboundEvent.objects.count() == 3


def test_the_same_event_twenty_times_at_once_is_handed_on_once():
    results = in_threads(*[lambda: inbound.record(said())] * 20)
    in_threads(*[inbound.route_due] * 4)

    assert sorted(results) == [False] * 19 + [True]
    assert texts() == ["hello"]


def test_everything_the_platform_told_reaches_the_handler():
    incoming = said(owner_key="owner", is_direct=True)
    inbound.record(incoming)
    inbound.route_due()

    assert doubles.heard == [incoming]
    assert (event().status, event().is_matched) == ("routed", True)


def test_what_waits_is_routed_by_the_platforms_time_within_a_thread():
    for number in (3, 1, 2):
        inbound.record(said(str(number), sent_at=NOON + timedelta(seconds=number)))
    inbound.route_due()

    assert texts() == ["1", "2", "3"]


def test_two_events_of_one_thread_are_never_in_hand_at_once():
    at_once, most = [], []
    lock = threading.Lock()

    def look(incoming):
        with lock:
            at_once.append(incoming.text)
            most.append(len(at_once))
        threading.Event().wait(0.01)
        with lock:
            at_once.remove(incoming.text)
        return True

    doubles.on_incoming.append(look)
    for number in range(12):
        inbound.record(said(str(number), sent_at=NOON + timedelta(seconds=number)))

    def route():
        until = 0
        while until < 10:
            until = 0 if inbound.route_due() else until + 1
            threading.Event().wait(0.01)

    in_threads(*[route] * 4)

    assert max(most) == 1
    assert texts() == [str(number) for number in range(12)]


def test_what_waits_of_one_thread_is_handed_on_together():
    """A job that answers the first part must have got the other parts."""
    transactions: dict[str, set[str]] = {}

    def look(incoming):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text")
            transactions.setdefault(incoming.thread, set()).add(cursor.fetchone()[0])
        return True

    doubles.on_incoming.append(look)
    for number in range(3):
        for thread in ("1.1", "2.2"):
            inbound.record(said(f"{thread}: {number}", thread=thread, sent_at=NOON + timedelta(seconds=number)))

    assert inbound.route_due() == 6
    assert {thread: len(ids) for thread, ids in transactions.items()} == {"1.1": 1, "2.2": 1}
    assert not transactions["1.1"] & transactions["2.2"]


def test_what_fails_among_others_of_its_thread_fails_alone():
    def look(incoming):
        if incoming.text == "1":
            raise RuntimeError("not this one")
        return True

    doubles.on_incoming.append(look)
    for number in range(3):
        inbound.record(said(str(number), sent_at=NOON + timedelta(seconds=number)))
    inbound.route_due()

    found = InboundEvent.objects.order_by("sent_at").values_list("text", "status", "failures")
    assert list(found) == [("0", "routed", 0), ("1", "waiting", 1), ("2", "routed", 0)]


def test_threads_do_not_wait_for_each_other():
    inbound.record(said("slow", thread="1.1"))
    inbound.record(said("quick", thread="2.2"))
    is_slow_in, may_end = threading.Event(), threading.Event()

    def look(incoming):
        if incoming.text == "slow":
            is_slow_in.set()
            assert may_end.wait(PATIENCE)
        return True

    def second():
        assert is_slow_in.wait(PATIENCE)
        routed = inbound.route_due()
        may_end.set()
        return routed

    doubles.on_incoming.append(look)
    _, routed = in_threads(inbound.route_due, second)

    assert routed == 1
    assert texts() == ["quick", "slow"]


# --- Nobody waited ---------------------------------------------------------------------------------------------
def unmatched(*_):
    return False


def test_an_event_that_nobody_waits_for_is_looked_at_three_times_and_kept():
    doubles.on_incoming.append(unmatched)
    inbound.record(said())
    for _ in range(2):
        inbound.route_due()
        assert (event().status, event().is_matched) == ("waiting", False)
        due_now()
    inbound.route_due()

    assert (event().status, event().is_matched) == ("routed", False)
    assert len(doubles.heard) == 3
    due_now()
    assert inbound.route_due() == 0


def test_an_unmatched_event_lets_later_ones_pass():
    doubles.on_incoming.append(lambda incoming: incoming.text != "early")
    inbound.record(said("early"))
    inbound.route_due()
    inbound.record(said("late", sent_at=NOON + timedelta(seconds=1)))
    inbound.route_due()

    assert event("late").is_matched is True


def keep_unmatched(*events):
    doubles.on_incoming.append(unmatched)
    for incoming in events:
        inbound.record(incoming)
    for _ in range(3):
        due_now()
        inbound.route_due()
    doubles.on_incoming.clear()
    doubles.heard.clear()


def test_a_reply_that_was_quicker_than_our_note_of_the_message_is_matched_after_all(slack):
    """The message is out, the worker has not marked it yet, and the person answers."""
    outgoing = post()

    def reply_first(delivery):
        incoming = said("quick", thread=delivery.receipt.thread, sent_at=datetime.now(UTC))
        in_threads(lambda: keep_unmatched(incoming))

    doubles.on_delivery.append(reply_first)
    deliver_all()
    assert event("quick").status == "waiting"
    inbound.route_due()

    assert texts() == ["quick"]
    assert event("quick").is_matched is True
    assert str(outgoing.id) == slack.posts[0].id


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_reply_that_is_looked_for_while_its_message_is_being_marked_is_matched_after_all(looks):
    """The mark that makes the thread known is not committed yet: neither can see what the other is about to write."""
    is_looking, is_marked = threading.Event(), threading.Event()
    inbound.record(said("quick"))
    doubles.on_incoming.append(unmatched)
    for _ in range(looks - 1):
        inbound.route_due()
        due_now()

    def look(_):
        if is_looking.is_set():
            return True
        is_looking.set()
        wait_for(lambda: is_marked.is_set() or waits_for_a_lock(), what="the mark has come to the event")
        return False

    def mark():
        assert is_looking.wait(PATIENCE)
        retried = inbound.retry_unmatched("acme", "slack", "C0ONE", "1.1", is_opened=True)
        is_marked.set()
        return retried

    doubles.on_incoming[:] = [look]
    _, retried = in_threads(inbound.route_due, mark)
    inbound.route_due()

    assert retried == 1
    assert event("quick").is_matched is True


def test_an_event_that_waits_for_its_next_look_gets_it_when_its_thread_is_opened():
    doubles.on_incoming.append(unmatched)
    inbound.record(said())
    for _ in range(2):
        due_now()
        inbound.route_due()
    doubles.on_incoming.clear()
    assert inbound.route_due() == 0

    inbound.retry_unmatched("acme", "slack", "C0ONE", "1.1", is_opened=True)

    assert inbound.route_due() == 1


def waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # a transaction would see the first one for ever
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
        return cursor.fetchone()[0]


RETRIED = [
    ("of the thread", {}, True),
    ("of another thread", {"thread": "2.2"}, False),
    ("of another channel", {"code": "C0TWO"}, False),
    ("of another platform", {"platform": "web"}, False),
    ("of a stranger", {"org_id": "rival"}, False),
    ("at top level of a channel", {"thread": ""}, False),
    ("at top level where people speak to us alone", {"thread": "", "is_direct": True}, True),
    ("from before the message", {"sent_at": NOON - timedelta(minutes=1)}, False),
]


@pytest.mark.parametrize(("changes", "is_retried"), [case[1:] for case in RETRIED], ids=[case[0] for case in RETRIED])
def test_only_what_may_be_a_reply_is_looked_at_again(changes, is_retried):
    keep_unmatched(said(**changes))

    count = inbound.retry_unmatched("acme", "slack", "C0ONE", "1.1", since=NOON - timedelta(seconds=5))

    assert count == int(is_retried)
    assert inbound.route_due() == int(is_retried)


def test_what_is_older_than_ten_minutes_is_not_looked_at_again():
    keep_unmatched(said())
    InboundEvent.objects.update(received_at=Now() - timedelta(minutes=11))

    assert inbound.retry_unmatched("acme", "slack", "C0ONE", "1.1") == 0


def test_what_was_matched_is_never_handed_on_again():
    inbound.record(said())
    inbound.route_due()

    assert inbound.retry_unmatched("acme", "slack", "C0ONE", "1.1") == 0
    assert texts() == ["hello"]


# --- Handlers that fail ----------------------------------------------------------------------------------------
def poison(incoming):
    if incoming.text == "poison":
        raise RuntimeError("bad\x00 luck")
    return True


def test_an_event_whose_handler_fails_holds_up_no_other_and_is_parked_in_the_end():
    doubles.on_incoming.append(poison)
    inbound.record(said("poison"))
    inbound.record(said("same thread", sent_at=NOON + timedelta(seconds=1)))
    inbound.record(said("other thread", thread="2.2"))
    inbound.route_due()
    assert sorted(texts()) == ["other thread", "same thread"]

    for _ in range(20):
        due_now(status="waiting")
        inbound.route_due()
    parked = event("poison")
    assert (parked.status, parked.failures) == ("parked", 10)
    assert "bad" in parked.error


def test_a_failed_event_comes_back_later_each_time():
    doubles.on_incoming.append(poison)
    inbound.record(said("poison"))
    waits = []
    for _ in range(9):
        inbound.route_due()
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM due_at - now()) FROM channels_integration_inboundevent")
            waits.append(round(float(cursor.fetchone()[0]) + 0.3))
        due_now()

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_a_failed_handler_wrote_is_taken_back():
    def write_and_fail(incoming):
        inbound.record(said("a trace"))
        raise RuntimeError

    doubles.on_incoming.append(write_and_fail)
    inbound.record(said())
    inbound.route_due()

    assert InboundEvent.objects.count() == 1


def test_an_event_that_recovers_is_matched():
    failures = [1, 1]

    def recover(incoming):
        if failures:
            failures.pop()
            raise RuntimeError
        return True

    doubles.on_incoming.append(recover)
    inbound.record(said())
    for _ in range(3):
        due_now()
        inbound.route_due()

    assert (event().status, event().is_matched, event().error) == ("routed", True, "")


def test_the_sweep_rings_for_what_is_due_and_for_nothing_else(rings):
    assert inbound.sweep() == 0
    inbound.record(said())
    rings.clear()
    assert inbound.sweep() == 1
    InboundEvent.objects.update(due_at="2999-01-01T00:00:00Z")
    assert inbound.sweep() == 0
    assert rings == [("inbound", "channels.route")]


# --- Of one thread, before its turn ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("waiting", "is_routed"),
    [
        ({}, True),
        ({"thread": "", "is_direct": True}, True),
        ({"thread": ""}, False),
        ({"thread": "2.2"}, False),
        ({"code": "C0TWO"}, False),
        ({"platform": "web"}, False),
        ({"org_id": "rival"}, False),
    ],
)
def test_of_a_thread_is_handed_on_what_waits_there_and_for_all_of_its_place(waiting, is_routed):
    inbound.record(said("before", thread="9.9"))
    inbound.record(said("late", sent_at=NOON + timedelta(seconds=1), **waiting))
    inbound.record(said("early", **waiting))

    assert inbound.route_thread("acme", "slack", "C0ONE", "1.1") == (2 if is_routed else 0)
    assert texts() == (["early", "late"] if is_routed else [])


def test_what_fails_in_such_a_thread_fails_alone():
    doubles.on_incoming.append(poison)
    for text in ("one", "poison", "two"):
        inbound.record(said(text))

    assert inbound.route_thread("acme", "slack", "C0ONE", "1.1") == 3
    found = InboundEvent.objects.order_by("id").values_list("text", "status", "failures")
    assert list(found) == [("one", "routed", 0), ("poison", "waiting", 1), ("two", "routed", 0)]
