"""An organisation reaches the channels that it registered, and only valid ones can be registered."""

from datetime import UTC, datetime, timedelta

import pytest

from channels_integration import directory
from channels_integration.errors import InvalidField
from channels_integration.messages import Target
from channels_integration.models import Channel, Installation
from infra.sealing import SealingError
from tests.races import in_threads

pytestmark = pytest.mark.django_db
ADDRESS = "http://127.0.0.1:8080/in"
SLACK = {"team_id": "T0ACME", "bot_token": "xoxb-1", "signing_secret": "12345678"}
WEBHOOK = {"platform": "webhook", "code": "crm", "address": ADDRESS}


# --- Slack -----------------------------------------------------------------------------------------------------
def test_installing_again_replaces_the_secrets_and_keeps_the_name():
    first = directory.install_slack("acme", **SLACK, name="Acme")
    second = directory.install_slack("acme", **{**SLACK, "bot_token": "xoxb-2"})

    assert (second.pk, second.name) == (first.pk, "Acme")
    assert second.sealed_bot_token != first.sealed_bot_token
    assert Installation.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_install_at_once_make_one_installation():
    in_threads(*[lambda: directory.install_slack("acme", **SLACK)] * 6)

    assert Installation.objects.count() == 1


def test_one_team_may_be_installed_by_two_organisations():
    directory.install_slack("acme", **SLACK)
    directory.install_slack("rival", **SLACK)

    assert [i.org_id for i in directory.installations("acme")] == ["acme"]
    assert directory.uninstall_slack("acme", "T0ACME") is True
    assert directory.uninstall_slack("acme", "T0ACME") is False
    assert Installation.objects.get().org_id == "rival"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("team_id", ""),
        ("team_id", "C0ACME"),
        ("team_id", "T0ACME\n"),
        ("team_id", "T" * 60),
        ("bot_token", ""),
        ("bot_token", "hello"),
        ("bot_token", "xoxb-1 2"),
        ("bot_token", "xoxb-é"),
        ("signing_secret", ""),
        ("signing_secret", "short"),
        ("signing_secret", "1234567\x00"),
    ],
)
def test_what_is_no_installation_is_refused_by_field(field, value):
    with pytest.raises(InvalidField) as refused:
        directory.install_slack("acme", **{**SLACK, field: value})

    assert refused.value.field == field
    assert not Installation.objects.exists()


def test_without_a_sealing_key_nothing_is_stored(settings):
    settings.SEALING_KEYS = ""
    with pytest.raises(SealingError, match="AGENT_JOBS_SEALING_KEYS"):
        directory.install_slack("acme", **SLACK)
    with pytest.raises(SealingError):
        directory.register_channel("acme", **WEBHOOK)

    assert not Installation.objects.exists()
    assert not Channel.objects.exists()


# --- Channels --------------------------------------------------------------------------------------------------
def test_a_webhooks_secret_is_made_and_told_once():
    channel, secret = directory.register_channel("acme", **WEBHOOK, name="CRM")
    again, second_secret = directory.register_channel("acme", **{**WEBHOOK, "address": ADDRESS + "2"})

    assert secret.startswith("whsec_")
    assert second_secret is None
    assert (again.pk, again.name, again.address) == (channel.pk, "CRM", ADDRESS + "2")
    assert again.sealed_secret == channel.sealed_secret


def test_a_secret_that_is_given_replaces_the_one_that_is_there():
    channel, _ = directory.register_channel("acme", **WEBHOOK)
    again, told = directory.register_channel("acme", **WEBHOOK, secret="whsec_" + "A" * 44)

    assert told is None
    assert again.sealed_secret != channel.sealed_secret


def test_the_replaced_secret_is_kept_for_a_day_and_the_same_one_is_no_change():
    channel, old = directory.register_channel("acme", **WEBHOOK)
    new = "whsec_" + "A" * 44
    for _ in range(2):
        again, _ = directory.register_channel("acme", **WEBHOOK, secret=new)
    again.refresh_from_db()

    assert (again.opened("sealed_secret"), again.opened("sealed_previous_secret")) == (new, old)
    assert timedelta(hours=23) < again.previous_secret_until - datetime.now(UTC) <= timedelta(hours=24)
    assert not channel.sealed_previous_secret


