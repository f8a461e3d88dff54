"""The transcript: in order, once, and with nothing that a reader could miss."""

import threading
from datetime import UTC, datetime

import pytest
from django.db import connection, transaction
from uuid_utils.compat import uuid7

from channels_integration import directory, inbound, transcript, web_messages
from channels_integration.errors import InvalidField, UnknownChannel
from channels_integration.models import Channel, InboundEvent, WebMessage
from tests.channels import doubles
from tests.channels.sending import deliver_all, message, post
from tests.races import in_threads
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


def lines(**changes):
    asked = {"org_id": "acme", "platform": "web", "code": "lobby", **changes}
    return [(m.direction, m.author, m.text) for m in web_messages.read(**asked)]


def say(text="hi", **changes):
    fields = {"org_id": "acme", "platform": "web", "code": "lobby", "text": text, "author": "Ann", **changes}
    return web_messages.say(**fields)


def test_agent_and_person_talk_in_one_transcript():
    post("How are you?", platform="web", code="lobby")
    deliver_all()
    said = say("Fine", owner_key="owner")
    inbound.route_due()

    assert lines() == [("out", "agent", "How are you?"), ("in", "Ann", "Fine")]
    (heard,) = doubles.heard
    assert (heard.platform, heard.code, heard.text, heard.author) == ("web", "lobby", "Fine", "Ann")
    assert (heard.owner_key, heard.is_direct, heard.event_id) == ("owner", True, str(said.id))
    assert abs((heard.sent_at - datetime.now(UTC)).total_seconds()) < 30


def test_a_line_and_its_event_are_written_together_or_not_at_all(monkeypatch):
    def broken(_):
        raise RuntimeError

    monkeypatch.setattr(inbound, "record", broken)
    with pytest.raises(RuntimeError):
        say()

    assert not WebMessage.objects.exists()


def test_saying_it_twice_with_one_id_is_saying_it_once():
    message_id = uuid7()
    first, second = say(message_id=message_id), say(message_id=message_id)

    assert first == second
    assert InboundEvent.objects.count() == 1
    assert len(lines()) == 1


def test_a_message_is_shown_once_however_often_it_is_sent():
    outgoing = message(platform="web", code="lobby")
    in_threads(*[lambda: transcript.show(outgoing)] * 8)

    assert len(lines()) == 1


def test_a_reader_goes_on_after_what_it_has():
    said = [say(str(number)) for number in range(5)]

    assert [m.text for m in web_messages.read("acme", "web", "lobby", after=said[1].id)] == ["2", "3", "4"]
    assert [m.text for m in web_messages.read("acme", "web", "lobby", after=said[1].id, limit=2)] == ["2", "3"]
    assert list(web_messages.read("acme", "web", "lobby", after=said[4].id)) == []


@pytest.mark.parametrize("platform", ["web", "webhook"])
def test_after_must_be_a_message_of_this_very_channel(platform):
    directory.register_channel("acme", platform="webhook", code="lobby", address="http://127.0.0.1:1/")
    others = [uuid7(), say(code="elsewhere").id, say(org_id="rival").id]

    for other in others:
        with pytest.raises(InvalidField) as refused:
            web_messages.read("acme", platform, "lobby", after=other)
        assert refused.value.field == "after"


def test_no_reader_ever_misses_a_line_that_is_committed_late():
    """Positions are given out under a lock until the commit, so a later one is not seen before an earlier one."""
    say("first")
    seen, stop = [], threading.Event()

    def speak(who):
        for number in range(10):
            with transaction.atomic():
                say(f"{who}{number}")
                threading.Event().wait(0.002)

    def listen():
        after = None
        while not stop.is_set() or web_messages.read("acme", "web", "lobby", after=after):
            for line in web_messages.read("acme", "web", "lobby", after=after):
                seen.append(line.text)
                after = line.id

    listener = threading.Thread(target=lambda: (listen(), connection.close()))
    listener.start()
    in_threads(*[lambda who=who: speak(who) for who in "abc"])
    stop.set()
    listener.join(PATIENCE)

    assert len(seen) == 31
    assert seen == [m.text for m in web_messages.read("acme", "web", "lobby", limit=100)]


def test_a_web_chat_in_which_nothing_was_said_is_empty():
    assert lines() == []
    assert not Channel.objects.exists()


@pytest.mark.parametrize("platform", ["webhook", "whatsapp", "slack", "null"])
def test_a_channel_that_is_not_registered_is_unknown(platform):
    with pytest.raises(UnknownChannel):
        web_messages.read("acme", platform, "lobby")
    with pytest.raises(UnknownChannel):
        say(platform=platform)


def test_a_strangers_channel_of_the_same_name_is_another_one():
    say("ours")
    say("theirs", org_id="rival")

    assert lines() == [("in", "Ann", "ours")]
    assert lines(org_id="rival") == [("in", "Ann", "theirs")]


def test_the_first_two_words_in_a_new_chat_make_one_channel():
    in_threads(*[lambda: say()] * 6)

    assert Channel.objects.count() == 1
    assert len(lines()) == 6
