"""The catalogue, tokens, members, usage, hours, audit and processes."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from agent_jobs.hours import stated_hours
from agent_jobs.models import AppToken, AuditEntry, JobType, Membership, Profile, UsageDay, WorkerProcess
from agent_jobs.tenants import app_tokens
from tests import rows

ORG = "/console/acme"
PAGES = ("types", "profiles", "tokens", "members", "usage", "hours", "audit", "processes")
TYPE = {"id": "chase", "name": "Chase", "runner": "conversation", "active": "on", "default_config": "{}"}
PROFILE = {"id": "polite", "name": "Polite", "model": "scripted", "active": "on", "instructions": "Be brief."}
CHANGES = (
    "types/new",
    "types/of/greet",
    "types/of/greet/remove",
    "profiles/new",
    "tokens/new",
    "members/add",
    "members/jane/role",
    "members/jane/remove",
    "hours/edit",
    "hours/remove",
)


@pytest.fixture
def filled(db):
    """An organisation with something on each page."""
    org = rows.org()
    rows.job_type(params_schema={"type": "object", "properties": {"name": {"type": "string"}}})
    Profile.objects.create(org=org, key="polite", name="Polite")
    app_tokens.issue(org, name="billing-sync", app="Billing", scopes=("SERVICES:WRITE",))
    quiet = {"time_zone": "Europe/Berlin", "quiet": ["18:00-08:00"]}
    stated_hours.put("acme", stated_hours.Place(), quiet, actor=rows.TESTER)
    stated_hours.put("acme", stated_hours.Place("person", "slack", "U0ANN"), quiet, actor=rows.TESTER)
    today = datetime.now(UTC).date()
    UsageDay.objects.create(
        org=org, day=today, job_type_key="greet", model="openai:gpt-fake", part=0, calls=3, cost=Decimal("1.50")
    )
    WorkerProcess.objects.create(name="worker@host")
    return org


@pytest.mark.parametrize("page", [*PAGES, "types/of/greet", "profiles/of/polite"])
def test_every_page_is_read_in_few_queries(admin, filled, page, django_assert_max_num_queries):
    with django_assert_max_num_queries(12):
        answer = admin.get(f"{ORG}/{page}")

    html = answer.content.decode()
    assert answer.status_code == 200
    words = {
        "types": "greet",
        "profiles": "Polite",
        "tokens": "billing-sync",
        "members": "jane",
        "usage": "1.50",
        "hours": "quiet 18:00-08:00",
        "audit": "app_token.created",
        "processes": "worker@host",
    }
    assert words.get(page, "") in html


@pytest.mark.parametrize("page", PAGES)
def test_members_read_what_a_token_with_read_may(member, filled, page):
    is_hidden = page in ("tokens", "audit")
    answer = member.get(f"{ORG}/{page}")

    assert answer.status_code == (403 if is_hidden else 200)
    assert ("billing-sync" in answer.content.decode()) is False
    html = member.get(f"{ORG}/members").content.decode()
    assert (f'href="{ORG}/{page}"' in html) is not is_hidden


@pytest.mark.parametrize("change", CHANGES)
def test_a_member_and_a_stranger_change_nothing(member, stranger, filled, change):
    assert member.post(f"{ORG}/{change}", {"name": "x"}).status_code == 403
    assert stranger.post(f"{ORG}/{change}", {"name": "x"}).status_code == 404
    assert JobType.objects.get().version == 1


@pytest.mark.parametrize("page", PAGES)
def test_pages_of_another_organisation_are_not_there_and_say_nothing_of_it(admin, stranger, filled, page):
    theirs = stranger.get(f"/console/rival/{page}")

    assert stranger.get(f"{ORG}/{page}").status_code == 404
    assert theirs.status_code == 200
    for word in ("billing-sync", "Polite", "U0ANN", "greet"):
        assert word not in theirs.content.decode()


# --- The catalogue ---------------------------------------------------------------------------------------------
def test_an_admin_makes_edits_and_deletes_a_job_type(admin, db):
    schema = '{"type": "object", "properties": {"invoice": {"type": "string"}}}'
    sent = {**TYPE, "params_schema": schema, "max_running": "2", "max_cost_per_day": "1.5"}

    assert admin.post(f"{ORG}/types/new", sent)["Location"] == f"{ORG}/types/of/chase"
    made = JobType.objects.get(key="chase")
    assert (made.max_running, made.max_cost_per_day) == (2, Decimal("1.5"))
    assert list(made.params_schema["properties"]) == ["invoice"]

    admin.post(f"{ORG}/types/of/chase", {**sent, "name": "Chase them", "max_running": "", "active": ""})
    made.refresh_from_db()
    assert (made.name, made.max_running, made.active, made.version) == ("Chase them", None, False, 2)

    assert "Delete Chase them?" in admin.get(f"{ORG}/types/of/chase/remove").content.decode()
    admin.post(f"{ORG}/types/of/chase/remove")
    assert not JobType.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"params_schema": "{"}, "not JSON"),
        ({"params_schema": '{"type": "nonsense"}'}, "e-params_schema"),
        ({"default_config": '{"max_steps": "many"}'}, "max_steps"),
        ({"max_running": "few"}, "whole number"),
        ({"id": "no spaces"}, "must begin with a letter or digit"),
        ({"name": ""}, "blank"),
    ],
)
def test_a_wrong_job_type_is_refused_beside_its_field(admin, db, wrong, words):
    answer = admin.post(f"{ORG}/types/new", {**TYPE, "description": "kept words", **wrong})

    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert "kept words" in answer.content.decode()
    assert not JobType.objects.exists()


def test_a_schema_is_checked_as_one_types_it(admin, db):
    def told(text):
        return admin.post(f"{ORG}/types/check", {"params_schema": text}).content.decode()

    assert "A valid schema with 1 property." in told('{"type": "object", "properties": {"a": {}}}')
    assert "is-failed" in told('{"type": "nonsense"}')
    assert "not JSON" in told("{")


def test_an_admin_makes_and_edits_a_profile(admin, db):
    admin.post(f"{ORG}/profiles/new", {**PROFILE, "max_output_tokens": "500"})
    admin.post(f"{ORG}/profiles/of/polite", {**PROFILE, "instructions": "Be exact.", "max_output_tokens": ""})

    made = Profile.objects.get()
    assert (made.instructions, made.max_output_tokens, made.version) == ("Be exact.", None, 2)


# --- Tokens ----------------------------------------------------------------------------------------------------
def test_a_token_is_shown_once_works_and_is_revoked(admin, client, db):
    answer = admin.post(f"{ORG}/tokens/new", {"app": "CRM", "scopes": ["SERVICES:READ"], "days": "30"})
    plain = re.search(r"ajt_live_[0-9A-Za-z]{38}", answer.content.decode())[0]

    def call():
        return client.get("/services/agent-jobs", headers={"Authorization": f"Bearer {plain}"}).status_code

    token = AppToken.objects.get()
    assert answer["Cache-Control"] == "no-store"
    assert (token.app, token.scopes, token.created_by) == ("CRM", ["SERVICES:READ"], "user:jane")
    assert call() == 200
    assert plain not in admin.get(f"{ORG}/tokens").content.decode()
    assert "Revoke CRM?" in admin.get(f"{ORG}/tokens/{token.public_id}/revoke").content.decode()
    admin.post(f"{ORG}/tokens/{token.public_id}/revoke")
    assert call() == 401


@pytest.mark.parametrize("wrong", [{"app": ""}, {"scopes": []}, {"days": "0"}, {"days": "x"}, {"scopes": ["ALL"]}])
def test_a_wrong_token_is_not_made(admin, db, wrong):
    sent = {"app": "CRM", "scopes": ["SERVICES:READ"], "days": "30", **wrong}

    assert admin.post(f"{ORG}/tokens/new", sent).status_code == 400
    assert not AppToken.objects.exists()


def test_a_third_token_of_an_app_is_refused(admin, db):
    sent = {"app": "CRM", "scopes": ["SERVICES:READ"], "days": "30"}
    for _ in range(2):
        assert admin.post(f"{ORG}/tokens/new", sent).status_code == 200

    answer = admin.post(f"{ORG}/tokens/new", sent)

    assert answer.status_code == 400
    assert "revoke one first" in answer.content.decode()


def test_a_token_of_another_organisation_is_not_revoked(admin, db):
    theirs, _ = app_tokens.issue(rows.org("rival"), name="x", app="x", scopes=("SERVICES:READ",))

    assert admin.post(f"{ORG}/tokens/{theirs.public_id}/revoke").status_code == 404
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


# --- Members ---------------------------------------------------------------------------------------------------
def roles():
    return dict(Membership.objects.filter(org_id="acme").values_list("user__username", "role"))


def test_an_admin_adds_a_member_changes_the_role_and_removes_them(admin, db):
    sent = {"username": "bo", "role": "member", "password": "a long enough one 7"}

    admin.post(f"{ORG}/members/add", sent)
    assert roles() == {"jane": "admin", "bo": "member"}
    admin.post(f"{ORG}/members/bo/role", {"role": "admin"})
    assert roles()["bo"] == "admin"
    admin.post(f"{ORG}/members/bo/remove")
    assert roles() == {"jane": "admin"}
    actions = AuditEntry.objects.filter(object_type="member").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["member.created", "member.updated", "member.removed"]


def test_the_last_admin_stays(admin, member, db):
    for address, sent in (("members/jane/remove", {}), ("members/jane/role", {"role": "member"})):
        told = admin.get(admin.post(f"{ORG}/{address}", sent)["Location"]).content.decode()
        assert "needs at least one admin" in told
    assert roles() == {"jane": "admin", "mel": "member"}


@pytest.mark.parametrize("wrong", [{"password": "short"}, {"role": "king"}, {"username": ""}, {"username": "jane"}])
def test_a_wrong_member_is_not_added(admin, db, wrong):
    sent = {"username": "bo", "role": "member", "password": "a long enough one 7", **wrong}

    told = admin.get(admin.post(f"{ORG}/members/add", sent)["Location"]).content.decode()

    assert "Nobody was added" in told
    assert roles() == {"jane": "admin"}


def test_somebody_of_another_organisation_is_not_removed(admin, stranger):
    assert admin.post(f"{ORG}/members/rita/remove").status_code == 404
    assert Membership.objects.filter(user__username="rita").exists()


# --- Hours and audit -------------------------------------------------------------------------------------------
def test_an_admin_states_and_removes_hours(admin, db):
    rows.org()
    text = '{"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"]}'

    admin.post(f"{ORG}/hours/edit", {"hours": text})
    admin.post(f"{ORG}/hours/edit", {"kind": "channel", "platform": "web", "name": "lobby", "hours": text})
    html = admin.get(f"{ORG}/hours").content.decode()
    assert html.count("quiet 22:00-07:00") >= 2
    assert "channel on web" in html
    admin.post(f"{ORG}/hours/remove", {"kind": "channel", "platform": "web", "name": "lobby"})
    assert "channel on web" not in admin.get(f"{ORG}/hours").content.decode()


@pytest.mark.parametrize("text", ["{", "[]", '{"time_zone": "Mars/Base", "quiet": ["22:00-07:00"]}', ""])
def test_wrong_hours_are_refused(admin, db, text):
    assert admin.post(f"{ORG}/hours/edit", {"hours": text}).status_code == 400


def test_the_audit_is_filtered_and_paged(admin, filled, monkeypatch):
    monkeypatch.setattr("agent_jobs.console.audit_page.PAGE", 1)
    newest = admin.get(f"{ORG}/audit").content.decode()
    older = re.search(r'href="([^"]*before=\d+)"', newest)[1].replace("&amp;", "&")

    assert "hours.created" in newest
    assert "hours.created" in admin.get(f"{ORG}/audit", {"action": "hours.created"}).content.decode()
    assert "No entry matches" in admin.get(f"{ORG}/audit", {"action": "nothing"}).content.decode()
    assert admin.get(older).status_code == 200
