"""Deliveries reach a real receiver: signed, retried, redelivered, disabled, and fair to each other."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks

from agent_jobs import lifecycle, webhooks
from agent_jobs.duties import org_closing, pruning, webhook_sending
from agent_jobs.legal_moves import Event
from agent_jobs.models import Announcement, AuditEntry, Job, WebhookDelivery, WebhookEndpoint
from agent_jobs.states import JobStatus
from agent_jobs.webhooks import delivery_claims, endpoints, expansion, sending
from agent_jobs.webhooks.sending import DeliverySender
from tests import factories, rows
from tests.fakes.webhook import FakeReceiver, Received, Reply
from tests.waiting import wait_for
from tests.webhooks.conftest import ENDPOINTS, TurnedClock, deliveries, make_endpoint

pytestmark = pytest.mark.django_db(transaction=True)
Send = Callable[[], int]


def verified(received: Received, secret: str) -> Any:
    return standardwebhooks.Webhook(secret).verify(received.body, received.headers)


def complete(**columns: Any) -> Job:
    job = rows.job(JobStatus.RUNNING, **columns)
    return lifecycle.move_one(Event.COMPLETE, job, actor=rows.TESTER, result="done")


# --- What is sent ----------------------------------------------------------------------------------------------
def test_an_event_is_posted_signed_with_the_job_as_the_api_shows_it(
    admin: factories.Api, receiver: FakeReceiver, send: Send
) -> None:
    endpoint = make_endpoint(admin, receiver)
    job = complete(params={"name": "Zoë"})
    send()
    (received,) = receiver.received
    body = verified(received, endpoint["secret"])
    assert (body["type"], received.headers["content-type"]) == ("job.completed", "application/json")
    assert body["timestamp"].endswith("Z")
    assert body["data"] == admin.get("/services/agent-jobs").json()["data"][0]
    assert (body["data"]["id"], body["data"]["result"]) == (str(job.pk), "done")
    (delivery,) = deliveries(admin, endpoint)
    assert (delivery["status"], delivery["event"]) == ("delivered", "job.completed")
    assert delivery["webhook_id"] == received.headers["webhook-id"]
    assert delivery["payload"] == body
    (attempt,) = delivery["attempts"]
    assert (attempt["status_code"], "error" in attempt) == (200, False)
    assert attempt["duration_ms"] >= 0
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(received, "whsec_" + "A" * 43 + "=")


def test_a_message_event_has_what_was_said(admin: factories.Api, receiver: FakeReceiver, send: Send) -> None:
    endpoint = make_endpoint(admin, receiver, event_types=["job.message"])
    said = factories.activity(rows.job(), "message.out", output={"text": "Hi there"})
    send()
    body = verified(receiver.received[0], endpoint["secret"])
    assert body["data"]["message"] == {"id": str(said.pk), "text": "Hi there"}
    assert body["data"]["id"] == str(said.job_id)


def test_a_schedules_event_has_the_payload_that_it_announced(
    admin: factories.Api, receiver: FakeReceiver, send: Send
) -> None:
    endpoint = make_endpoint(admin, receiver)
    webhooks.announce("acme", "schedule.misfired", "s1", {"schedule_id": "s1"})
    send()
    assert verified(receiver.received[0], endpoint["secret"])["data"] == {"schedule_id": "s1"}


def test_each_endpoint_gets_what_it_asked_for(admin: factories.Api, receiver: FakeReceiver, send: Send) -> None:
    with FakeReceiver() as other:
        make_endpoint(admin, receiver, event_types=["job.completed"])
        make_endpoint(admin, other, event_types=["job.completed", "job.canceled"])
        complete()
        lifecycle.move_one(Event.CANCEL, rows.job(), actor=rows.TESTER)
        send()
        assert len(receiver.received) == 1
        assert sorted(b"job.canceled" in one.body for one in other.received) == [False, True]
    same = {one.headers["webhook-id"] for one in (*receiver.received, *other.received) if b"job.comp" in one.body[:40]}
    assert len(same) == 1


def test_a_job_that_is_gone_is_told_to_nobody(admin: factories.Api, receiver: FakeReceiver, send: Send) -> None:
    make_endpoint(admin, receiver)
    job = complete()
    Job.objects.filter(pk=job.pk).delete()
    send()
    assert receiver.received == []
    assert not Announcement.objects.exists()


def test_an_announcement_that_raises_does_not_stop_the_others(
    admin: factories.Api, receiver: FakeReceiver, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_endpoint(admin, receiver)
    odd, _ = complete(prompt="odd"), complete()
    jobs_of = expansion._jobs

    def jobs(org_id: str, ids: Any) -> Any:
        if odd.pk in ids:
            raise KeyError("an odd row")
        return jobs_of(org_id, ids)

    monkeypatch.setattr(expansion, "_jobs", jobs)
    send()
    assert len(receiver.received) == 1


# --- Failures --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reply", [Reply(500), Reply(429), Reply(404), Reply(302), Reply(is_dropped=True)], ids=str)
def test_a_failure_is_tried_again_under_the_same_id(
    admin: factories.Api, receiver: FakeReceiver, send: Send, clock: TurnedClock, reply: Reply
) -> None:
    endpoint = make_endpoint(admin, receiver)
    complete()
    receiver.replies = [reply]
    send()
    assert len(receiver.received) == 1, "not before its time"
    (delivery,) = deliveries(admin, endpoint)
    assert (delivery["status"], len(delivery["attempts"])) == ("pending", 1)
    assert delivery["attempts"][0]["error"]
    assert admin.get(f"{ENDPOINTS}/{endpoint['id']}").json()["data"]["failing_since"]
    clock.turn(seconds=10)
    send()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    verified(second, endpoint["secret"])
    (delivery,) = deliveries(admin, endpoint)
    assert (delivery["status"], len(delivery["attempts"])) == ("delivered", 2)
    assert "failing_since" not in admin.get(f"{ENDPOINTS}/{endpoint['id']}").json()["data"]


def test_after_three_days_a_delivery_fails_and_can_be_redelivered(
    admin: factories.Api, receiver: FakeReceiver, send: Send, clock: TurnedClock
) -> None:
    endpoint = make_endpoint(admin, receiver)
    complete()
    receiver.replies = [Reply(500)] * 12
    for _ in range(12):
        send()
        clock.turn(hours=27)
        WebhookEndpoint.objects.update(failing_since=None)  # here only the delivery is of interest
    (delivery,) = deliveries(admin, endpoint)
    assert (delivery["status"], len(delivery["attempts"])) == ("failed", 12)
    assert "next_attempt_at" not in delivery
    send()
    assert len(receiver.received) == 12

    response = admin.post(f"{ENDPOINTS}/{endpoint['id']}/deliveries/{delivery['id']}/redeliver")
    assert (response.status_code, response.json()["data"]["status"]) == (200, "pending")
    send()
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert deliveries(admin, endpoint, status="delivered")[0]["id"] == delivery["id"]
    assert AuditEntry.objects.filter(action="webhook_delivery.redelivered").exists()


def test_five_days_of_nothing_but_failures_disable_an_endpoint(
    admin: factories.Api, receiver: FakeReceiver, send: Send, clock: TurnedClock
) -> None:
    endpoint = make_endpoint(admin, receiver)
    receiver.replies = [Reply(500)] * 100
    path = f"{ENDPOINTS}/{endpoint['id']}"
    for day in range(6):
        assert admin.get(path).json()["data"]["enabled"] is True, day
        complete()
        send()
        clock.turn(days=1)
    shown = admin.get(path).json()["data"]
    assert shown["enabled"] is False
    assert (
        shown["disabled_reason"] == "every attempt of the last 5 days failed, the last one: the receiver answered 500"
    )
    entry = AuditEntry.objects.get(action="webhook_endpoint.disabled")
    assert (entry.object_id, entry.actor) == (endpoint["id"], "system:webhooks")
    count = len(receiver.received)
    complete()
    clock.turn(days=1)
    send()
    assert len(receiver.received) == count, "a disabled endpoint gets nothing"

    receiver.replies = []
    assert admin.patch(path, {"enabled": True}).json()["data"].get("disabled_reason") is None
    send()
    assert len(receiver.received) > count, "what was pending goes on"


def test_one_success_in_five_days_keeps_an_endpoint_enabled(
    admin: factories.Api, receiver: FakeReceiver, send: Send, clock: TurnedClock
) -> None:
    endpoint = make_endpoint(admin, receiver)
    for day in range(8):
        receiver.replies = [] if day == 4 else [Reply(500)] * 50
        complete()
        send()
        clock.turn(days=1)
    assert admin.get(f"{ENDPOINTS}/{endpoint['id']}").json()["data"]["enabled"] is True


def test_410_gone_disables_at_once(admin: factories.Api, receiver: FakeReceiver, send: Send) -> None:
    endpoint = make_endpoint(admin, receiver)
    receiver.replies = [Reply(410)]
    complete()
    send()
    shown = admin.get(f"{ENDPOINTS}/{endpoint['id']}").json()["data"]
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "the receiver answered 410 Gone")
    assert deliveries(admin, endpoint)[0]["status"] == "failed"


def test_a_receiver_that_does_not_keep_up_disables_its_endpoint(
    admin: factories.Api, receiver: FakeReceiver, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MOST_PENDING", 2)
    endpoint = make_endpoint(admin, receiver)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    for is_enabled in (True, False, False):
        complete()
        expansion.expand_some()
        assert admin.get(path).json()["data"]["enabled"] is is_enabled
    assert admin.get(path).json()["data"]["disabled_reason"] == "2 deliveries are pending, which is the limit"
    assert len(deliveries(admin, endpoint)) == 2
    admin.patch(path, {"enabled": True})
    send()
    assert len(receiver.received) == 2


def test_a_private_address_is_refused_at_the_attempt_too(
    admin: factories.Api, receiver: FakeReceiver, send: Send, settings: Any
) -> None:
    """The name may point elsewhere by then."""
    endpoint = make_endpoint(admin, receiver)
    complete()
    settings.ALLOW_PRIVATE_ADDRESSES = False
    WebhookEndpoint.objects.update(url="https://127.0.0.1/in")
    send()
    assert "private" in deliveries(admin, endpoint)[0]["attempts"][0]["error"]
    assert receiver.received == []


def test_a_sender_that_dies_between_send_and_settlement_repeats_under_the_same_id(
    admin: factories.Api, receiver: FakeReceiver, send: Send, clock: TurnedClock
) -> None:
    endpoint = make_endpoint(admin, receiver)
    complete()
    expansion.expand_some()
    now = clock()
    (claimed,) = delivery_claims.claim(most=10, now=now)
    assert not sending.attempt(claimed, now).error  # sent, and then it dies
    send()
    assert len(receiver.received) == 1, "its lease is not over"
    clock.turn(seconds=delivery_claims.LEASE_SECONDS + 1)
    send()
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len(receiver.received) == 2
    (delivery,) = deliveries(admin, endpoint)
    assert (delivery["status"], len(delivery["attempts"])) == ("delivered", 1)

    late = delivery_claims.AttemptResult(1, 500, "late")
    assert not delivery_claims.settle(claimed, late, began_at=now, now=now, rng=sending._CHANCE)
    assert deliveries(admin, endpoint)[0]["status"] == "delivered", "a stale claim changes nothing"


# --- Secrets ---------------------------------------------------------------------------------------------------
def test_both_secrets_sign_during_the_overlap_and_only_the_new_one_after_it(
    admin: factories.Api, receiver: FakeReceiver, send: Send, clock: TurnedClock
) -> None:
    endpoint = make_endpoint(admin, receiver)
    rotated = admin.post(f"{ENDPOINTS}/{endpoint['id']}/rotate-secret", {"overlap_minutes": 3}).json()["data"]
    assert rotated["secret"] != endpoint["secret"]
    assert rotated["previous_secret_until"]
    complete()
    send()
    for secret in (endpoint["secret"], rotated["secret"]):
        verified(receiver.received[0], secret)
    clock.turn(minutes=4)
    complete()
    send()
    verified(receiver.received[1], rotated["secret"])
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(receiver.received[1], endpoint["secret"])


def test_at_most_two_secrets_are_active(admin: factories.Api, receiver: FakeReceiver, send: Send) -> None:
    endpoint = make_endpoint(admin, receiver)
    path = f"{ENDPOINTS}/{endpoint['id']}/rotate-secret"
    second, third = (admin.post(path).json()["data"]["secret"] for _ in range(2))
    complete()
    send()
    for secret in (second, third):
        verified(receiver.received[0], secret)
    assert len(receiver.received[0].headers["webhook-signature"].split()) == 2
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(receiver.received[0], endpoint["secret"])


def test_without_an_overlap_the_old_secret_stops_at_once(
    admin: factories.Api, receiver: FakeReceiver, send: Send
) -> None:
    endpoint = make_endpoint(admin, receiver)
    new = admin.post(f"{ENDPOINTS}/{endpoint['id']}/rotate-secret", {"overlap_minutes": 0}).json()["data"]["secret"]
    complete()
    send()
    verified(receiver.received[0], new)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(receiver.received[0], endpoint["secret"])


# --- Fairness --------------------------------------------------------------------------------------------------
def test_receivers_that_hang_do_not_delay_another(
    admin: factories.Api, receiver: FakeReceiver, sender: DeliverySender
) -> None:
    hanging = [FakeReceiver() for _ in range(2)]
    for slow in hanging:
        slow.__enter__()
        slow.replies = [Reply(hang=30.0)] * 200
        make_endpoint(admin, slow, event_types=["job.completed"])
    make_endpoint(admin, receiver, event_types=["job.canceled"])
    for _ in range(20):
        complete()
    lifecycle.move_one(Event.CANCEL, rows.job(), actor=rows.TESTER)
    while expansion.expand_some():
        pass
    began = time.monotonic()
    while not receiver.received:
        sender.round()
    took = time.monotonic() - began
    for slow in hanging:
        slow.__exit__(None, None, None)
    assert took < 4, "half of the time that a request may take"
    held = WebhookDelivery.objects.filter(claimed_until__isnull=False, event="job.completed").count()
    assert held <= delivery_claims.MOST_OF_ORG


def test_an_attempt_that_outlasts_its_slice_is_settled_without_another_slice(
    admin: factories.Api, receiver: FakeReceiver, sender: DeliverySender
) -> None:
    endpoint = make_endpoint(admin, receiver)
    receiver.replies = [Reply(hang=1.5)]
    complete()
    slice_ends = time.monotonic() + 0.5
    done, is_left = sending.deliver(sender, expand=expansion.expand_some, until=slice_ends, stop=threading.Event())
    assert (done > 0, is_left, sender.is_idle) == (True, True, True)
    assert deliveries(admin, endpoint)[0]["status"] == "pending"
    wait_for(lambda: deliveries(admin, endpoint)[0]["status"] == "delivered", what="it is settled")
    assert len(receiver.received) == 1


def test_claims_take_every_endpoints_first_before_anybodys_second(
    admin: factories.Api, receiver: FakeReceiver, clock: TurnedClock
) -> None:
    rival = factories.api("rival", "SERVICES:ADMIN")
    flooded = make_endpoint(admin, receiver)
    for _ in range(30):
        complete()
    others = [make_endpoint(rival, receiver) for _ in range(3)]
    complete(org_id="rival")
    while expansion.expand_some():
        pass
    claimed = delivery_claims.claim(most=4, now=clock())
    assert {str(one.endpoint_id) for one in claimed} == {flooded["id"], *(other["id"] for other in others)}


def test_an_endpoint_and_an_organisation_have_so_many_in_flight(
    admin: factories.Api, receiver: FakeReceiver, clock: TurnedClock
) -> None:
    made = [make_endpoint(admin, receiver) for _ in range(3)]
    for _ in range(30):
        complete()
    while expansion.expand_some():
        pass
    held: list[str] = []
    for most in (5, 100, 100):
        held += [str(one.endpoint_id) for one in delivery_claims.claim(most=most, now=clock())]
    assert len(held) == delivery_claims.MOST_OF_ORG
    assert max(held.count(one["id"]) for one in made) <= delivery_claims.MOST_OF_ENDPOINT

    WebhookDelivery.objects.update(claimed_until=None, claim_token=None, due_at=datetime.now(UTC))
    WebhookEndpoint.objects.update(failing_since=datetime.now(UTC))
    assert len(delivery_claims.claim(most=100, now=clock())) == 3, "one each, while they fail"


# --- The duty, and the end -------------------------------------------------------------------------------------
def test_the_duty_expands_and_sends(
    admin: factories.Api, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sending, "_senders", [])
    make_endpoint(admin, receiver)
    complete()
    assert webhook_sending.serve_slice(stop=threading.Event()) > 0
    assert len(receiver.received) == 1
    assert webhook_sending.serve_slice(stop=threading.Event()) == 0


def test_a_closed_organisation_sends_nothing_more(admin: factories.Api, receiver: FakeReceiver, send: Send) -> None:
    endpoint = make_endpoint(admin, receiver)
    complete()
    expansion.expand_some()
    rows.job()
    org_closing.close("acme", actor=rows.TESTER)
    send()
    assert receiver.received == []
    assert WebhookDelivery.objects.filter(endpoint_id=endpoint["id"]).count() == 1


def test_old_deliveries_are_pruned_with_their_payloads(
    admin: factories.Api, receiver: FakeReceiver, send: Send
) -> None:
    make_endpoint(admin, receiver)
    complete()
    complete()
    send()
    old = Announcement.objects.order_by("id").first()
    assert old is not None
    Announcement.objects.filter(pk=old.pk).update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    counted, (gone, _) = pruning.count(), pruning.prune()
    assert (gone["announcements"], gone["webhook_deliveries"]) == (1, 1)
    assert (counted["announcements"], counted["webhook_deliveries"]) == (1, 1)
    assert Announcement.objects.count() == WebhookDelivery.objects.count() == 1


def test_a_deleted_endpoint_takes_its_deliveries_along(
    admin: factories.Api, receiver: FakeReceiver, send: Send
) -> None:
    endpoint = make_endpoint(admin, receiver)
    complete()
    expansion.expand_some()
    assert admin.delete(f"{ENDPOINTS}/{endpoint['id']}").status_code == 200
    send()
    assert receiver.received == []
    assert not WebhookDelivery.objects.exists()


def test_a_redelivery_to_a_disabled_endpoint_is_refused(
    admin: factories.Api, receiver: FakeReceiver, send: Send
) -> None:
    endpoint = make_endpoint(admin, receiver)
    complete()
    send()
    (delivery,) = deliveries(admin, endpoint)
    endpoints.change("acme", WebhookEndpoint.objects.get().pk, {"enabled": False}, actor=rows.TESTER)
    for path in (f"deliveries/{delivery['id']}/redeliver", "test"):
        response = admin.post(f"{ENDPOINTS}/{endpoint['id']}/{path}")
        assert (response.status_code, response.json()["code"]) == (409, "webhook_endpoint_disabled")
