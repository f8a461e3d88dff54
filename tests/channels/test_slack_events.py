"""The door for Slack's events: what it believes, what it keeps, and how fast it answers."""

import json
import random
import socket
import time

import pytest
from django.test import Client

from channels_integration import directory
from channels_integration.models import InboundEvent, Installation
from tests.channels.sending import SIGNING_SECRET, as_json
from tests.fakes.slack import FakeSlack, sign

pytestmark = pytest.mark.django_db(transaction=True)
DOOR = "/channels/slack/events"


@pytest.fixture
def slack():
    """No server is needed: events are posted through Django's test client."""
    directory.install_slack("acme", team_id="T0ACME", bot_token="xoxb-acme", signing_secret=SIGNING_SECRET)
    return FakeSlack(team_id="T0ACME", signing_secret=SIGNING_SECRET)


def knock(envelope, *, secret=SIGNING_SECRET, skew=0, headers=None, body=None, door=DOOR):
    body = as_json(envelope) if body is None else body
    signed = {**sign(body, secret, at=time.time() + skew), **(headers or {})}
    content_type = signed.pop("Content-Type")
    return Client().post(door, data=body, content_type=content_type, headers=signed)


def a_message(slack, **fields):
    event = {"type": "message", "channel": "C0ONE", "user": "U1", "text": "hi", "ts": "1767225600.000100"}
    event |= {"channel_type": "channel"} | fields
    return slack.envelope({name: value for name, value in event.items() if value is not None})


def test_a_persons_message_is_kept_with_all_that_routing_needs(slack):
    envelope = a_message(slack, text="a &lt;b&gt; &amp; c", thread_ts="1767225000.000001")
    answer = knock(envelope)

    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    kept = InboundEvent.objects.get()
    assert (kept.org_id, kept.platform, kept.team, kept.code) == ("acme", "slack", "T0ACME", "C0ONE")
    assert (kept.author, kept.text, kept.thread) == ("U1", "a <b> & c", "1767225000.000001")
    assert (kept.event_id, kept.is_direct) == ("said:C0ONE:1767225600.000100", False)
    assert kept.sent_at.isoformat() == "2026-01-01T00:00:00.000100+00:00"


HEARD = [
    ({"subtype": "file_share", "text": "", "files": [{"id": "F1", "name": "q3.pdf"}]}, "(file: q3.pdf)"),
    ({"subtype": "file_share", "text": None, "files": [{"id": "F1", "name": "q3.pdf"}]}, "(file: q3.pdf)"),
    ({"text": "", "attachments": [{"is_share": True, "author_name": "Bea", "text": "Hi"}]}, "(forwarded from Bea:) Hi"),
    ({"subtype": "me_message", "text": "is done"}, "is done"),
    ({"text": "<@U0BEA> <https://example.com|the page>"}, "@U0BEA the page (https://example.com)"),
    ({"text": ""}, "(a message without text)"),
]


@pytest.mark.parametrize(("fields", "text"), HEARD, ids=str)
def test_nothing_that_a_person_says_is_lost(slack, fields, text):
    knock(a_message(slack, **fields))

    assert InboundEvent.objects.get().text == text


def test_a_reply_that_is_also_sent_to_the_channel_is_heard_once(slack):
    knock(a_message(slack, thread_ts="1767225000.000001"))
    knock(a_message(slack, thread_ts="1767225000.000001", subtype="thread_broadcast"))

    assert InboundEvent.objects.count() == 1


SHARED = [
    {"authorizations": [{"team_id": "T0ACME", "enterprise_id": None}]},
    {"authorizations": [{"team_id": "T0NOBODY"}, {"team_id": "T0ACME"}]},
    {"context_team_id": "T0ACME"},
    {"authorizations": "x", "context_team_id": "T0ACME"},
]


