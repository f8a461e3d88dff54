"""Order within a thread, pace on a channel, fairness between organisations, and races for a claim."""

import itertools
import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from channels_integration import directory, outbox, send_order
from channels_integration.models import Lane, OutboundMessage
from tests.channels import doubles
from tests.channels.sending import deliver, deliver_all, deliver_now, message, post, row
from tests.fakes.slack import Fault, Step
from tests.races import in_threads

pytestmark = pytest.mark.django_db(transaction=True)


def claim():
    send_order.enter()
    found = send_order.claim(after_org="", grace_seconds=30, flight_seconds=1)
    return found.outgoing.text if isinstance(found, send_order.SendClaim) else None


# --- Threads ---------------------------------------------------------------------------------------------------
def test_the_first_message_opens_the_thread_and_the_others_follow_in_it(slack):
    for text in ("one", "two", "three"):
        post(text)
    deliver_all()

    assert [p.text for p in slack.posts] == ["one", "two", "three"]
    opening = slack.posts[0]
    assert [p.thread_ts for p in slack.posts] == [None, opening.ts, opening.ts]
    assert {m.thread for m in OutboundMessage.objects.all()} == {opening.ts}


def test_two_threads_of_one_channel_stay_apart(slack):
    for text, owner in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b")):
        post(text, owner_key=owner)
    deliver_all()

    by_text = {p.text: p for p in slack.posts}
    assert by_text["a2"].thread_ts == by_text["a1"].ts
    assert by_text["b2"].thread_ts == by_text["b1"].ts


@pytest.mark.parametrize("status", ["sending", "unknown"])
def test_a_message_waits_for_an_earlier_one_of_its_thread(status):
    first, _ = post("first", platform="web", code="a"), post("second", platform="web", code="a")
    OutboundMessage.objects.filter(pk=first.id).update(
        status=status, claim_token=first.id, claimed_at="2026-01-01T00:00:00Z", due_at="2999-01-01T00:00:00Z"
    )

    assert claim() is None


def test_a_message_waits_for_an_earlier_one_that_is_tried_again_later(slack):
    slack.script(Step(Fault.NAMED, error="service_unavailable"))
    post("first")
    post("second")
    deliver_all()

    assert [p.text for p in slack.posts] == ["first", "second"]


@pytest.mark.parametrize("status", ["dead", "withdrawn"])
def test_a_message_does_not_wait_for_one_that_was_given_up(slack, status):
    first, _ = post("first"), post("second")
    OutboundMessage.objects.filter(pk=first.id).update(status=status, error_code="x")
    deliver_all()

    (posted,) = slack.posts
    assert (posted.text, posted.thread_ts) == ("second", None)


def test_order_is_the_databases_and_neither_ids_nor_clocks():
    later_id = message("first", platform="web", code="a")
    earlier_id = message("second", platform="web", code="a")
    later_id, earlier_id = sorted((later_id, earlier_id), key=lambda m: m.id, reverse=True)
    outbox.enqueue([later_id])
    outbox.enqueue([earlier_id])
    OutboundMessage.objects.filter(pk=later_id.id).update(created_at="2999-01-01T00:00:00Z")

    assert claim() == later_id.text


def test_a_strangers_thread_of_the_same_key_blocks_nothing():
    theirs = post("theirs", org_id="rival", platform="web", code="a")
    OutboundMessage.objects.filter(pk=theirs.id).update(
        status="sending", claim_token=theirs.id, claimed_at="2026-01-01T00:00:00Z", due_at="2999-01-01T00:00:00Z"
    )
    post("ours", platform="web", code="a")

    assert claim() == "ours"


def test_many_deliverers_keep_the_order_of_every_thread():
    for number in range(15):
        for owner in "abcd":
            post(f"{owner}{number}", platform="web", code="room", owner_key=owner)
    in_threads(*[deliver_all] * 4)

    for owner in "abcd":
        said = [d for d in doubles.deliveries if d.owner_key == owner]
        order = list(OutboundMessage.objects.filter(owner_key=owner).order_by("position").values_list("id", flat=True))
        assert [d.outgoing_id for d in said] == order


# --- Claims ----------------------------------------------------------------------------------------------------
def test_one_message_has_one_claimant():
    for number in range(40):
        post(str(number), platform="web", code=str(number % 7), thread_key="")

    def claim_all():
        claimed, misses = [], 0
        while misses < 20:
            text = claim()
            misses = 0 if text else misses + 1
            claimed += [text] if text else []
            threading.Event().wait(0 if text else 0.005)
        return claimed

    claimed = [text for texts in in_threads(*[claim_all] * 4) for text in texts]
    assert sorted(claimed, key=int) == [str(number) for number in range(40)]


def test_a_message_that_is_not_due_is_not_claimed():
    post(platform="web", code="a")
    OutboundMessage.objects.update(due_at="2999-01-01T00:00:00Z")

    assert claim() is None


