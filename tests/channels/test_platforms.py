"""One contract for every platform. A new one is picked up from the tuple."""

import pytest
from django.utils import timezone

from channels_integration import directory, platforms
from channels_integration.messages import Lookup, Receipt, Target
from channels_integration.models import OutboundMessage, WebMessage
from tests.channels import doubles
from tests.channels.sending import deliver_all, message, post, row

pytestmark = pytest.mark.django_db(transaction=True)
_INSTALLED = "C0ONE"  # the channel of the fake Slack
_REGISTERED = "lobby"


def names(platform):
    return platform.name


PLATFORMS = platforms.PLATFORMS


@pytest.fixture(params=PLATFORMS, ids=names)
def platform(request, slack, receiver):
    if request.param.name != "slack":
        address = "" if request.param.is_registered_by_name else receiver.address
        directory.register_channel("acme", platform=request.param.name, code=_REGISTERED, address=address)
    return request.param


def arrived(slack, receiver):
    """How many messages have reached a place where somebody could read them."""
    return len(slack.posts) + len(receiver.received) + WebMessage.objects.filter(channel__platform="web").count()


def place(platform, **changes):
    code = _INSTALLED if platform.name == "slack" else _REGISTERED
    return {"org_id": "acme", "platform": platform.name, "code": code, **changes}


def test_it_is_found_by_its_name_and_is_no_bridge(platform):
    assert platforms.get(platform.name) is platform
    assert platforms.get("whatsapp").name == "webhook"


@pytest.mark.parametrize("text", ["", " ", "Hello", "word " * 10_000], ids=len)
def test_a_text_is_split_into_one_message_at_least_and_no_word_is_lost(platform, text):
    parts = platform.parts(text)

    assert parts
    assert "".join(parts).split() == text.split() or " ".join(parts).split() == text.split()


def test_its_place_is_reachable(platform):
    assert platform.unreachable_reason(Target(**place(platform))) is None


def test_sending_answers_a_receipt_and_calls_before_it_posts(platform, slack, receiver):
    seen = []
    receipt = platform.send(
        message(**place(platform)), thread="", before_post=lambda: seen.append(arrived(slack, receiver))
    )

    assert isinstance(receipt, Receipt)
    assert receipt.platform_message_id
    assert seen == [0]


def test_what_is_stopped_before_it_posts_is_not_posted(platform, slack, receiver):
    def stop():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        platform.send(message(**place(platform)), thread="", before_post=stop)
    assert arrived(slack, receiver) == 0


def test_a_message_that_was_never_sent_may_be_sent(platform):
    found = platform.find(Lookup(message(**place(platform)), "", timezone.now()))

    assert found is None or platform.accepts_on_commit


def test_a_message_that_was_sent_is_found_or_harmless_to_repeat(platform, slack, receiver):
    outgoing = message(**place(platform))
    since = timezone.now()
    receipt = platform.send(outgoing, thread="", before_post=lambda: None)
    found = platform.find(Lookup(outgoing, "", since))

    if found is not None:
        assert found == receipt
        return
    platform.send(outgoing, thread="", before_post=lambda: None)
    ids = {r.headers["webhook-id"] for r in receiver.received}
    assert WebMessage.objects.count() == 1
    assert ids <= {str(outgoing.id)}


def test_the_whole_way_through_the_outbox(platform):
    outgoing = post(**place(platform))
    deliver_all()

    assert row(outgoing).status == OutboundMessage.Status.SENT
    assert [d.is_sent for d in doubles.deliveries] == ([] if platform.accepts_on_commit else [True])


def test_a_stranger_does_not_reach_our_place(platform, slack, receiver):
    post(**place(platform, org_id="rival"))
    deliver_all()

    assert slack.posts == []
    assert receiver.received == []
    assert not WebMessage.objects.filter(channel__org_id="acme").exists()