@pytest.mark.parametrize("fields", SHARED, ids=str)
def test_a_message_in_a_channel_shared_with_another_company_is_heard(slack, fields):
    answer = knock({**a_message(slack), "team_id": "T0OTHER", **fields})

    assert answer.status_code == 200
    assert (InboundEvent.objects.get().team, InboundEvent.objects.get().org_id) == ("T0ACME", "acme")


def test_an_event_of_which_no_workspace_is_ours_is_refused(slack):
    others = {"team_id": "T0OTHER", "context_team_id": "T0OTHER", "authorizations": [{"team_id": "T0OTHER"}]}
    refused(knock({**a_message(slack), **others}))


def test_that_a_message_of_ours_is_gone_is_heard_and_that_of_another_bot_is_not(slack):
    before = {"type": "message", "user": "U0BOT", "bot_id": "B0BOT", "app_id": "A0FAKE", "ts": "1767225600.000100"}
    gone = {"type": "message", "subtype": "message_deleted", "channel": "C0ONE", "ts": "1767225800.000000"}
    knock(slack.envelope({**gone, "previous_message": {**before, "app_id": "A0OTHER"}}))
    assert not InboundEvent.objects.exists()
    knock(slack.envelope({**gone, "previous_message": before}))

    kept = InboundEvent.objects.get()
    assert (kept.did, kept.message_id) == ("deleted", before["ts"])


def test_a_direct_message_is_known_as_one(slack):
    knock(a_message(slack, channel="D0ANN", channel_type="im"))

    assert InboundEvent.objects.get().is_direct is True


def test_a_repeated_event_is_answered_and_not_kept_again(slack):
    envelope = a_message(slack)
    headers = [{}, {"X-Slack-Retry-Num": "1"}, {"X-Slack-Retry-Num": "2", "X-Slack-Retry-Reason": "http_timeout"}]
    assert [knock(envelope, headers=one).status_code for one in headers] == [200] * 3

    assert InboundEvent.objects.count() == 1


def test_a_retry_whose_first_try_never_arrived_is_kept(slack):
    knock(a_message(slack), headers={"X-Slack-Retry-Num": "1"})

    assert InboundEvent.objects.count() == 1


IGNORED = [
    {"bot_id": "B1"},
    {"subtype": "bot_message", "bot_id": "B1", "user": None},
    {"app_id": "A1"},
    {"bot_profile": {"id": "B1"}},
    {"subtype": "message_changed"},
    {"subtype": "message_deleted"},
    {"subtype": "channel_join"},
    {"subtype": "a_subtype_to_come"},
    {"user": None},
    {"channel": None},
    {"ts": None},
    {"ts": "nonsense"},
    {"ts": 5},
    {"text": 5},
    {"thread_ts": ["x"]},
    {"type": "app_mention"},
    {"type": "reaction_added"},
]


@pytest.mark.parametrize("fields", IGNORED, ids=str)
def test_what_no_person_said_is_answered_and_not_kept(slack, fields):
    assert knock(a_message(slack, **fields)).status_code == 200
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize("subtype", ["file_share", "thread_broadcast"])
def test_a_file_and_a_broadcast_reply_are_messages(slack, subtype):
    knock(a_message(slack, subtype=subtype))

    assert InboundEvent.objects.count() == 1


def test_what_cannot_be_stored_as_text_is_made_storable(slack):
    knock(a_message(slack, text="a\x00b \ud800 c"))

    assert InboundEvent.objects.get().text == "ab ? c"


@pytest.mark.parametrize("envelope", [{"type": "event_callback", "team_id": "T0ACME"}, {"team_id": "T0ACME"}], ids=str)
def test_a_signed_request_without_an_event_is_answered(slack, envelope):
    assert knock(envelope).status_code == 200


# --- Whom it believes ------------------------------------------------------------------------------------------
def refused(answer):
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/json"
    assert not InboundEvent.objects.exists()
    return answer.content