def test_a_secret_that_cannot_be_read_any_more_is_replaced_all_the_same():
    channel, _ = directory.register_channel("acme", **WEBHOOK)
    Channel.objects.update(sealed_secret="v1:gone:A:A")
    again, _ = directory.register_channel("acme", **WEBHOOK, secret="whsec_" + "A" * 44)

    assert (again.pk, again.sealed_previous_secret) == (channel.pk, "")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"platform": "slack"}, "platform"),
        ({"platform": ""}, "platform"),
        ({"platform": "WhatsApp"}, "platform"),
        ({"platform": "a b"}, "platform"),
        ({"platform": "x" * 33}, "platform"),
        ({"platform": "web"}, "address"),
        ({"platform": "null"}, "address"),
        ({"platform": "null", "address": "", "secret": "whsec_x"}, "secret"),
        ({"code": ""}, "code"),
        ({"code": " a"}, "code"),
        ({"code": "a/b"}, "code"),
        ({"code": "a\x00"}, "code"),
        ({"code": "x" * 256}, "code"),
        ({"address": ""}, "address"),
        ({"address": "nonsense"}, "address"),
        ({"address": "ftp://example.com/"}, "address"),
        ({"secret": "short"}, "secret"),
        ({"secret": "whsec_short"}, "secret"),
        ({"secret": "whsec_é"}, "secret"),
        ({"secret": "A" * 44}, "secret"),
    ],
    ids=str,
)
def test_what_is_no_channel_is_refused_by_field(changes, field):
    with pytest.raises(InvalidField) as refused:
        directory.register_channel("acme", **{**WEBHOOK, **changes})

    assert refused.value.field == field
    assert not Channel.objects.exists()


def test_a_private_address_is_refused_where_that_is_not_allowed(settings):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    with pytest.raises(InvalidField) as refused:
        directory.register_channel("acme", **{**WEBHOOK, "address": "https://127.0.0.1/"})

    assert (refused.value.field, "private" in refused.value.message) == ("address", True)


def test_no_name_is_looked_up_for_a_registration(settings, monkeypatch):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: pytest.fail("a name is looked up"))

    directory.register_channel("acme", **{**WEBHOOK, "address": "https://slow.example/"})
    assert Channel.objects.get().address == "https://slow.example/"


def test_channels_are_listed_and_unregistered_for_their_organisation_alone():
    for org_id in ("acme", "rival"):
        directory.register_channel(org_id, **WEBHOOK)

    assert [c.org_id for c in directory.channels("acme")] == ["acme"]
    assert directory.unregister_channel("acme", "webhook", "crm") is True
    assert directory.unregister_channel("acme", "webhook", "crm") is False
    assert [c.org_id for c in directory.channels("rival")] == ["rival"]


@pytest.mark.parametrize("platform", ["web", "null"])
def test_a_platform_without_addresses_is_not_registered_as_a_whole(platform):
    with pytest.raises(InvalidField) as refused:
        directory.register_channel("acme", platform=platform, code="*")

    assert refused.value.field == "code"


# --- Reaching --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "field"),
    [
        (("web", "lobby"), None),
        (("web", "any/thing"), "target_channel.code"),
        (("web", ""), "target_channel.code"),
        (("webhook", "crm"), None),
        (("webhook", "other"), "target_channel.code"),
        (("whatsapp", "+491"), None),
        (("whatsapp", "+492"), "target_channel.code"),
        (("telegram", "x"), "target_channel.platform"),
        (("null", "nowhere"), None),
        (("null", "elsewhere"), "target_channel.code"),
        (("slack", "C0ONE"), "target_channel.platform"),
        (("Web", "lobby"), "target_channel.platform"),
        (("", "lobby"), "target_channel.platform"),
        (("x\x00", "lobby"), "target_channel.platform"),
    ],
    ids=str,
)
def test_a_place_is_reachable_or_the_field_says_why_not(target, field):
    directory.register_channel("acme", **WEBHOOK)
    directory.register_channel("acme", platform="whatsapp", code="+491", address=ADDRESS)
    directory.register_channel("acme", platform="null", code="nowhere")
    directory.register_channel("rival", platform="telegram", code="x", address=ADDRESS)

    reason = directory.unreachable_reason(Target("acme", *target))

    assert (reason and reason[0]) == field
    assert reason is None or reason[1].split()[0] in {"is", "may", "must", "names"}, "no predicate of the field"


def test_asking_costs_one_query_at_most(django_assert_max_num_queries):
    directory.register_channel("acme", **WEBHOOK)
    for platform, code in (("web", "lobby"), ("webhook", "crm"), ("null", "x"), ("slack", "C0ONE")):
        with django_assert_max_num_queries(1):
            directory.unreachable_reason(Target("acme", platform, code))
