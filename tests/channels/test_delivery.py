"""One message is sent once, tried again, looked up or given up, by the fault that it meets."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F

from channels_integration import outbox, platforms, send_loop, send_order, send_results
from channels_integration.messages import TemporaryDeliveryError
from channels_integration.models import Lane, OutboundMessage
from tests.channels import doubles
from tests.channels.sending import GRACE, deliver, deliver_all, deliver_now, overdue, post, row
from tests.fakes.slack import Fault, Step
from tests.races import in_threads

pytestmark = pytest.mark.django_db(transaction=True)


def grace_is_over():
    """The grace of all unsettled messages, which is for Slack to catch up in, has passed."""
    threading.Event().wait(GRACE + 0.05)


def test_a_message_is_posted_and_marked_and_its_handler_told(slack):
    outgoing = post("Hello")
    deliver()

    (posted,) = slack.posts
    assert (posted.text, posted.channel, posted.id) == ("Hello", "C0ONE", str(outgoing.id))
    sent = row(outgoing)
    assert (sent.status, sent.platform_message_id, sent.thread) == ("sent", posted.ts, posted.ts)
    (delivery,) = doubles.deliveries
    assert delivery.outgoing_id == outgoing.id
    assert delivery.owner_key == "owner"
    assert delivery.receipt.platform_message_id == posted.ts
    assert delivery.at == sent.sent_at
    assert abs(delivery.at - datetime.now(UTC)) < timedelta(seconds=30)


# (fault, calls of chat.postMessage in all, posts in the end)
POSTED_IN_THE_END = [
    (Fault.RATE_LIMITED, 2),
    (Fault.ERROR_500, 2),
    (Fault.ERROR_500_AFTER, 1),
    (Fault.FATAL_ERROR, 2),
    (Fault.FATAL_ERROR_AFTER, 1),
    (Fault.DROP_BEFORE, 2),
    (Fault.DROP_AFTER, 1),
    (Fault.LATE_APPLY, 1),
    (Fault.HANG_BEFORE, 2),
    (Fault.HANG_AFTER, 1),
    (Fault.NO_JSON, 2),
    (Step(Fault.NAMED, error="service_unavailable"), 2),
    (Step(Fault.NAMED, error="internal_error"), 2),
    (Step(Fault.NAMED, error="request_timeout"), 2),
    (Step(Fault.NAMED, error="team_added_to_org"), 2),
    (Step(Fault.NAMED, error="rate_limited"), 2),
]


@pytest.mark.parametrize(("fault", "calls"), POSTED_IN_THE_END, ids=str)
def test_whatever_fails_the_message_is_posted_once(slack, settings, monkeypatch, fault, calls):
    monkeypatch.setattr(platforms.slack, "_DEFAULT_RETRY_AFTER", 0.1)
    slack.script(fault)
    outgoing = post()

    deliver_all()

    assert [p.id for p in slack.posts] == [str(outgoing.id)]
    assert slack.calls("chat.postMessage") == calls
    assert row(outgoing).status == "sent"
    assert row(outgoing).platform_message_id == slack.posts[0].ts
    assert [d.is_sent for d in doubles.deliveries] == [True]


@pytest.mark.parametrize(
    "error",
    [
        "channel_not_found",
        "is_archived",
        "not_in_channel",
        "invalid_auth",
        "msg_too_long",
        "restricted_action",
        "account_inactive",
        "missing_scope",
        "token_revoked",
        "an_error_that_is_new",
    ],
)
def test_a_named_error_that_only_a_person_can_mend_is_a_dead_letter(slack, error):
    slack.script(Step(Fault.NAMED, error=error))
    outgoing = post()
    deliver_now()

    dead = row(outgoing)
    assert (dead.status, dead.error_code) == ("dead", error)
    (delivery,) = doubles.deliveries
    assert (delivery.is_sent, delivery.error_code) == (False, error)
    assert slack.calls("chat.postMessage") == 1


def test_429_waits_as_long_as_it_says_and_paces_the_whole_channel(slack):
    slack.script(Step(Fault.RATE_LIMITED, retry_after=2))
    first, second = post("first", owner_key="a"), post("second", owner_key="b")
    elsewhere = post("elsewhere", code="C0TWO", owner_key="c")
    began = time.time()
    deliver_now()

    assert [p.text for p in slack.posts] == ["elsewhere"]
    assert [row(m).status for m in (first, second, elsewhere)] == ["pending", "pending", "sent"]
    assert row(first).failures == 0
    deliver_all()
    assert min(p.at for p in slack.posts if p.channel == "C0ONE") >= began + 1.9
    assert slack.calls("chat.postMessage") == 4


def test_an_unknown_outcome_is_not_looked_up_before_the_grace_is_over(slack):
    slack.script(Fault.DROP_BEFORE)
    outgoing = post()
    deliver_now()

    unknown = row(outgoing)
    assert (unknown.status, unknown.unknown_outcomes) == ("unknown", 1)
    # Counted from when the claim was asked for, which is before it is made, by less than an attempt may be old.
    least = timedelta(seconds=GRACE - send_loop.CLAIM_SECONDS)
    assert least <= unknown.due_at - unknown.claimed_at < timedelta(seconds=10 * GRACE)
    assert slack.calls("conversations.history") == 0
    deliver_all()
    assert slack.calls("conversations.history") == 1
    assert len(slack.posts) == 1


def test_a_post_that_is_applied_late_is_found_and_not_sent_again(slack):
    slack.script(Fault.LATE_APPLY)
    outgoing = post()
    deliver_all()

    assert [p.id for p in slack.posts] == [str(outgoing.id)]
    assert slack.calls("chat.postMessage") == 1


def test_after_three_unknown_outcomes_nobody_tries_again(slack):
    slack.script(*[Fault.DROP_BEFORE] * 5)
    outgoing = post()
    deliver_all()

    assert slack.calls("chat.postMessage") == 3
    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "delivery_unknown")
    assert [d.error_code for d in doubles.deliveries] == ["delivery_unknown"]


def test_a_third_unknown_outcome_that_was_posted_is_found_all_the_same(slack):
    slack.script(Fault.DROP_BEFORE, Fault.DROP_BEFORE, Fault.DROP_AFTER)
    outgoing = post()
    deliver_all()

    assert row(outgoing).status == "sent"
    assert len(slack.posts) == 1


def test_a_history_that_may_be_read_once_a_while_is_waited_for(slack):
    slack.history_interval = 1
    slack.script(Fault.DROP_AFTER, Fault.DROP_AFTER)
    posted = [post(str(n), code=f"C0{n}", owner_key=str(n)) for n in range(2)]
    deliver_all()

    assert [row(m).status for m in posted] == ["sent", "sent"]
    assert len(slack.posts) == 2
    assert slack.calls("conversations.history") >= 3


def test_a_long_history_of_which_one_page_a_while_is_shown_is_read_to_its_end(slack):
    slack.history_page = 3
    slack.history_interval = 1
    slack.script(Fault.DROP_AFTER)
    outgoing = post()
    deliver_now()
    for number in range(7):
        slack.person_writes("C0ONE", str(number))
    deliver_all()

    assert row(outgoing).status == "sent"
    assert len(slack.posts) == 1


def test_a_message_in_a_thread_is_looked_up_among_its_replies(slack):
    post("opens")
    deliver_all()
    slack.script(Fault.DROP_AFTER)
    reply = post("follows")
    deliver_all()

    assert slack.calls("conversations.replies") == 1
    assert slack.calls("conversations.history") == 0
    opening, following = slack.posts
    assert following.thread_ts == opening.ts
    assert (row(reply).status, row(reply).thread) == ("sent", opening.ts)


def test_where_nobody_may_read_the_history_the_outcome_stays_unknown(slack):
    slack.script(Fault.DROP_AFTER)
    outgoing = post()
    deliver_now()
    slack.history_error = "missing_scope"
    deliver_all()

    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "delivery_unknown")
    assert len(slack.posts) == 1


# --- Failing again and again -----------------------------------------------------------------------------------
def test_a_temporary_failure_backs_off_and_is_given_up_in_the_end(slack):
    slack.script(*[Step(Fault.NAMED, error="service_unavailable")] * 20)
    outgoing = post()
    waits = []
    for _ in range(9):
        deliver_now()
        failed = row(outgoing)
        assert failed.status == "pending"
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM due_at - now()) FROM channels_integration_outboundmessage")
            waits.append(float(cursor.fetchone()[0]))
        overdue()
        overdue_lanes()
    deliver_now()

    assert [round(wait + 0.3) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "service_unavailable")
    assert [d.error_code for d in doubles.deliveries] == ["service_unavailable"]


def test_a_platform_that_says_later_for_a_day_has_said_no(slack):
    slack.script(Step(Fault.RATE_LIMITED, retry_after=1))
    outgoing = post()
    OutboundMessage.objects.update(created_at=F("created_at") - timedelta(hours=25))
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "ratelimited")


def test_slack_out_of_reach_is_surely_not_posted(slack, settings):
    settings.SLACK_API_URL = "http://127.0.0.1:9/api/"
    outgoing = post()
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("pending", "slack_unreachable")
    assert row(outgoing).unknown_outcomes == 0


def test_an_installation_that_is_gone_is_a_dead_letter():
    outgoing = post()
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "not_installed")


def overdue_lanes():
    Lane.objects.update(opens_at="2000-01-01T00:00:00Z", look_at="2000-01-01T00:00:00Z")


# --- Dying and stopping ----------------------------------------------------------------------------------------
def claim_one():
    send_order.enter()
    claim = send_order.claim(after_org="", grace_seconds=GRACE, flight_seconds=GRACE / 2)
    assert isinstance(claim, send_order.SendClaim)
    return claim


def test_a_worker_that_dies_before_sending_loses_nothing(slack):
    outgoing = post()
    claim_one()
    deliver_all()

    assert [p.id for p in slack.posts] == [str(outgoing.id)]
    assert row(outgoing).unknown_outcomes == 1


def test_a_worker_that_dies_between_sending_and_marking_sends_nothing_twice(slack):
    outgoing = post()
    claim = claim_one()
    platforms.get("slack").send(claim.outgoing, thread="", before_post=lambda: None)
    deliver_all()

    assert [p.id for p in slack.posts] == [str(outgoing.id)]
    assert row(outgoing).status == "sent"
    assert [d.is_sent for d in doubles.deliveries] == [True]


def test_a_worker_that_was_stopped_after_its_claim_gives_it_back(slack, monkeypatch):
    monkeypatch.setattr(send_order.SendClaim, "age", property(lambda claim: 0.31))
    outgoing = post()
    send_order.enter()
    send_loop._attempt(claim_one())

    assert slack.calls("chat.postMessage") == 0
    assert row(outgoing).status == "pending"
    monkeypatch.undo()
    deliver_all()
    assert len(slack.posts) == 1


def test_no_byte_leaves_when_the_connection_took_too_long(slack, monkeypatch):
    ages = iter([0.0])
    monkeypatch.setattr(send_order.SendClaim, "age", property(lambda claim: next(ages, 1.9)))
    outgoing = post()
    send_loop._attempt(claim_one())

    assert slack.calls("chat.postMessage") == 0
    assert (row(outgoing).status, row(outgoing).error_code) == ("pending", "claim_too_old")


def test_a_late_writer_changes_nothing(slack):
    """A worker that wakes up after its message was settled by another finds its claim gone."""
    outgoing = post()
    stale = claim_one()
    deliver_all()
    doubles.deliveries.clear()
    before = row(outgoing).__dict__

    send_results.try_later(stale, TemporaryDeliveryError("late", code="late"))
    send_results.given_back(stale)
    send_results.sent(stale, send_results.Receipt("other", "other"))

    after = row(outgoing).__dict__
    assert {k: v for k, v in after.items() if k != "_state"} == {k: v for k, v in before.items() if k != "_state"}


def test_an_end_that_was_overtaken_takes_its_handlers_work_back(slack):
    outgoing = post()
    stale = claim_one()
    OutboundMessage.objects.update(status="withdrawn")

    def write(_):
        post("a trace", owner_key="trace")

    doubles.on_delivery.append(write)
    send_results.sent(stale, send_results.Receipt("1.1", "1.1"))

    assert row(outgoing).status == "withdrawn"
    assert not OutboundMessage.objects.filter(owner_key="trace").exists()


# --- Handlers that fail ----------------------------------------------------------------------------------------
def test_a_handler_that_fails_is_told_again_and_nothing_is_sent_twice(slack):
    failures = [RuntimeError("not yet"), RuntimeError("not yet")]

    def fail(_):
        if failures:
            raise failures.pop()

    doubles.on_delivery.append(fail)
    outgoing = post()
    deliver_now()
    assert (row(outgoing).status, row(outgoing).platform_message_id) == ("unknown", slack.posts[0].ts)
    assert outbox.withdraw("acme", "owner") == []
    deliver_all()

    assert len(slack.posts) == 1
    assert slack.calls("conversations.history") == 0
    assert row(outgoing).status == "sent"
    assert len(doubles.deliveries) == 1


def test_a_handler_that_fails_at_a_dead_letter_is_told_again(slack):
    failures = [RuntimeError("not yet")]

    def fail(_):
        if failures:
            raise failures.pop()

    doubles.on_delivery.append(fail)
    slack.script(*[Step(Fault.NAMED, error="is_archived")] * 2)
    outgoing = post()
    deliver_all()

    assert row(outgoing).status == "dead"
    assert [d.error_code for d in doubles.deliveries] == ["is_archived"]


def test_a_platform_that_breaks_before_posting_is_tried_again(slack, monkeypatch):
    breaks = [True]

    def send(*args, **kwargs):
        if breaks:
            breaks.pop()
            raise ZeroDivisionError
        return original(*args, **kwargs)

    original = platforms.get("slack").send
    monkeypatch.setattr(platforms.get("slack"), "send", send)
    outgoing = post()
    deliver_all()

    assert row(outgoing).status == "sent"
    assert len(slack.posts) == 1


def test_many_deliverers_with_every_fault_send_everything_once(slack):
    slack.rates = {
        fault: 0.05 for fault in Fault if fault not in (Fault.NONE, Fault.NAMED, Fault.HANG_BEFORE, Fault.HANG_AFTER)
    }
    slack.history_lag = 0.1
    posted = [post(str(n), code=f"C0{n}", owner_key=str(n)) for n in range(60)]
    in_threads(*[deliver_all] * 4)

    said = [p.id for p in slack.posts]
    assert len(said) == len(set(said)), f"seed {slack.seed}"
    assert {row(m).status for m in posted} <= {"sent", "dead"}
    assert {str(m.id) for m in posted if row(m).status == "sent"} == set(said), f"seed {slack.seed}"
    assert sum(row(m).status == "sent" for m in posted) >= 55
    # An end that a quicker sender undid had been noted by its owner, whose rows are undone with it; a list is not.
    assert {delivery.outgoing_id for delivery in doubles.deliveries} == {m.id for m in posted}
