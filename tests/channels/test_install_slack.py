"""`manage.py install_slack`: secrets by stdin and environment, mistakes as sentences."""

import io

import pytest
from django.core.management import CommandError, call_command

from agent_jobs.models import Org
from channels_integration.models import Installation

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme():
    return Org.objects.create(id="acme", name="Acme")


def install(monkeypatch, *, token="xoxb-canary\n", secret="canary-secret", org="acme", team="T0ACME"):
    monkeypatch.setattr("sys.stdin", io.StringIO(token))
    monkeypatch.delenv("SECRET_FOR_TEST", raising=False)
    if secret:
        monkeypatch.setenv("SECRET_FOR_TEST", secret)
    out = io.StringIO()
    options = ("--bot-token-stdin", "--signing-secret-env", "SECRET_FOR_TEST")
    call_command("install_slack", "--org", org, "--team", team, *options, stdout=out)
    return out.getvalue()


def test_it_installs_and_may_be_repeated(acme, monkeypatch):
    said = install(monkeypatch) + install(monkeypatch, token="xoxb-canary-2")

    assert Installation.objects.get().team_id == "T0ACME"
    assert "installed" in said
    assert "canary" not in said


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"token": ""}, "bot token"),
        ({"token": "hello"}, "bot_token must be"),
        ({"secret": ""}, "SECRET_FOR_TEST"),
        ({"secret": "short"}, "signing_secret must be"),
        ({"org": "nobody"}, "no such organization"),
        ({"team": "acme"}, "team_id must be"),
    ],
    ids=str,
)
def test_a_mistake_is_a_sentence(acme, monkeypatch, mistake, words):
    with pytest.raises(CommandError, match=words):
        install(monkeypatch, **mistake)
    assert not Installation.objects.exists()


def test_a_missing_sealing_key_is_a_sentence(acme, monkeypatch, settings):
    settings.SEALING_KEYS = ""
    with pytest.raises(CommandError, match="AGENT_JOBS_SEALING_KEYS"):
        install(monkeypatch)