def test_every_refusal_is_the_same_to_the_byte(slack):
    envelope = a_message(slack)
    body = as_json(envelope)
    good = sign(body, SIGNING_SECRET, at=time.time())
    refusals = [
        knock(envelope, secret="another"),
        knock(envelope, skew=-301),
        knock(envelope, skew=330),
        knock(envelope, headers={"X-Slack-Signature": ""}),
        knock(envelope, headers={"X-Slack-Signature": "v0=" + "é" * 64}),
        knock(envelope, headers={"X-Slack-Request-Timestamp": "now"}),
        knock(envelope, headers={"X-Slack-Request-Timestamp": "9" * 30}),
        knock({**envelope, "team_id": "T0NOBODY"}),
        knock({**envelope, "team_id": None}),
        knock({**envelope, "team_id": ["T0ACME"]}),
        knock(None, body=b"not json"),
        knock(None, body=b"[]"),
        knock(None, body=b"[" * 100_000),
        knock(None, body=b'"\xff"'),
        knock(None, body=b""),
        knock({"type": "url_verification", "challenge": "c"}, secret="another"),
        Client().post(DOOR, data=body + b" ", content_type="application/json", headers=good),
    ]

    assert len({refused(answer) for answer in refusals}) == 1


@pytest.mark.parametrize("skew", [-290, 290])
def test_a_clock_may_be_some_minutes_off(slack, skew):
    assert knock(a_message(slack), skew=skew).status_code == 200


def test_the_signature_is_of_the_raw_bytes(slack):
    body = json.dumps(a_message(slack, text="é"), ensure_ascii=False, indent=3).encode()

    assert knock(None, body=body).status_code == 200


def test_an_event_is_kept_for_each_organisation_whose_secret_signed_it(slack):
    directory.install_slack("rival", team_id="T0ACME", bot_token="xoxb-rival", signing_secret="another-secret")
    directory.install_slack("third", team_id="T0ACME", bot_token="xoxb-third", signing_secret=SIGNING_SECRET)
    knock(a_message(slack))

    assert set(InboundEvent.objects.values_list("org_id", flat=True)) == {"acme", "third"}


def test_a_secret_of_another_team_signs_nothing_for_ours(slack):
    directory.install_slack("rival", team_id="T0RIVAL", bot_token="xoxb-rival", signing_secret="another-secret")

    refused(knock(a_message(slack), secret="another-secret"))


def test_a_secret_that_cannot_be_opened_refuses_and_does_not_break(slack):
    Installation.objects.update(sealed_signing_secret="v1:gone:AAAA:AAAA")

    refused(knock(a_message(slack)))


def test_the_challenge_is_answered_to_an_app_that_somebody_has_installed(slack):
    answer = knock({"type": "url_verification", "challenge": "abc", "token": "x"})

    assert (answer.status_code, answer.json()) == (200, {"challenge": "abc"})


def test_nobody_crowds_others_out_of_their_challenge(slack):
    for number in range(120):
        Installation.objects.create(org_id="rival", team_id=f"T0R{number}", sealed_signing_secret="v1:gone:A:A")

    assert knock({"type": "url_verification", "challenge": "abc"}).status_code == 200


def test_a_challenge_costs_few_secrets_however_many_there_are(slack, monkeypatch):
    for number in range(150):
        Installation.objects.create(org_id=f"org{number}", team_id="T0R", sealed_signing_secret="v1:gone:A:A")
    opened = []
    monkeypatch.setattr(Installation, "opened", lambda self, column: opened.append(self.org_id) or "not-it")
    refused(knock({"type": "url_verification", "challenge": "abc"}))

    assert len(opened) == len(set(opened)) == 100


