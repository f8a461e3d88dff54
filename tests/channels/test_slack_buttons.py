"""Buttons under what we post in Slack: how they look, who is heard that presses them, and how they go away."""

import json
import socket
import time
import urllib.parse

import pytest
from django.test import Client

from channels_integration import directory, inbound, outbox, platforms, send_order
from channels_integration.messages import Button, Change, Did
from channels_integration.models import InboundEvent, OutboundMessage
from channels_integration.platforms import slack_blocks, slack_text
from tests.channels import doubles
from tests.channels.sending import SIGNING_SECRET, deliver_all, deliver_now, message, post, row
from tests.fakes.slack import Fault, Step, sign
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
DOOR = "/channels/slack/interactions"
TWO = (Button("Approve", "approve:1"), Button("Deny", "deny:1"))


def ask(slack, text="May I?", **changes):
    outgoing = post(text, buttons=TWO, **changes)
    deliver_all()
    return outgoing, slack.posts[-1]


def shown(slack, posted):
    """The message's present text, and its buttons' values."""
    now = slack.message(posted.channel, posted.ts)
    blocks = now.get("blocks") or []
    return now["text"], [
        element["value"] for block in blocks for element in block.get("elements", ()) if "value" in element
    ]


# --- How they look ---------------------------------------------------------------------------------------------
def test_a_message_with_buttons_says_the_same_as_text_and_as_blocks(slack):
    outgoing, posted = ask(slack, "May I pay <!channel> & go?")

    text, actions = posted.request["blocks"]
    escaped = "May I pay &lt;!channel&gt; &amp; go?"
    assert posted.request["text"] == escaped
    assert text == {"type": "section", "text": {"type": "mrkdwn", "text": escaped, "verbatim": True}}
    assert (actions["type"], actions["block_id"]) == ("actions", str(outgoing.id))
    assert [(e["action_id"], e["text"], e["value"]) for e in actions["elements"]] == [
        ("press-0", {"type": "plain_text", "text": "Approve", "emoji": False}, "approve:1"),
        ("press-1", {"type": "plain_text", "text": "Deny", "emoji": False}, "deny:1"),
    ]


def test_a_message_without_buttons_has_no_blocks(slack):
    post()
    deliver_all()

    assert "blocks" not in slack.posts[0].request


LONG = ["x" * 9_000, "word " * 2_300, "line\n" * 1_500, "<&>" * 900, "&" * 2_300, "é" * 3_001, " \n" * 2_000 + "end"]


