"""Writing messages down, and taking them back."""

import json
import threading

import pytest
from django.db import connection, transaction

from channels_integration import directory, outbox, send_loop
from channels_integration.models import OutboundMessage
from infra.egress import requests_client
from tests.channels import doubles
from tests.channels.sending import deliver, deliver_all, deliver_now, message, post, row
from tests.fakes.slack import Fault, Step
from tests.fakes.webhook import Reply
from tests.races import in_threads

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_message_is_pending_and_rings_once_it_is_committed(rings):
    with transaction.atomic():
        first, second = post("one"), post("two")
        assert not rings

    assert rings == [("deliveries", "channels.deliver")] * 2
    assert row(first).status == "pending"
    assert row(first).position < row(second).position


def test_a_message_whose_transaction_is_undone_was_never_there(rings):
    with transaction.atomic():
        post()
        transaction.set_rollback(True)

    assert not rings
    assert not OutboundMessage.objects.exists()


def test_writing_it_down_again_changes_nothing(rings):
    outgoing = message()
    outbox.enqueue([outgoing])
    OutboundMessage.objects.update(status="withdrawn")
    outbox.enqueue([outgoing])

    assert row(outgoing).status == "withdrawn"


def test_messages_that_are_written_together_keep_their_order(rings):
    written = [message(str(number)) for number in range(50)]
    outbox.enqueue(written)

    assert [m.id for m in written] == list(OutboundMessage.objects.order_by("position").values_list("id", flat=True))


def test_the_null_platform_counts_as_sent_by_being_written(rings):
    outgoing = post(platform="null", code="nowhere")

    assert (row(outgoing).status, row(outgoing).sent_at is None) == ("sent", False)
    assert not rings