def test_an_installation_has_an_address_of_its_own(slack):
    directory.install_slack("rival", team_id="T0RIVAL", bot_token="xoxb-rival", signing_secret="another-secret")
    own = {found.org_id: f"{DOOR}/{found.pk}" for found in Installation.objects.all()}
    challenge = {"type": "url_verification", "challenge": "abc"}

    assert knock(challenge, door=own["acme"]).json() == {"challenge": "abc"}
    assert knock(a_message(slack), door=own["acme"]).status_code == 200
    assert InboundEvent.objects.count() == 1
    refusals = [
        knock(challenge, door=own["rival"]),
        knock(challenge, door=own["acme"], secret="another-secret"),
        knock(a_message(slack), door=own["rival"]),
        knock(challenge, door=f"{DOOR}/01930000-0000-7000-8000-000000000000"),
    ]
    assert {answer.status_code for answer in refusals} == {401}
    assert InboundEvent.objects.count() == 1


@pytest.mark.parametrize("name", ["thread_ts", "user", "channel", "text", "ts", "subtype"])
@pytest.mark.parametrize("bad", ["\x00", "\ud800", "x" * 5_000], ids=["zero", "half", "long"])
def test_what_the_database_does_not_take_is_no_500(slack, name, bad):
    envelope = a_message(slack)
    envelope["event"][name] = f"{envelope['event'].get(name, '')}{bad}"

    assert knock(envelope).status_code == 200


@pytest.mark.parametrize("team", ["T0\x00ACME", "T0ACME\ud800", "t", "T" * 500], ids=repr)
def test_a_team_that_cannot_be_is_refused(slack, team):
    refused(knock({**a_message(slack), "team_id": team}))


def test_an_event_that_is_nested_too_deeply_is_taken_and_means_nothing(slack):
    deep = {}
    for _ in range(900):
        deep = {"a": deep}

    assert knock({**a_message(slack), "deep": deep}).status_code in (200, 401)


def test_forged_events_are_throttled_by_address_and_true_ones_never(slack, settings):
    """Slack's addresses are shared: others' apps may send badly signed events from where ours come."""
    settings.RATE_ADDRESS = "3/minute"
    here, elsewhere = {"X-Forwarded-For": f"198.18.{random.randrange(256)}.7"}, {"X-Forwarded-For": "198.19.0.7"}
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    forged = [knock(a_message(slack), secret="another", headers=here) for _ in range(5)]
    true = [knock(a_message(slack, ts=f"176722560{number}.000100"), headers=here) for number in range(5)]

    assert [answer.status_code for answer in forged] == [401, 401, 401, 429, 429]
    assert forged[3].json()["code"] == "throttled"
    assert 0 < int(forged[3]["Retry-After"]) <= 91
    assert "without a valid signature from this address" in forged[3].json()["message"]
    assert [answer.status_code for answer in true] == [200] * 5
    assert InboundEvent.objects.count() == 5
    assert knock(a_message(slack), secret="another", headers=elsewhere).status_code == 401


def test_who_forges_events_is_not_counted_as_who_has_no_token(slack, settings):
    settings.RATE_ADDRESS = "1/minute"
    address = f"198.18.{random.randrange(256)}.8"
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    forged = [knock(a_message(slack), secret="another", headers={"X-Forwarded-For": address}) for _ in range(3)]
    without_token = Client().get("/services/agent-jobs", headers={"X-Forwarded-For": address})

    assert [answer.status_code for answer in forged] == [401, 429, 429]
    assert without_token.status_code == 401


# --- HTTP ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head", "options", "trace"])
def test_other_methods_are_405(method):
    answer = getattr(Client(), method)(DOOR)

    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_a_body_of_more_than_a_mebibyte_is_413(slack):
    assert knock(None, body=b" " * (1024 * 1024 + 1)).status_code == 413


def test_a_chunked_body_is_411(slack):
    answer = Client().post(DOOR, data=b"{}", content_type="application/json", headers={"Transfer-Encoding": "chunked"})

    assert answer.status_code == 411


def test_a_csrf_token_is_not_asked_for(slack):
    body = as_json(a_message(slack))
    client = Client(enforce_csrf_checks=True)

    assert (
        client.post(
            DOOR, data=body, content_type="application/json", headers=sign(body, SIGNING_SECRET, at=time.time())
        ).status_code
        == 200
    )


