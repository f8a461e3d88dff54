"""`create_org`, `create_token` and `create_user`: what they print, and what a user's mistakes look like."""

import io
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from agent_jobs.models import AppToken, AuditEntry, Membership, Org
from agent_jobs.tenants import app_tokens
from tests import rows
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]


def run(command, *arguments):
    out = io.StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def password(monkeypatch):
    def type_in(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    type_in("correct horse battery\n")
    return type_in


def test_an_organization_is_made_once():
    assert "made" in run("create_org", "acme", "--name", "Acme")
    assert "already" in run("create_org", "acme", "--name", "Acme Ltd")

    assert list(Org.objects.values_list("id", "name")) == [("acme", "Acme Ltd")]


def test_quotas_are_set_when_they_are_given():
    run("create_org", "acme", "--max-running-jobs", "20", "--weight", "2")
    run("create_org", "acme", "--max-waiting-jobs", "500")

    assert Org.objects.values_list("weight", "max_running_jobs", "max_waiting_jobs").get() == (2, 20, 500)


def test_budgets_are_set_as_other_quotas_are():
    run("create_org", "acme", "--max-tokens-per-day", "1000000", "--max-cost-per-day", "12.50")
    run("create_org", "acme", "--max-cost-per-day", "0.000001")

    org = Org.objects.get()
    assert (org.max_tokens_per_day, org.max_cost_per_day) == (1_000_000, Decimal("0.000001"))
    changed = AuditEntry.objects.filter(action="org.updated").values_list("before", "after")
    assert list(changed) == [({"max_cost_per_day": "12.5"}, {"max_cost_per_day": "0.000001"})]


@pytest.mark.parametrize("amount", ["0", "-1", "much", "1e3", "0.0000001", "1000000001"])
def test_a_budget_that_cannot_be_is_refused(amount):
    with pytest.raises(CommandError, match="max_cost_per_day: must be an amount above 0"):
        run("create_org", "acme", f"--max-cost-per-day={amount}")
    assert not Org.objects.exists()


def test_a_quota_that_cannot_be_is_refused():
    with pytest.raises(CommandError, match="max_running_jobs"):
        run("create_org", "acme", "--max-running-jobs", "0")
    assert not Org.objects.exists()


@pytest.mark.parametrize("org_id", ["", "a b", "-x", "x" * 65, "é", "a/b", "a\n"])
def test_an_id_that_cannot_be_is_refused(org_id):
    with pytest.raises(CommandError, match="org_id"):
        run("create_org", "--name", "x", "--", org_id)
    assert not Org.objects.exists()


def test_a_token_is_printed_alone():
    rows.org()

    printed = run(
        "create_token", "--org", "acme", "--scope", "SERVICES:WRITE", "--scope", "services:read", "--name", "x"
    )

    assert app_tokens.PATTERN.fullmatch(printed.removesuffix("\n"))
    assert app_tokens.authenticate(printed.strip()).scopes == ["SERVICES:READ", "SERVICES:WRITE"]
    token = AppToken.objects.get()
    assert (token.expires_at - token.created_at).days == 90
    assert (token.app, token.created_by) == ("x", "command:create_token")


@pytest.mark.parametrize("option", ["--never", "--expires-in-days=0"])
def test_a_token_that_never_expires_has_to_be_asked_for(option):
    rows.org()
    run("create_token", "--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--app", "crm", option)

    token = AppToken.objects.get()
    assert (token.expires_at, token.app, token.name) == (None, "crm", "x")


def test_a_token_may_expire():
    rows.org()
    run("create_token", "--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--expires-in-days", "3")

    token = AppToken.objects.get()
    assert (token.expires_at - token.created_at).days in {2, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--org", "nowhere", "--scope", "SERVICES:READ", "--name", "x"], "no such organization"),
        (["--org", "acme", "--scope", "EVERYTHING", "--name", "x"], "is not a scope"),
        (["--org", "acme", "--scope", "SERVICES:READ", "--name", ""], "name"),
        (
            ["--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--never", "--expires-in-days", "3"],
            "not allowed",
        ),
        (["--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--app", "x" * 201], "app"),
        (["--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--expires-in-days", "-5"], "days"),
        (["--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--expires-in-days", "9" * 12], "days"),
        (["--org", "acme", "--scope", "SERVICES:READ", "--name", "x", "--expires-in-days", "soon"], "invalid"),
        (["--org", "acme", "--name", "x"], "--scope"),
        (["--scope", "SERVICES:READ", "--name", "x"], "--org"),
    ],
)
def test_a_users_mistake_makes_no_token(options, message):
    rows.org()

    with pytest.raises(CommandError, match=message):
        run("create_token", *options)
    assert not AppToken.objects.exists()


def test_a_user_is_made_with_a_role(password):
    rows.org()

    assert "made" in run("create_user", "--org", "acme", "--username", "jane", "--role", "admin", "--password-stdin")

    user = get_user_model().objects.get()
    assert user.check_password("correct horse battery")
    assert not user.is_staff
    assert list(Membership.objects.values_list("org_id", "user__username", "role")) == [("acme", "jane", "admin")]


@pytest.mark.parametrize("is_reset", [False, True])
def test_making_a_user_again_changes_the_role_and_the_password_only_when_asked_to(password, is_reset):
    rows.org()
    arguments = ("create_user", "--org", "acme", "--username", "jane", "--password-stdin", "--role")
    run(*arguments, "admin")
    password("another long password")

    said = run(*arguments, "member", *["--reset-password"] * is_reset)

    assert "already" in said
    assert ("the password is the one they had" in said) is not is_reset
    user = get_user_model().objects.get()
    assert user.check_password("another long password" if is_reset else "correct horse battery")
    assert Membership.objects.get().role == "member"


@pytest.mark.parametrize(
    ("options", "typed", "message"),
    [
        (["--org", "nowhere", "--username", "j", "--role", "admin"], "correct horse battery", "no such organization"),
        (["--org", "acme", "--username", "a b", "--role", "admin"], "correct horse battery", "username"),
        (["--org", "acme", "--username", "", "--role", "admin"], "correct horse battery", "username"),
        (["--org", "acme", "--username", "x" * 151, "--role", "admin"], "correct horse battery", "username"),
        (["--org", "acme", "--username", "j", "--role", "king"], "correct horse battery", "invalid choice"),
        (["--org", "acme", "--username", "j", "--role", "admin"], "", "no password"),
        (["--org", "acme", "--username", "j", "--role", "admin"], "\n", "no password"),
    ],
)
def test_a_users_mistake_makes_no_user(password, options, typed, message):
    rows.org()
    password(typed)

    with pytest.raises(CommandError, match=message):
        run("create_user", *options, "--password-stdin")
    assert not get_user_model().objects.exists()
    assert not Membership.objects.exists()


@pytest.mark.parametrize("command", ["create_org acme", "create_token --org acme --scope SERVICES:READ --name x"])
@pytest.mark.parametrize("is_stated", [False, True])
def test_without_a_database_a_sentence_says_what_to_do(tmp_path, command, is_stated):
    environment = {
        key: value for key, value in os.environ.items() if key not in {"DATABASE_URL", "DJANGO_SETTINGS_MODULE"}
    }
    environment["AGENT_JOBS_DATA_DIR"] = str(tmp_path)
    if is_stated:
        environment["DATABASE_URL"] = "postgres://nobody@127.0.0.1:1/nothing"

    done = subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "python3 manage.py up" in done.stderr
    assert (str(tmp_path) in done.stderr) is not is_stated