def test_nothing_of_a_channel_is_forgotten_when_it_arrives_while_the_last_one_is_claimed():
    """A lane found empty is put to sleep; what arrives in that moment wakes it."""
    for number in range(30):
        code = f"c{number}"
        post("one", platform="web", code=code, thread_key="")
        assert claim() == "one"
        in_threads(claim, lambda code=code: post("two", platform="web", code=code, thread_key="") and claim())
        deliver(3)
        assert not OutboundMessage.objects.filter(status="pending").exists()


# --- Pace ------------------------------------------------------------------------------------------------------
def gaps(slack, channel="C0ONE"):
    moments = [p.at for p in slack.posts if p.channel == channel]
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def test_a_slack_channel_gets_at_most_one_post_a_second_from_any_number_of_deliverers(slack, settings):
    settings.DELIVERY_GRACE_SECONDS = 30
    for number in range(5):
        post(str(number), owner_key=str(number))
        post(f"x{number}", owner_key=f"x{number}", code=f"C0OTHER{number}")
    in_threads(*[deliver_all] * 4)

    assert len(gaps(slack)) == 4
    assert 1.0 <= min(gaps(slack)) < 2
    here, elsewhere = ([p.at for p in slack.posts if (p.channel == "C0ONE") is is_here] for is_here in (True, False))
    assert max(elsewhere) < max(here), "the others need not wait for it"


def test_after_a_stall_there_is_no_burst(slack, settings):
    settings.DELIVERY_GRACE_SECONDS = 30
    for number in range(3):
        post(str(number), owner_key=str(number))
    deliver_now()
    threading.Event().wait(2.5)
    in_threads(*[deliver_all] * 3)

    assert min(gaps(slack)) >= 1.0


def test_a_message_that_arrives_while_its_channel_is_closed_waits_like_the_others(slack, settings):
    settings.DELIVERY_GRACE_SECONDS = 30
    post("0", owner_key="0")
    deliver_now()
    post("1", owner_key="1")
    deliver_now()
    assert [p.text for p in slack.posts] == ["0"]
    deliver_all()

    assert min(gaps(slack)) >= 1.0


def test_a_slow_answer_pushes_no_two_posts_together(slack, settings, monkeypatch):
    settings.DELIVERY_GRACE_SECONDS = 30
    original, delays = slack.answer, iter([0.6, 0.0])

    def slow(method, given, token):
        threading.Event().wait(next(delays))
        return original(method, given, token)

    monkeypatch.setattr(slack, "answer", slow)
    post("0", owner_key="0")
    post("1", owner_key="1")
    in_threads(*[deliver_all] * 2)

    assert gaps(slack)[0] >= 1.0


def test_a_paced_channel_has_one_post_in_flight():
    directory.install_slack("acme", team_id="T1", bot_token="xoxb-1", signing_secret="12345678")
    post("0", owner_key="0")
    post("1", owner_key="1")

    assert claim() == "0"
    assert claim() is None


def test_a_thousand_waiting_messages_cost_no_more_each_than_ten():
    def statements_for(waiting):
        OutboundMessage.objects.all().delete()
        Lane.objects.all().delete()
        outbox.enqueue([message(str(n), thread_key=str(n), owner_key=str(n)) for n in range(waiting)])
        while send_order.enter():
            pass
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert claim() == "0"
            assert [claim() for _ in range(5)] == [None] * 5
        touched = OutboundMessage.objects.filter(is_in_lane=False).count()
        return len(captured), touched

    assert statements_for(10) == statements_for(1_000)


# --- Fairness --------------------------------------------------------------------------------------------------
def test_one_organisations_flood_does_not_hold_up_anothers_message():
    outbox.enqueue(
        [message(str(n), org_id="acme", platform="web", code=f"c{n % 50}", thread_key="") for n in range(800)]
    )
    outbox.enqueue([message("ours", org_id="rival", platform="web", code="lobby")])
    while send_order.enter():
        pass
    claimed, after = [], ""
    for _ in range(2):
        found = send_order.claim(after_org=after, grace_seconds=30, flight_seconds=1)
        after = found.outgoing.target.org_id
        claimed.append(found.outgoing.text)

    assert "ours" in claimed


def test_one_channels_flood_does_not_hold_up_another_channel():
    outbox.enqueue([message(str(n), platform="web", code="busy", thread_key="") for n in range(200)])
    outbox.enqueue([message("ours", platform="web", code="quiet")])
    while send_order.enter():
        pass

    assert "ours" in [claim() for _ in range(3)]


def test_everything_is_delivered_with_many_orgs_channels_and_deliverers():
    posted = [
        post(str(n), org_id=("acme", "rival")[n % 2], platform="web", code=f"c{n % 5}", owner_key=str(n % 11))
        for n in range(120)
    ]
    in_threads(*[deliver_all] * 4)

    assert {row(m).status for m in posted} == {"sent"}
    assert len(doubles.deliveries) == 120
