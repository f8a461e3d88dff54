"""App tokens: what they look like, when they count, and that they are nowhere in plain text."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs.errors import Forbidden, Invalid
from agent_jobs.models import AppToken, AuditEntry
from agent_jobs.specs import Actor
from agent_jobs.tenants import app_tokens
from tests import rows

pytestmark = pytest.mark.django_db


def issue(**options):
    return app_tokens.issue(rows.org(), name="test", scopes=["SERVICES:READ"], **options)


def test_a_token_has_the_published_form_and_is_recognised():
    token, plain = issue()

    assert app_tokens.PATTERN.fullmatch(plain)
    assert len(plain) == 47
    assert app_tokens.authenticate(plain) == token
    assert plain.startswith(token.public_id)


def test_scopes_are_kept_in_one_form():
    token, _ = app_tokens.issue(rows.org(), name="x", scopes=["services:write", "SERVICES:WRITE", "SERVICES:READ"])

    assert token.scopes == ["SERVICES:READ", "SERVICES:WRITE"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"scopes": ["SERVICES:EVERYTHING"]}, "scopes"),
        ({"scopes": ["JOBS:READ"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"expires_in": timedelta(0)}, "expires_in_days"),
        ({"expires_in": timedelta(days=100_000)}, "expires_in_days"),
    ],
)
def test_a_token_that_cannot_be_is_refused_and_named(options, field):
    with pytest.raises(Invalid) as refused:
        app_tokens.issue(rows.org(), **{"name": "x", "scopes": ["SERVICES:READ"], **options})

    assert [error.field for error in refused.value.errors] == [field]
    assert not AppToken.objects.exists()


def test_a_new_pepper_leaves_the_tokens_of_the_old_one_alone(settings, django_assert_num_queries):
    settings.TOKEN_PEPPERS = {1: "one"}
    old, old_plain = issue()
    settings.TOKEN_PEPPERS = {1: "one", 2: "two"}
    new, new_plain = issue()
    AppToken.objects.update(last_used_at=Now())

    with django_assert_num_queries(4):
        assert [app_tokens.authenticate(old_plain), app_tokens.authenticate(new_plain)] == [old, new]
    assert (old.pepper_version, new.pepper_version) == (1, 2)
    settings.TOKEN_PEPPERS = {2: "two"}
    assert app_tokens.authenticate(old_plain) is None
    assert app_tokens.authenticate(new_plain) == new


@pytest.mark.parametrize(
    ("stated", "peppers"),
    [
        ("one", "{1: 'one'}"),
        ("a,b:c", "{1: 'a,b:c'}"),
        ("2:two", "{2: 'two'}"),
        ("1:one, 2:two", "{1: 'one', 2: 'two'}"),
        ("1:x:y,3:z", "{1: 'x:y', 3: 'z'}"),
        ("1:x,1:y", "twice"),
        ("1:x,two", "version:pepper"),
        ("0:x", "version:pepper"),
        ("40000:x", "version:pepper"),
        ("1:", "version:pepper"),
    ],
)
def test_peppers_are_read_from_the_environment_with_their_versions(stated, peppers):
    environment = {**os.environ, "AGENT_JOBS_TOKEN_PEPPER": stated}
    code = "from config import settings; print(dict(sorted(settings.TOKEN_PEPPERS.items())))"

    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert peppers in ran.stdout + ran.stderr


def test_an_admin_gives_no_scope_that_they_do_not_hold():
    rows.org()

    with pytest.raises(Forbidden) as refused:
        app_tokens.issue_for_app(
            "acme",
            app="crm",
            name="crm",
            scopes=["SERVICES:READ", "SERVICES:WRITE"],
            days=1,
            held=["SERVICES:READ"],
            actor=Actor("token", "x"),
        )

    assert refused.value.code == "scope_not_held"
    assert "SERVICES:WRITE" in refused.value.message
    assert not AppToken.objects.exists()
    assert not AuditEntry.objects.exists()


def test_what_becomes_of_a_token_is_audited_without_the_token():
    token, plain = issue(app="crm", actor=Actor("command", "create_token"))
    app_tokens.revoke(token, actor=Actor("user", "ann", "r-1"))
    app_tokens.revoke(token, actor=Actor("user", "bob", "r-2"))

    made, revoked = AuditEntry.objects.order_by("id")
    assert (made.action, made.object_id, made.actor) == ("app_token.created", token.public_id, "command:create_token")
    assert (revoked.action, revoked.actor, revoked.request_id) == ("app_token.revoked", "user:ann", "r-1")
    assert made.after["app"] == "crm"
    assert made.after["scopes"] == ["SERVICES:READ"]
    assert revoked.before["revoked_at"] is None
    assert revoked.after["revoked_at"] is not None
    assert plain not in str([made.after, revoked.before, revoked.after])


def test_unknown_expired_and_revoked_tokens_do_not_count():
    _, alive = issue(expires_in=timedelta(days=1))
    expired, expired_plain = issue(expires_in=timedelta(days=1))
    AppToken.objects.filter(pk=expired.pk).update(expires_at=Now() - timedelta(seconds=1))
    revoked, revoked_plain = issue()
    app_tokens.revoke(revoked)
    forgotten, forgotten_plain = issue()
    forgotten.delete()

    assert app_tokens.authenticate(alive)
    for plain in (expired_plain, revoked_plain, forgotten_plain):
        assert app_tokens.authenticate(plain) is None


def test_a_slip_of_the_pen_does_not_reach_the_database(django_assert_num_queries):
    _, plain = issue()
    slips = [plain[:-1], plain + "a", plain[:20] + ("a" if plain[20] != "a" else "b") + plain[21:], "", "é" * 47]

    with django_assert_num_queries(0):
        assert [app_tokens.authenticate(slip) for slip in slips] == [None] * 5


def test_the_plain_token_is_stored_nowhere():
    _, plain = issue()

    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(t)::text FROM agent_jobs_apptoken t")
        stored = cursor.fetchone()[0]
    assert plain not in stored
    assert plain[20:40] not in stored


def test_the_last_use_is_noted_at_most_once_a_minute(django_assert_num_queries):
    token, plain = issue()

    app_tokens.authenticate(plain)
    token.refresh_from_db()
    first = token.last_used_at
    with django_assert_num_queries(2):
        app_tokens.authenticate(plain)
    assert first is not None
    AppToken.objects.update(last_used_at=Now() - timedelta(minutes=2))
    with django_assert_num_queries(3):
        app_tokens.authenticate(plain)