@pytest.mark.parametrize("text", LONG, ids=lambda text: f"{text[:5]!r}-{len(text)}")
def test_a_long_text_is_split_into_sections_and_nothing_of_it_is_lost(slack, text):
    ask(slack, text)

    *sections, _ = slack.posts[0].request["blocks"]
    pieces = [section["text"]["text"] for section in sections]
    assert all(0 < len(piece) <= 3_000 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(slack_text.escaped(text).split())
    assert all(piece.count("&") == piece.count(";") for piece in pieces), "a piece ends in the middle of an escape"


@pytest.mark.parametrize("text", ["x" * 200_000, "x < y & z; " * 740, "&" * 13_000], ids=lambda text: text[:5])
def test_a_text_longer_than_any_message_of_blocks_is_cut_and_says_so(slack, text):
    ask(slack, text)

    sections = [block["text"]["text"] for block in slack.posts[0].request["blocks"][:-1]]
    assert sections[-1] == "… (the rest is not shown)"
    assert sum(map(len, sections)) <= 12_100  # Slack refuses some 13,000 (msg_blocks_too_long)


def test_the_text_beside_blocks_is_a_short_notification_also_after_the_press(slack):
    """chat.update refuses a text of more than 4,000 characters; the buttons would stay."""
    outgoing, posted = ask(slack, "x < y & z; " * 420)
    outbox.change("acme", outgoing.id, line="Approved by", person="U0ANN")
    deliver_all()

    text, buttons = shown(slack, posted)
    assert len(posted.request["text"]) <= 1_010
    assert len(text) <= 1_100
    assert text.endswith("…\n\nApproved by <@U0ANN>")
    assert buttons == []


def test_a_long_label_is_cut(slack):
    post(buttons=(Button("y" * 100, "v"),))
    deliver_all()

    assert slack.posts[0].request["blocks"][1]["elements"][0]["text"]["text"] == "y" * 74 + "…"


@pytest.mark.parametrize(
    "buttons", [(Button("a", "v" * 2_001),), tuple(Button("a", str(n)) for n in range(21))], ids=len
)
def test_buttons_that_slack_could_not_show_are_a_dead_letter_and_no_message_without_them(slack, buttons):
    outgoing = post(buttons=buttons)
    deliver_now()

    assert (row(outgoing).status, row(outgoing).error_code) == ("dead", "buttons_too_large")
    assert slack.posts == []


# --- How they go away ------------------------------------------------------------------------------------------
def test_a_change_takes_the_buttons_off_and_says_who_pressed(slack):
    outgoing, posted = ask(slack, "May I <pay>?")
    assert outbox.change("acme", outgoing.id, line="Approved by", person="U0ANN")
    deliver_all()

    assert shown(slack, posted) == ("May I &lt;pay&gt;?\n\nApproved by <@U0ANN>", [])
    section, note = slack.message(posted.channel, posted.ts)["blocks"]
    assert section["text"]["text"] == "May I &lt;pay&gt;?"
    assert note == {
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": "Approved by <@U0ANN>", "verbatim": True}],
    }
    assert slack.message(posted.channel, posted.ts)["metadata"] == posted.request["metadata"]
    assert len(slack.posts) == 1


@pytest.mark.parametrize("person", ["<!channel>", "U0ANN> <!here", "u0ann", "token:ops", "U0ANN\n", ""])
def test_only_an_id_of_a_person_becomes_a_mention(person):
    line = slack_blocks.line(Change(message().id, "<b> by", person))

    assert "<" not in line
    assert line.startswith("&lt;b&gt; by")


def test_the_owner_hears_of_its_message_and_not_of_the_change(slack):
    outgoing, _ = ask(slack)
    doubles.deliveries.clear()
    outbox.change("acme", outgoing.id, line="Denied by", person="U0ANN")
    deliver_all()

    assert doubles.deliveries == []
    assert outbox.undelivered("acme", "owner") == []
    assert outbox.withdraw("acme", "owner") == []


def test_a_change_comes_after_its_message_however_long_that_takes(slack):
    slack.script(Step(Fault.DROP_AFTER))
    outgoing = post(buttons=TWO)
    deliver_now()
    assert row(outgoing).status == "unknown"
    outbox.change("acme", outgoing.id, line="Denied by", person="U0ANN")
    deliver_all()

    assert [len(slack.posts), len(slack.updates)] == [1, 1]
    assert shown(slack, slack.posts[0])[1] == []


@pytest.mark.parametrize("fault", [Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.ERROR_500, Fault.RATE_LIMITED])
def test_a_change_of_unknown_outcome_is_made_again_and_needs_no_look_into_the_history(slack, fault):
    outgoing, posted = ask(slack)
    slack.script_updates(Step(fault))
    outbox.change("acme", outgoing.id, line="Denied by", person="U0ANN")
    deliver_all()

    assert shown(slack, posted)[1] == []
    assert slack.calls("conversations.history") == slack.calls("conversations.replies") == 0
    assert slack.calls("chat.update") == 2


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
def test_a_change_that_slack_refuses_is_lost_and_harms_nobody(slack, error):
    outgoing, _ = ask(slack)
    slack.script_updates(Step(Fault.NAMED, error=error))
    outbox.change("acme", outgoing.id, line="Denied by", person="U0ANN")
    later = post("Later")
    deliver_all()

    assert OutboundMessage.objects.get(change__isnull=False).status == "dead"
    assert row(later).status == "sent"


def test_one_that_is_on_its_way_blocks_no_message_of_its_thread(slack):
    outgoing, _ = ask(slack)
    slack.script_updates(Step(Fault.DROP_BEFORE))
    outbox.change("acme", outgoing.id, line="Denied by", person="U0ANN")
    deliver_now()
    later = post("Later")

    def is_sent():
        deliver_now()
        return row(later).status == "sent"

    wait_for(is_sent, what="the later one is sent")
    assert slack.posts[-1].thread_ts == slack.posts[0].ts


def test_a_message_that_was_given_up_after_all_is_not_changed(slack):
    outgoing = post(buttons=TWO)
    outbox.change("acme", outgoing.id, line="Denied by", person="U0ANN")
    OutboundMessage.objects.filter(pk=outgoing.id).update(status="dead", error_code="x")
    deliver_all()

    assert slack.calls("chat.update") == 0
    assert OutboundMessage.objects.get(change__isnull=False).error_code == "message_not_found"


@pytest.mark.parametrize("status", ["withdrawn", "dead"])
def test_there_is_nothing_to_change_of_what_nobody_saw(slack, status):
    outgoing = post(buttons=TWO)
    OutboundMessage.objects.update(status=status, error_code="x")

    assert not outbox.change("acme", outgoing.id, line="x")


def test_anothers_message_is_not_changed(slack):
    outgoing, _ = ask(slack)

    assert not outbox.change("rival", outgoing.id, line="x")
    # Not even by a row that says so.
    outbox.enqueue([message(org_id="rival", owner_key="", change=Change(outgoing.id, "x"))])
    claim = None
    directory.install_slack("rival", team_id="T0ACME", bot_token=slack.bot_token, signing_secret="rival-secret")
    while not isinstance(claim, send_order.SendClaim):
        send_order.enter()
        claim = send_order.claim(after_org="", grace_seconds=30, flight_seconds=1)
    assert claim.outgoing.change.posted_as == ""


def test_only_platforms_that_can_change_messages_are_asked_to():
    assert {platform.name: platform.can_change for platform in platforms.PLATFORMS} == {
        "slack": True,
        "web": True,
        "webhook": True,
        "null": False,
    }


def test_platforms_with_forms_are_those_that_tell_of_them():
    assert [platform.name for platform in platforms.PLATFORMS if platform.has_forms] == ["slack"]
    assert [listener.name for listener in platforms.LISTENERS] == ["slack"]


# --- Who is heard ----------------------------------------------------------------------------------------------
def knock(body, *, secret=SIGNING_SECRET, skew=0, headers=None):
    signed = {**sign(body, secret, at=time.time() + skew), **(headers or {})}
    signed.pop("Content-Type")
    return Client().post(DOOR, data=body, content_type="application/x-www-form-urlencoded", headers=signed)


def form(payload):
    return urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()


def payload_of(body):
    return json.loads(urllib.parse.parse_qs(body.decode())["payload"][0])


def test_a_press_is_kept_with_who_pressed_what_and_where(slack):
    _, posted = ask(slack, thread_key="thread")
    ask(slack, thread_key="thread")
    answer = knock(slack.interaction(slack.posts[1], "approve:1", user="U0ANN"))

    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    kept = InboundEvent.objects.get()
    assert (kept.org_id, kept.platform, kept.team, kept.code) == ("acme", "slack", "T0ACME", "C0ONE")
    assert (kept.did, kept.text, kept.author) == ("pressed", "approve:1", "U0ANN")
    assert (kept.message_id, kept.thread) == (slack.posts[1].ts, posted.ts)
    inbound.route_due()
    assert [(heard.did, heard.text) for heard in doubles.heard] == [(Did.PRESSED, "approve:1")]


@pytest.mark.parametrize(
    "fields", [{"message": {"team": "T0ACME"}}, {"view": {"app_installed_team_id": "T0ACME"}}], ids=str
)
def test_a_press_in_a_channel_shared_with_another_company_is_heard_as_an_outsiders(slack, fields):
    _, posted = ask(slack)
    payload = payload_of(slack.interaction(posted, "approve:1", user="U0THEIRS", team="T0OTHER"))
    payload["message"] |= fields.get("message", {})
    answer = knock(form(payload | ({"view": fields["view"]} if "view" in fields else {})))

    assert answer.status_code == 200
    kept = InboundEvent.objects.get()
    assert (kept.org_id, kept.team, kept.author, kept.is_outsider) == ("acme", "T0ACME", "U0THEIRS", True)


@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_press_is_heard_whatever_the_message_is_written_in(slack, is_ascii):
    _, posted = ask(slack, "Darf ich Zoë 5 € überweisen?")
    payload = json.dumps(payload_of(slack.interaction(posted, "approve:1")), ensure_ascii=is_ascii)
    answer = knock(urllib.parse.urlencode({"payload": payload}).encode())

    assert answer.status_code == 200
    assert InboundEvent.objects.get().text == "approve:1"


def test_a_replay_is_answered_and_not_kept_again_but_a_second_press_is(slack):
    _, posted = ask(slack)
    body = slack.interaction(posted, "approve:1", user="U0ANN")
    assert [knock(body).status_code for _ in range(3)] == [200] * 3
    assert InboundEvent.objects.count() == 1

    knock(slack.interaction(posted, "approve:1", user="U0ANN"))
    knock(slack.interaction(posted, "deny:1", user="U0BEN"))
    assert InboundEvent.objects.count() == 3


def test_every_refusal_is_the_same_to_the_byte(slack):
    _, posted = ask(slack)
    body = slack.interaction(posted, "approve:1")
    payload = payload_of(body)
    refusals = [
        knock(body, secret="another"),
        knock(body, skew=-301),
        knock(body, skew=330),
        knock(body, headers={"X-Slack-Signature": ""}),
        knock(body, headers={"X-Slack-Request-Timestamp": "now"}),
        knock(form({**payload, "team": {"id": "T0NOBODY"}})),
        knock(form({**payload, "team": None})),
        knock(form({**payload, "team": {"id": 5}})),
        knock(b""),
        knock(b"payload=nonsense"),
        knock(b"payload=%ff"),
        knock(b"payload=[]"),
        knock(b"x=1"),
        knock(b"&".join([b"a=1"] * 50)),
        Client().post(
            DOOR,
            data=body + b"&",
            content_type="application/x-www-form-urlencoded",
            headers=sign(body, SIGNING_SECRET, at=time.time()),
        ),
    ]

    assert {refusal.status_code for refusal in refusals} == {401}
    assert len({refusal.content for refusal in refusals}) == 1
    assert not InboundEvent.objects.exists()


IGNORED = [
    {"type": "message_action"},
    {"actions": []},
    {"actions": None},
    {"actions": ["x"]},
    {"user": {}},
    {"channel": None},
    {"channel": {"id": 5}},
    {"container": {"message_ts": 5}},
    {"message": {"thread_ts": 5}},
]


@pytest.mark.parametrize("fields", IGNORED, ids=str)
def test_what_is_no_press_of_a_button_is_answered_and_not_kept(slack, fields):
    _, posted = ask(slack)

    assert knock(form(payload_of(slack.interaction(posted, "approve:1")) | fields)).status_code == 200
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize(
    "action",
    [{"type": "overflow"}, {"value": ""}, {"value": 5}, {"value": None}, {"action_ts": "x"}, {"action_ts": 5}],
    ids=str,
)
def test_what_is_no_button_of_ours_is_answered_and_not_kept(slack, action):
    _, posted = ask(slack)
    payload = payload_of(slack.interaction(posted, "approve:1"))

    assert knock(form(payload | {"actions": [payload["actions"][0] | action]})).status_code == 200
    assert not InboundEvent.objects.exists()


def test_a_press_without_message_or_container_is_kept_without_its_thread(slack):
    _, posted = ask(slack)
    payload = payload_of(slack.interaction(posted, "approve:1"))
    for name in ("message", "container", "block_id"):
        payload.pop(name, None)
    knock(form(payload))

    assert InboundEvent.objects.get().thread == ""


def test_of_two_organisations_with_one_app_the_one_whose_message_it_was_hears_it(slack):
    _, posted = ask(slack)
    directory.install_slack("third", team_id="T0ACME", bot_token="xoxb-third", signing_secret=SIGNING_SECRET)
    knock(slack.interaction(posted, "approve:1"))
    knock(slack.interaction(posted, "made up", is_shown=False))

    heard = InboundEvent.objects.order_by("id").values_list("org_id", "text")
    assert sorted(heard) == [("acme", "approve:1"), ("acme", "made up"), ("third", "made up")]


def test_the_answer_is_fast_also_with_redis_gone(slack, settings):
    _, posted = ask(slack)
    body = slack.interaction(posted, "approve:1")
    knock(b"payload=[]")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        began = time.monotonic()
        assert knock(body).status_code == 200

    assert time.monotonic() - began < 3  # Slack's own limit


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_other_methods_are_405(method):
    assert getattr(Client(), method)(DOOR).status_code == 405


def test_a_handler_that_wants_to_look_again_does_so_a_second_later(slack):
    _, posted = ask(slack)
    doubles.on_incoming.append(lambda incoming: len(doubles.heard) > 0)
    knock(slack.interaction(posted, "approve:1"))
    inbound.route_due()
    assert InboundEvent.objects.get().status == "waiting"
    InboundEvent.objects.update(due_at="2000-01-01T00:00:00Z")
    inbound.route_due()

    assert (InboundEvent.objects.get().status, InboundEvent.objects.get().is_matched) == ("routed", True)


@pytest.mark.parametrize("bad", ["\x00", "\ud800", "x" * 5_000], ids=["zero", "half", "long"])
@pytest.mark.parametrize("name", ["channel", "user", "thread", "value", "team"])
def test_a_press_with_what_the_database_does_not_take_is_no_500(slack, name, bad):
    _, posted = ask(slack)
    body = slack.interaction(posted, "approve:1")
    payload = payload_of(body)
    places = {"channel": payload["channel"], "user": payload["user"], "team": payload["team"]}
    if name in places:
        places[name]["id"] += bad
    elif name == "value":
        payload["actions"][0]["value"] += bad
    else:
        payload["message"]["thread_ts"] = f"1.2{bad}"

    assert knock(form(payload)).status_code in (200, 401)