def test_the_statement_may_stand_in_a_larger_one(rings):
    records = [outbox.as_record(message("one", platform="null")), outbox.as_record(message("two"))]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""WITH source AS (SELECT %s::json AS outgoing), outgoing_rows AS (
                SELECT record FROM source, json_array_elements(outgoing) record
            ), written AS ({outbox.INSERT_FROM_JSON}) SELECT count(*) FROM outgoing_rows""",
            [json.dumps(records)],
        )

    rows = OutboundMessage.objects.order_by("position").values_list("text", "status", "details", "owner_key")
    assert list(rows) == [("one", "sent", {}, "owner"), ("two", "pending", {}, "owner")]


def test_withdrawing_takes_what_is_not_out_and_only_the_owners(rings):
    ours = {status: post(status) for status in ("pending", "unknown", "sending", "sent", "dead")}
    others = [post(owner_key="other"), post(org_id="rival")]
    for status, outgoing in ours.items():
        OutboundMessage.objects.filter(pk=outgoing.id).update(
            status=status,
            claim_token=outgoing.id,
            claimed_at="2026-01-01T00:00:00Z",
            error_code="x",
            sent_at="2026-01-01T00:00:00Z",
        )

    withdrawn = outbox.withdraw("acme", "owner")

    assert withdrawn == [ours["pending"].id]
    assert [row(outgoing).status for outgoing in ours.values()] == ["withdrawn", "unknown", "sending", "sent", "dead"]
    assert [row(outgoing).status for outgoing in others] == ["pending", "pending"]


FAULTS_AFTER_WHICH_IT_WOULD_BE_SENT_AGAIN = [
    Step(Fault.RATE_LIMITED, retry_after=1),
    Step(Fault.NAMED, error="service_unavailable"),
    Fault.DROP_BEFORE,
    Fault.ERROR_500,
]


@pytest.mark.parametrize("fault", FAULTS_AFTER_WHICH_IT_WOULD_BE_SENT_AGAIN, ids=str)
def test_what_is_withdrawn_while_it_is_being_sent_has_no_second_attempt(slack, monkeypatch, fault):
    original = slack.answer

    def cancel_meanwhile(method, given, token):
        if method == "chat.postMessage":
            assert in_threads(lambda: outbox.withdraw("acme", "owner")) == [[]]
        return original(method, given, token)

    monkeypatch.setattr(slack, "answer", cancel_meanwhile)
    slack.script(fault)
    outgoing = post()
    deliver_all()

    assert row(outgoing).status == "withdrawn"
    assert slack.posts == []
    assert slack.calls("chat.postMessage") == 1
    assert [d.error_code for d in doubles.deliveries] == ["withdrawn"]


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.DROP_AFTER])
def test_what_is_withdrawn_too_late_is_told_as_sent(slack, monkeypatch, fault):
    original = slack.answer

    def cancel_meanwhile(method, given, token):
        if method == "chat.postMessage":
            in_threads(lambda: outbox.withdraw("acme", "owner"))
        return original(method, given, token)

    monkeypatch.setattr(slack, "answer", cancel_meanwhile)
    slack.script(fault)
    outgoing = post()
    deliver_all()

    assert row(outgoing).status == "sent"
    assert [d.is_sent for d in doubles.deliveries] == [True]


@pytest.mark.parametrize(
    ("fault", "status", "codes"), [(Fault.DROP_AFTER, "sent", [""]), (Fault.DROP_BEFORE, "withdrawn", ["withdrawn"])]
)
def test_what_may_have_been_posted_before_it_was_withdrawn_is_looked_up(slack, fault, status, codes):
    slack.script(fault)
    outgoing = post()
    deliver_now()
    assert row(outgoing).status == "unknown"

    assert outbox.withdraw("acme", "owner") == []
    deliver_all()

    assert row(outgoing).status == status
    assert [d.error_code for d in doubles.deliveries] == codes
    assert slack.calls("chat.postMessage") == 1


def test_what_a_webhook_may_have_received_is_told_as_unknown_when_it_is_withdrawn(receiver):
    directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address)
    receiver.replies.append(Reply(is_dropped=True))
    outgoing = post(platform="webhook", code="crm")
    deliver_now()
    assert row(outgoing).status == "pending"

    assert outbox.withdraw("acme", "owner") == []
    deliver_all()

    assert (row(outgoing).status, row(outgoing).error_code) == ("withdrawn", "delivery_unknown")
    assert [d.error_code for d in doubles.deliveries] == ["delivery_unknown"]
    assert len(receiver.received) == 1


def test_what_a_webhook_may_have_received_while_it_was_withdrawn_is_told_as_unknown(receiver, monkeypatch):
    directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address)
    receiver.replies.append(Reply(is_dropped=True))
    send = requests_client.post

    def withdraw_meanwhile(*given, **options):
        in_threads(lambda: outbox.withdraw("acme", "owner"))
        return send(*given, **options)

    monkeypatch.setattr(requests_client, "post", withdraw_meanwhile)
    outgoing = post(platform="webhook", code="crm")
    deliver_all()

    assert (row(outgoing).status, row(outgoing).error_code) == ("withdrawn", "delivery_unknown")
    assert len(receiver.received) == 1


def test_what_a_webhook_surely_did_not_receive_is_withdrawn(receiver):
    directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address)
    receiver.replies.append(Reply(status=503))
    outgoing = post(platform="webhook", code="crm")
    deliver_now()

    assert outbox.withdraw("acme", "owner") == [outgoing.id]
    assert row(outgoing).status == "withdrawn"


def test_what_is_under_way_is_known_of_its_owner_alone(rings):
    for status in ("pending", "sending", "unknown", "sent", "dead", "withdrawn"):
        outgoing = post()
        OutboundMessage.objects.filter(pk=outgoing.id).update(
            status=status,
            claim_token=outgoing.id,
            claimed_at="2026-01-01T00:00:00Z",
            error_code="x",
            sent_at="2026-01-01T00:00:00Z",
        )
    post(org_id="rival")

    assert len(outbox.undelivered("acme", "owner")) == 3
    assert len(outbox.undelivered("rival", "owner")) == 1
    assert len(outbox.undelivered("acme", "nobody")) == 0


def test_the_sweep_rings_for_what_is_due_and_for_nothing_else(rings):
    assert send_loop.sweep() == 0
    outgoing = message()
    outbox.enqueue([outgoing])
    rings.clear()
    assert send_loop.sweep() == 1
    OutboundMessage.objects.update(due_at="2999-01-01T00:00:00Z")
    assert send_loop.sweep() == 0
    assert rings == [("deliveries", "channels.deliver")]


def test_a_withdrawn_message_is_not_sent(slack):
    post("secret")
    outbox.withdraw("acme", "owner")

    deliver_now()

    assert slack.posts == []
    assert doubles.deliveries == []


def test_a_cancel_that_races_the_deliverers_never_deadlocks_and_never_splits(slack):
    """Both sides lock the owner first: here a table of one row stands for the job."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS test_owner (id int PRIMARY KEY, is_canceled bool)")
        cursor.execute("INSERT INTO test_owner VALUES (1, false) ON CONFLICT DO NOTHING")

    def lock_owner(_=None):
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM test_owner FOR UPDATE")
            threading.Event().wait(0.005)

    doubles.on_delivery.append(lock_owner)
    try:
        for round_number in range(8):
            posted = [post(f"{round_number}", code=f"C0{round_number}{n}", thread_key="") for n in range(3)]

            def cancel():
                with transaction.atomic():
                    lock_owner()
                    return outbox.withdraw("acme", "owner")

            _, _, withdrawn = in_threads(lambda: deliver(0.4), lambda: deliver(0.4), cancel)
            deliver_all()
            said = {p.id for p in slack.posts}
            for outgoing in posted:
                is_withdrawn = outgoing.id in withdrawn
                assert is_withdrawn == (row(outgoing).status == "withdrawn")
                assert is_withdrawn != (str(outgoing.id) in said)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE test_owner")