def test_a_database_that_does_not_answer_is_503_so_that_slack_comes_again(slack, monkeypatch):
    from django.db import OperationalError

    from channels_integration import inbound

    def broken(*args, **kwargs):
        raise OperationalError

    monkeypatch.setattr(inbound, "record", broken)
    answer = knock(a_message(slack))

    assert answer.status_code == 503
    assert answer["Retry-After"]


def test_the_answer_is_fast_also_with_redis_gone(slack, settings):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        began = time.monotonic()
        assert knock(a_message(slack)).status_code == 200

    assert time.monotonic() - began < 3  # Slack's own limit


# --- What people change of what they have said -----------------------------------------------------------------
def changed(slack, subtype="message_changed", *, now=None, before=None, **fields):
    said = {"type": "message", "user": "U1", "text": "hi", "ts": "1767225600.000100", "thread_ts": "1767225000.000001"}
    edited = {"user": "U1", "ts": "1767225700.000000"}
    event = {
        "type": "message",
        "subtype": subtype,
        "channel": "C0ONE",
        "channel_type": "channel",
        "ts": "1767225700.000200",
        "previous_message": said | (before or {}),
    }
    if subtype == "message_changed":
        event["message"] = said | {"text": "a &lt;b&gt;", "edited": edited} | (now or {})
    return slack.envelope({name: value for name, value in (event | fields).items() if value is not None})


def test_an_edit_is_kept_as_one_with_the_message_that_it_is_of(slack):
    assert knock(changed(slack)).status_code == 200

    kept = InboundEvent.objects.get()
    assert (kept.did, kept.message_id, kept.text, kept.author) == ("edited", "1767225600.000100", "a <b>", "U1")
    assert (kept.code, kept.thread) == ("C0ONE", "1767225000.000001")
    assert kept.sent_at.isoformat() == "2026-01-01T00:01:40.000200+00:00"


@pytest.mark.parametrize("change", [{}, {"subtype": "message_changed", "message": {"subtype": "tombstone"}}], ids=str)
def test_a_deletion_is_kept_without_the_words(slack, change):
    knock(changed(slack, **{"subtype": "message_deleted"} | change))

    kept = InboundEvent.objects.get()
    assert (kept.did, kept.message_id, kept.text, kept.author) == ("deleted", "1767225600.000100", "", "U1")


def test_what_is_said_edited_and_deleted_stands_in_one_lane_in_that_order(slack):
    knock(changed(slack, "message_deleted", ts="1767225800.000000"))
    knock(changed(slack))
    knock(a_message(slack, thread_ts="1767225000.000001"))

    kept = InboundEvent.objects.order_by("sent_at")
    assert [event.did for event in kept] == ["said", "edited", "deleted"]
    assert len({event.lane for event in kept}) == 1
    assert kept[0].message_id == "1767225600.000100"


UNCHANGED = [
    {"now": {"edited": None}},  # a preview of a link was added
    {"now": {"text": "hi"}},
    {"now": {"bot_id": "B1"}},
    {"now": {"app_id": "A0FAKE"}},
    {"now": {"user": None}},
    {"now": {"ts": "x"}},
    {"now": {"ts": 5}},
    {"now": {"text": 5}},
    {"now": {"subtype": "bot_message"}},
    {"message": "x"},
    {"ts": None},
    {"ts": "x"},
    {"channel": None},
    {"subtype": "message_deleted", "before": {"bot_id": "B1"}},
    {"subtype": "message_deleted", "previous_message": None},
    {"subtype": "message_deleted", "previous_message": ["x"]},
    {"subtype": "message_replied"},
]


@pytest.mark.parametrize("change", UNCHANGED, ids=str)
def test_what_no_person_changed_is_answered_and_not_kept(slack, change):
    assert knock(changed(slack, **change)).status_code == 200
    assert not InboundEvent.objects.exists()
