"""Secrets at rest: bound to their cell, opened by old keys, told about clearly when they cannot be opened."""

import base64

import pytest

from channels_integration import directory
from channels_integration.models import Channel, Installation
from infra import sealing
from infra.sealing import SealingError

OLD = f"old:{base64.b64encode(b'o' * 32).decode()}"
NEW = f"new:{base64.b64encode(b'n' * 32).decode()}"
CELL = {"org_id": "acme", "table": "t", "column": "c", "key": "1"}


def test_what_is_sealed_is_opened_in_its_cell(settings):
    settings.SEALING_KEYS = OLD
    sealed = sealing.seal("sécret", **CELL)

    assert sealed.startswith("v1:old:")
    assert "sécret" not in sealed
    assert sealing.open_sealed(sealed, **CELL) == "sécret"
    assert sealing.seal("sécret", **CELL) != sealed


@pytest.mark.parametrize("change", [{"org_id": "rival"}, {"table": "u"}, {"column": "d"}, {"key": "2"}], ids=str)
def test_in_another_cell_it_does_not_open(settings, change):
    settings.SEALING_KEYS = OLD
    sealed = sealing.seal("secret", **CELL)

    with pytest.raises(SealingError, match="another row"):
        sealing.open_sealed(sealed, **{**CELL, **change})


def test_the_first_key_seals_and_all_open(settings):
    settings.SEALING_KEYS = OLD
    old = sealing.seal("secret", **CELL)
    settings.SEALING_KEYS = f"{NEW}, {OLD}"

    assert sealing.seal("secret", **CELL).startswith("v1:new:")
    assert sealing.open_sealed(old, **CELL) == "secret"
    settings.SEALING_KEYS = NEW
    with pytest.raises(SealingError, match="'old'"):
        sealing.open_sealed(old, **CELL)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("", "not set"),
        ("k1:short", "32 bytes"),
        ("k1", "32 bytes"),
        (":" + "A" * 43 + "=", "32 bytes"),
        (f"{OLD},{OLD}", "twice"),
    ],
)
def test_keys_that_cannot_be_used_are_told_about(settings, keys, words):
    settings.SEALING_KEYS = keys
    with pytest.raises(SealingError, match=words):
        sealing.seal("secret", **CELL)


@pytest.mark.parametrize(
    "sealed", ["", "plain", "v2:old:AAAA:AAAA", "v1:old:AAAA", "v1:old:!:!", "v1:old:AAAAAAAAAAAAAAAA:AAAA"]
)
def test_what_is_no_sealed_secret_is_refused(settings, sealed):
    settings.SEALING_KEYS = OLD
    with pytest.raises(SealingError):
        sealing.open_sealed(sealed, **CELL)


@pytest.mark.django_db
def test_no_secret_stands_in_the_database():
    directory.install_slack("acme", team_id="T1", bot_token="xoxb-canary", signing_secret="canary-secret")
    directory.register_channel(
        "acme", platform="webhook", code="c", address="http://127.0.0.1/", secret="whsec_" + "canary" * 8
    )

    assert "canary" not in str(list(Installation.objects.values())) + str(list(Channel.objects.values()))


@pytest.mark.django_db
def test_a_secret_that_is_copied_to_another_organisation_does_not_open():
    for org_id in ("acme", "rival"):
        directory.install_slack(org_id, team_id="T1", bot_token=f"xoxb-{org_id}", signing_secret="12345678")
    ours = Installation.objects.get(org_id="acme")
    theirs = Installation.objects.get(org_id="rival")

    with pytest.raises(SealingError):
        sealing.open_sealed(
            ours.sealed_bot_token,
            org_id="rival",
            table=Installation._meta.db_table,
            column="sealed_bot_token",
            key=str(theirs.pk),
        )
