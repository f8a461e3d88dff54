"""Webhooks and bridges: what is posted, what each answer means, and how the reply comes back."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks

from channels_integration import directory, inbound, web_messages
from channels_integration.errors import UnknownChannel
from channels_integration.messages import Target
from channels_integration.models import Channel, OutboundMessage
from infra import meters
from infra.egress import requests_client
from tests.channels import doubles
from tests.channels.sending import GRACE, deliver, deliver_all, deliver_now, overdue, post, row
from tests.fakes.webhook import Reply

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def secret(receiver):
    _, made = directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address)
    return made


def to_crm(text="Hello", **changes):
    return post(text, platform="webhook", code="crm", **changes)


def test_a_message_is_posted_signed_and_with_its_own_id(receiver, secret):
    outgoing = to_crm("Hé", data={"lead": 7})
    deliver_all()

    (received,) = receiver.received
    body = standardwebhooks.Webhook(secret).verify(received.body, received.headers)
    assert received.headers["webhook-id"] == body["data"]["id"] == str(outgoing.id)
    assert received.headers["content-type"] == "application/json"
    assert body["type"] == "message.created"
    assert body["data"] == {
        "id": str(outgoing.id),
        "org_id": "acme",
        "platform": "webhook",
        "channel_code": "crm",
        "text": "Hé",
        "job_id": "owner",
        "channel_data": {"lead": 7},
    }
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(base64.b64encode(b"x" * 32).decode()).verify(received.body, received.headers)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(receiver, secret, status):
    receiver.replies = [Reply(status, body=b"")]
    outgoing = to_crm()
    deliver_now()

    assert row(outgoing).status == "sent"


@pytest.mark.parametrize("status", [301, 307, 400, 403, 405, 409, 410, 413, 422])
def test_a_refusal_is_a_dead_letter(receiver, secret, status):
    receiver.replies = [Reply(status, headers={"Location": "http://127.0.0.1:1/"})]
    outgoing = to_crm()
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", f"http_{status}")
    assert len(receiver.received) == 1
    assert [d.error_code for d in doubles.deliveries] == [f"http_{status}"]


@pytest.mark.parametrize(
    "reply",
    # 401 and 404: a receiver that is being deployed, or given its new secret.
    [
        Reply(401),
        Reply(404),
        Reply(408),
        Reply(425),
        Reply(429),
        Reply(500),
        Reply(502),
        Reply(503),
        Reply(is_dropped=True),
    ],
    ids=str,
)
def test_a_failure_is_repeated_with_the_same_id_and_a_signature_of_its_own_moment(receiver, secret, reply):
    receiver.replies = [reply]
    outgoing = to_crm()
    deliver_all()

    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert row(outgoing).status == "sent"
    for received in (first, second):
        standardwebhooks.Webhook(secret).verify(received.body, received.headers)


def test_after_a_change_of_the_secret_both_sign_for_a_day(receiver, secret):
    new = "whsec_" + base64.b64encode(b"n" * 32).decode()
    directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address, secret=new)
    to_crm("one")
    deliver_all()
    Channel.objects.update(previous_secret_until=datetime.now(UTC) - timedelta(seconds=1))
    to_crm("two")
    deliver_all()

    during, after = receiver.received
    assert len(during.headers["webhook-signature"].split(" ")) == 2
    for one in (secret, new):
        standardwebhooks.Webhook(one).verify(during.body, during.headers)
    standardwebhooks.Webhook(new).verify(after.body, after.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(after.body, after.headers)


def test_a_receiver_that_does_not_answer_in_time_is_called_slow_and_asked_again(receiver, secret, settings):
    settings.DELIVERY_GRACE_SECONDS = GRACE  # half of it is what an answer may take
    receiver.replies = [Reply(hang=10)]
    outgoing = to_crm()
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("pending", "receiver_slow")
    assert "slow: no answer within" in row(outgoing).error_message
    deliver_all()
    assert [one.headers["webhook-id"] for one in receiver.received] == [str(outgoing.id)] * 2


@pytest.mark.parametrize(
    ("status", "stated", "seconds"),
    [
        (429, "7", 7),
        (503, "7", 7),
        (429, "99999999999", 3600),
        (503, "in 50 minutes", 3000),
        (503, "nonsense", 1),
        (429, "-5", 1),
        (500, "7", 1),
    ],
)
def test_retry_after_is_obeyed_within_reason(receiver, secret, status, stated, seconds):
    if stated == "in 50 minutes":
        stated = (datetime.now(UTC) + timedelta(minutes=50)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.replies = [Reply(status, headers={"Retry-After": stated})]
    outgoing = to_crm()
    began = datetime.now(UTC)
    deliver_now()

    due_at, spare = row(outgoing).due_at, timedelta(seconds=1)
    least, most = timedelta(seconds=seconds - 60 * (seconds > 100)), timedelta(seconds=seconds)
    assert began + least - spare < due_at <= datetime.now(UTC) + most + spare


def test_a_receiver_that_asks_to_wait_is_left_alone_by_all_of_its_channel(receiver, secret):
    receiver.replies = [Reply(429, headers={"Retry-After": "30"})]
    to_crm("one", owner_key="1")
    to_crm("two", owner_key="2")
    deliver_now()

    assert len(receiver.received) == 1


def test_a_worker_that_died_while_posting_is_made_up_for_with_the_same_id(receiver, secret):
    outgoing = to_crm()
    OutboundMessage.objects.update(
        status="sending", claim_token=outgoing.id, claimed_at=datetime.now(UTC), first_claimed_at=datetime.now(UTC)
    )
    overdue()
    deliver_all()

    assert [r.headers["webhook-id"] for r in receiver.received] == [str(outgoing.id)]


def test_a_huge_answer_is_not_read_to_its_end(receiver, secret):
    receiver.replies = [Reply(200, body=b"x" * 5_000_000)]
    outgoing = to_crm()
    deliver()

    assert row(outgoing).status == "sent"


def test_what_was_posted_and_what_came_back_make_one_transcript(receiver, secret):
    to_crm("Question")
    deliver_all()
    web_messages.say("acme", "webhook", "crm", text="Answer", author="Ann", owner_key="owner")
    inbound.route_due()

    assert [(m.direction, m.text) for m in web_messages.read("acme", "webhook", "crm")] == [
        ("out", "Question"),
        ("in", "Answer"),
    ]
    assert [(h.platform, h.code, h.owner_key) for h in doubles.heard] == [("webhook", "crm", "owner")]


def test_a_bridge_is_a_webhook_under_another_name(receiver):
    directory.register_channel("acme", platform="whatsapp", code="+491234", address=receiver.address)
    post("Hi", platform="whatsapp", code="+491234")
    deliver_all()

    body = json.loads(receiver.received[0].body)
    assert (body["data"]["platform"], body["data"]["channel_code"]) == ("whatsapp", "+491234")
    assert [m.text for m in web_messages.read("acme", "whatsapp", "+491234")] == ["Hi"]
    counted = {dict(labels).get("platform") for name, labels in meters.totals() if name == "deliveries"}
    assert "webhook" in counted
    assert "whatsapp" not in counted, "a name that an organisation made up is no label of a metric"


def test_a_channel_that_was_unregistered_meanwhile_is_a_dead_letter(receiver, secret):
    outgoing = to_crm()
    directory.unregister_channel("acme", "webhook", "crm")
    deliver_now()

    assert row(outgoing).error_code == "channel_not_found"
    assert receiver.received == []


def test_a_channel_that_is_unregistered_while_it_answers_has_been_reached(receiver, secret, monkeypatch):
    original = requests_client.post

    def unregister_meanwhile(*args, **kwargs):
        answer = original(*args, **kwargs)
        directory.unregister_channel("acme", "webhook", "crm")
        return answer

    monkeypatch.setattr(requests_client, "post", unregister_meanwhile)
    outgoing = to_crm()
    deliver_now()

    assert row(outgoing).status == "sent"


def test_an_address_that_became_private_is_refused_when_it_is_used(receiver, secret, settings):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    Channel.objects.update(address=f"https://127.0.0.1:{receiver.port}/in")
    outgoing = to_crm()
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "address_refused")
    assert receiver.received == []


def test_a_strangers_channel_of_the_same_code_is_not_used(receiver, secret):
    outgoing = to_crm(org_id="rival")
    deliver_now()

    assert row(outgoing).error_code == "channel_not_found"
    assert receiver.received == []


# --- A bridge for a whole platform -----------------------------------------------------------------------------
@pytest.fixture
def whatsapp(receiver):
    _, made = directory.register_channel("acme", platform="whatsapp", code="*", address=receiver.address)
    return made


def to_number(text="Hello", code="+4930123", **changes):
    return post(text, platform="whatsapp", code=code, **changes)


def reason(code, platform="whatsapp", org_id="acme"):
    return directory.unreachable_reason(Target(org_id, platform, code))


def test_a_bridge_for_the_whole_platform_gets_the_messages_to_any_code(receiver, whatsapp):
    to_number(code="+1"), to_number(code="+2")
    deliver_all()

    bodies = [standardwebhooks.Webhook(whatsapp).verify(one.body, one.headers) for one in receiver.received]
    assert sorted(body["data"]["channel_code"] for body in bodies) == ["+1", "+2"]
    assert [line.text for line in web_messages.read("acme", "whatsapp", "+1")] == ["Hello"]


def test_the_specific_channel_wins(receiver, whatsapp):
    _, own = directory.register_channel("acme", platform="whatsapp", code="+1", address=receiver.address)
    to_number(code="+1")
    deliver_all()

    (received,) = receiver.received
    assert standardwebhooks.Webhook(own).verify(received.body, received.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(whatsapp).verify(received.body, received.headers)


@pytest.mark.parametrize(
    ("place", "is_reached"),
    [(("+1",), True), (("*",), False), (("+1", "signal"), False), (("+1", "whatsapp", "rival"), False)],
)
def test_it_reaches_every_code_of_its_own_platform_and_organisation(whatsapp, place, is_reached):
    assert (reason(*place) is None) == is_reached


def test_a_person_answers_in_any_code_of_it(whatsapp):
    assert web_messages.read("acme", "whatsapp", "+7") == []
    web_messages.say("acme", "whatsapp", "+7", text="Hi", author="Ann")

    assert [line.text for line in web_messages.read("acme", "whatsapp", "+7")] == ["Hi"]
    for org_id, platform, code in (("rival", "whatsapp", "+7"), ("acme", "signal", "+7"), ("acme", "whatsapp", "*")):
        with pytest.raises(UnknownChannel):
            web_messages.say(org_id, platform, code, text="Hi", author="Ann")
        with pytest.raises(UnknownChannel):
            web_messages.read(org_id, platform, code)


def test_codes_that_it_stands_for_are_not_listed_and_go_with_it(receiver, whatsapp):
    directory.register_channel("acme", platform="whatsapp", code="+1", address=receiver.address)
    web_messages.say("acme", "whatsapp", "+7", text="Hi", author="Ann")
    assert [channel.code for channel in directory.channels("acme")] == ["*", "+1"]
    assert directory.unregister_channel("acme", "whatsapp", "+7") is False

    assert directory.unregister_channel("acme", "whatsapp", "*") is True

    assert [channel.code for channel in Channel.objects.all()] == ["+1"]
    assert reason("+7") is not None


def test_a_code_that_it_stood_for_keeps_its_transcript_when_it_is_registered(receiver, whatsapp):
    web_messages.say("acme", "whatsapp", "+7", text="Hi", author="Ann")

    directory.register_channel("acme", platform="whatsapp", code="+7", address=receiver.address)

    assert [line.text for line in web_messages.read("acme", "whatsapp", "+7")] == ["Hi"]
    assert [channel.code for channel in directory.channels("acme")] == ["*", "+7"]
