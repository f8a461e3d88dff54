"""The audit over HTTP, and what each write and each refused reach leaves there."""

import io

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection
from django.urls import reverse

from agent_jobs.audit import audit_log
from agent_jobs.models import AuditEntry, Membership
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from agent_jobs.tenants import orgs
from channels_integration import directory
from tests import factories, rows

pytestmark = pytest.mark.django_db
AUDIT = "/services/audit"
CATALOG = "/services/organizations/acme"
CHANNELS = "/services/channels"
SLACK = {"team_id": "T0ACME", "bot_token": "xoxb-canary", "signing_secret": "canary-secret"}
HOOK = {"platform": "webhook", "code": "crm", "address": "http://127.0.0.1:9/x", "secret": "whsec_" + "c" * 44}
ENTRY = {"id": "new", "name": "New"}


@pytest.fixture
def admin(acme):
    return factories.api("acme", "SERVICES:ADMIN")


def entries(api, **query):
    return api.get(AUDIT, query).json()["data"]


# (method, path, body) → (action, object, before, after); None: is not looked at here.
WRITES = [
    ("POST", f"{CATALOG}/agent-jobs-type", ENTRY, ("job_type.created", "new", None, {"name": "New", "version": 1})),
    (
        "PATCH",
        f"{CATALOG}/agent-jobs-type/greet",
        {"name": "B"},
        ("job_type.updated", "greet", {"name": "greet"}, {"name": "B"}),
    ),
    (
        "PUT",
        f"{CATALOG}/agent-jobs-type/greet",
        {"name": "B"},
        ("job_type.updated", "greet", {"version": 1}, {"version": 2}),
    ),
    ("DELETE", f"{CATALOG}/agent-jobs-type/greet", None, ("job_type.removed", "greet", {"name": "greet"}, None)),
    ("POST", f"{CATALOG}/profiles", ENTRY, ("profile.created", "new", None, {"name": "New"})),
    ("PATCH", f"{CATALOG}/profiles/old", {"name": "B"}, ("profile.updated", "old", {"name": "Old"}, {"name": "B"})),
    ("PUT", f"{CATALOG}/profiles/old", {"name": "B"}, ("profile.updated", "old", {"name": "Old"}, {"name": "B"})),
    ("DELETE", f"{CATALOG}/profiles/old", None, ("profile.removed", "old", {"name": "Old"}, None)),
    ("POST", CHANNELS, HOOK, ("channel.created", "webhook:crm", None, {"secret": "******", "is_new_secret": True})),
    ("POST", CHANNELS, {**HOOK, "code": "old"}, ("channel.updated", "webhook:old", {}, {"is_new_secret": True})),
    ("DELETE", f"{CHANNELS}/webhook/old", None, ("channel.removed", "webhook:old", {"secret": "******"}, None)),
    (
        "POST",
        f"{CHANNELS}/slack/installations",
        SLACK,
        ("slack_installation.created", "T0ACME", None, {"bot_token": "******"}),
    ),
    (
        "POST",
        f"{CHANNELS}/slack/installations",
        {**SLACK, "team_id": "T0OLD"},
        ("slack_installation.updated", "T0OLD", {}, {"is_new_secret": True}),
    ),
    (
        "DELETE",
        f"{CHANNELS}/slack/installations/T0OLD",
        None,
        ("slack_installation.removed", "T0OLD", {"bot_token": "******"}, None),
    ),
    (
        "POST",
        f"{CHANNELS}/web/lobby/messages",
        {"text": "Hi", "author": "Ann"},
        ("message.brought_in", "web:lobby", None, {"author": "Ann"}),
    ),
    (
        "POST",
        "/services/app-tokens",
        {"app": "crm", "scopes": ["SERVICES:READ"]},
        ("app_token.created", None, None, {"app": "crm"}),
    ),
    (
        "POST",
        "/services/agent-jobs/{parked}/approvals/{approval}",
        {"decision": "deny", "reason": "no"},
        ("approval.denied", None, None, {"tool": "pay", "by": "token:test", "reason": "no"}),
    ),
    ("POST", "/services/agent-jobs", factories.job_request(), ("job.created", None, None, {"status": "WAITING"})),
    (
        "POST",
        "/services/agent-jobs/{ended}/retry",
        {"reason": "why"},
        ("job.retried", None, {"status": "FAILED"}, {"status": "WAITING", "note": "WAITING: retried: why"}),
    ),
    (
        "POST",
        "/services/agent-jobs/{ended}/replay",
        None,
        ("job.created", None, None, {"status": "WAITING"}),
    ),
    (
        "DELETE",
        "/services/agent-jobs/{job}",
        {"reason": "why"},
        ("job.canceled", None, {"status": "WAITING"}, {"status": "CANCELED", "note": "CANCELED: why"}),
    ),
]


@pytest.fixture
def old_things(admin):
    admin.post(f"{CATALOG}/profiles", {"id": "old", "name": "Old"})
    admin.post(CHANNELS, {**HOOK, "code": "old"})
    admin.post(f"{CHANNELS}/slack/installations", {**SLACK, "team_id": "T0OLD"})
    approval = rows.approval(rows.parked())
    asks = {"parked": approval.job_id, "approval": approval.pk}
    return {"job": rows.job().pk, "ended": rows.job(JobStatus.FAILED).pk, **asks}


@pytest.mark.parametrize(("method", "path", "body", "expected"), WRITES, ids=lambda value: str(value)[:60])
def test_a_write_by_token_leaves_who_did_what_by_which_request(admin, old_things, method, path, body, expected):
    answer = admin.send(method, path.format(**old_things), body, X_Request_ID="req-7")

    assert answer.status_code in {200, 201}, answer.content
    (left,) = entries(admin, request_id="req-7")
    action, object_id, before, after = expected
    assert left["action"] == action
    assert object_id in (None, left["object_id"])
    for stated, kept in ((before, left.get("before")), (after, left.get("after"))):
        assert (stated is None) == (kept is None)
        assert (stated or {}).items() <= (kept or {}).items()
    assert left["actor"].startswith("token:ajt_live_")
    assert left["org_id"] == "acme"
    assert not {"xoxb-canary", "canary-secret", HOOK["secret"]} & {str(value) for value in left.values()}
    assert "canary" not in str(left)


def test_revoking_a_token_leaves_an_entry_of_its_request(admin):
    public_id = factories.token("acme", "SERVICES:READ")[:16]

    admin.delete(f"/services/app-tokens/{public_id}", X_Request_ID="req-7")

    (left,) = entries(admin, request_id="req-7")
    assert (left["action"], left["object_id"]) == ("app_token.revoked", public_id)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", f"{CATALOG}/profiles/old", {"name": "Old"}),
        ("POST", CHANNELS, {name: HOOK[name] for name in ("platform", "address")} | {"code": "old"}),
        ("POST", f"{CATALOG}/profiles", {"id": "old", "name": "Again"}),
        ("POST", f"{CATALOG}/profiles", {"id": "x"}),
        ("DELETE", f"{CATALOG}/profiles/none", None),
        ("GET", f"{CATALOG}/profiles/old", None),
    ],
)
def test_what_changes_nothing_leaves_nothing(admin, old_things, method, path, body):
    admin.send(method, path, body, X_Request_ID="req-7")

    assert entries(admin, request_id="req-7") == []


def test_a_repeated_key_leaves_one_entry(admin):
    for _ in range(2):
        assert admin.post(f"{CATALOG}/profiles", ENTRY, Idempotency_Key="k", X_Request_ID="req-7").status_code == 201

    assert len(entries(admin, request_id="req-7")) == 1


# What is asked for of the stranger's → what the entry says of it.
REACHES = [
    ("GET", "agent-jobs/{job}", None, 403, ("job", "{job}")),
    ("DELETE", "agent-jobs/{job}", None, 403, ("job", "{job}")),
    ("GET", "agent-jobs?org_id=rival", None, 403, ("organization", "rival")),
    ("GET", "activities?org_id=rival", None, 403, ("organization", "rival")),
    ("POST", "agent-jobs", factories.job_request("rival"), 404, ("organization", "rival")),
    ("GET", "organizations/rival/agent-jobs-type", None, 404, ("organization", "rival")),
    ("PATCH", "organizations/rival/profiles/greet", {"name": "x"}, 404, ("organization", "rival")),
    ("DELETE", "organizations/rival/profiles/greet", None, 404, ("organization", "rival")),
    ("GET", "organizations/a%00b/profiles", None, 404, ("organization", "a?b")),
    ("POST", "channels/web/lobby/messages", {"text": "x", "author": "y", "job_id": "{job}"}, 404, ("job", "{job}")),
    ("DELETE", "app-tokens/{token}", None, 404, ("app_token", "{token}")),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "expected"), REACHES)
def test_a_refused_reach_for_the_strangers_is_told_in_our_audit_alone(admin, method, path, body, status, expected):
    job = rows.job(org_id="rival")
    names = {"job": str(job.pk), "token": factories.token("rival")[:16]}
    if body and "job_id" in body:
        body = {**body, "job_id": names["job"]}

    answer = admin.send(method, "/services/" + path.format(**names), body, X_Request_ID="req-7")

    assert answer.status_code == status
    left = AuditEntry.objects.get(request_id="req-7")
    assert (left.org_id, left.action) == ("acme", "access.denied")
    assert (left.object_type, left.object_id) == tuple(text.format(**names) for text in expected)
    assert left.before is None
    assert left.after == {"method": method, "code": answer.json()["code"]}
    assert left.actor.startswith("token:")


@pytest.mark.parametrize(
    "path",
    ["app-tokens/{}", "agent-jobs/{job}/approvals/{}", "channels/web/lobby/messages"],
    ids=["token", "approval", "job"],
)
def test_the_audit_does_not_tell_whether_what_was_reached_for_exists(admin, path):
    """The answer does not either: all of these are 404."""
    nobodys = "01930000-0000-7000-8000-000000000000"
    theirs = {
        "app-tokens/{}": (factories.token("rival")[:16], "ajt_live_0000000"),
        "agent-jobs/{job}/approvals/{}": (str(rows.approval(rows.parked("rival")).pk), nobodys),
        "channels/web/lobby/messages": (str(rows.job(org_id="rival").pk), nobodys),
    }[path]
    left = []
    for thing in theirs:
        asker = factories.api("acme", "SERVICES:ADMIN")  # for one token alone the second reach leaves nothing
        bodies = {"channels": {"text": "x", "author": "y", "job_id": thing}, "agent-jobs": {"decision": "deny"}}
        body = bodies.get(path.split("/")[0])
        where = path.format(thing, job=rows.parked().pk)
        answer = asker.send("DELETE" if "token" in path else "POST", f"/services/{where}", body)
        assert answer.status_code == 404
        entry = AuditEntry.objects.filter(action="access.denied").latest("id")
        left.append((entry.object_type, entry.object_id.replace(thing, "X"), entry.after))
    assert left[0] == left[1]
    assert AuditEntry.objects.filter(action="access.denied").count() == 2


def test_a_token_leaves_one_entry_an_hour_by_its_reaches(admin):
    for number in range(5):
        assert admin.get(f"/services/agent-jobs?org_id=rival{number}").status_code == 403
    assert [entry["object_id"] for entry in entries(admin, action="access.denied")] == ["rival0"]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("UPDATE agent_jobs_auditentry SET at = at - interval '61 minutes'")
        cursor.execute("SET LOCAL session_replication_role = origin")
    assert admin.get("/services/agent-jobs?org_id=rival9").status_code == 403
    assert len(entries(admin, action="access.denied")) == 2


def test_all_tokens_of_an_organisation_leave_no_more_than_a_number_of_them(admin, monkeypatch):
    monkeypatch.setattr(audit_log, "MOST_DENIED", 3)
    for _ in range(5):
        assert factories.api("acme", "SERVICES:READ").get("/services/agent-jobs?org_id=rival").status_code == 403
    assert len(entries(admin, action="access.denied")) == 3


def test_it_is_refused_as_ever_where_the_entry_cannot_be_written(admin, monkeypatch, caplog):
    def fail(*_, **__):
        raise OperationalError("disk full")

    monkeypatch.setattr(audit_log, "record", fail)

    assert admin.get("/services/agent-jobs?org_id=rival").status_code == 403
    assert "could not be audited" in caplog.text


# --- The list --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scope", ["SERVICES:READ", "SERVICES:WRITE"])
def test_only_admins_read_it(scope):
    assert factories.api("acme", scope).get(AUDIT).status_code == 403


FILTERS = {
    "action=thing.a": {"a", "later"},
    "actor=user:ann": {"a"},
    "object_type=other": {"b"},
    "object_id=b": {"b"},
    "request_id=r-1": {"a"},
    "at_gte=2030-01-01": {"later"},
    "at_lte=2030-01-01": {"a", "b"},
    "action=thing.a&actor=user:ann": {"a"},
    "action=nothing": set(),
}


@pytest.mark.parametrize("query", FILTERS)
def test_it_can_be_filtered(query):
    admin = factories.api("acme", "SERVICES:ADMIN")
    audit_log.record("acme", "thing.a", "a", actor=Actor("user", "ann", "r-1"))
    audit_log.record("acme", "thing.b", "b", object_type="other", actor=Actor("user", "bob"))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # past the trigger that sets the time
        AuditEntry.objects.create(
            org_id="acme", action="thing.a", object_type="thing", object_id="later", at="2031-01-01T00:00:00Z"
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
    audit_log.record("rival", "thing.a", "a", actor=Actor("user", "ann", "r-1"))

    body = admin.get(f"{AUDIT}?{query}").json()

    found = {entry["object_id"] for entry in body["data"] if not entry["action"].startswith("app_token")}
    assert found == FILTERS[query]
    assert {entry["org_id"] for entry in body["data"]} <= {"acme"}
    if "at_lte" not in query:
        assert body["meta"]["total"] == len(found)


@pytest.mark.parametrize(
    ("query", "field"),
    [("at_gte=yesterday", "at_gte"), ("sort=actor", "sort"), ("limit=0", "limit"), ("org=acme", "org")],
)
def test_a_query_that_cannot_be_is_named(query, field):
    answer = factories.api("acme", "SERVICES:ADMIN").get(f"{AUDIT}?{query}")

    assert (answer.status_code, factories.fields_of(answer)) == (400, [field])


def test_pages_follow_each_other_newest_first():
    admin = factories.api("acme", "SERVICES:ADMIN")
    for number in range(5):
        audit_log.record("acme", "thing.done", number, actor=Actor("user", "ann"))

    first = admin.get(AUDIT, {"limit": 4, "action": "thing.done"}).json()
    second = admin.get(AUDIT, {"limit": 4, "action": "thing.done", "cursor": first["meta"]["next_cursor"]}).json()
    upwards = admin.get(AUDIT, {"action": "thing.done", "sort": "at:asc"}).json()

    assert [entry["object_id"] for entry in first["data"] + second["data"]] == ["4", "3", "2", "1", "0"]
    assert [entry["object_id"] for entry in upwards["data"]] == ["0", "1", "2", "3", "4"]
    assert first["meta"]["sort"] == [{"field": "at", "direction": "desc"}]
    assert "before" not in first["data"][0]


# --- Other doors -----------------------------------------------------------------------------------------------
def test_what_operators_do_by_command_is_told():
    org, _ = orgs.create("acme", name="Acme")
    orgs.create("acme", name="Acme", max_running_jobs=5)
    orgs.create("acme", name="Acme", max_running_jobs=5)
    orgs.create_user(org, username="ann", role="member", password="correct horse battery")
    orgs.create_user(org, username="ann", role="admin", password="correct horse battery")
    orgs.create_user(org, username="ann", role="admin", password="correct horse battery")

    told = AuditEntry.objects.order_by("id").values_list("action", "object_id", "before", "after")
    assert list(told) == [
        ("org.created", "acme", None, {"name": "Acme"}),
        ("org.updated", "acme", {"max_running_jobs": None}, {"max_running_jobs": 5}),
        ("member.created", "ann", None, {"role": "member", "is_new_password": True}),
        ("member.updated", "ann", {"role": "member"}, {"role": "admin", "is_new_password": False}),
    ]


def test_what_operators_do_in_the_admin_pages_is_told(admin_client):
    org = rows.org()
    ann = get_user_model().objects.create_user("ann")
    form = {"name": "New name", "weight": 7}
    changed = admin_client.post(reverse("admin:agent_jobs_org_change", args=["acme"]), form)
    added = admin_client.post(
        reverse("admin:agent_jobs_membership_add"), {"org": "acme", "user": ann.pk, "role": "admin"}
    )
    member = Membership.objects.get(org=org)
    chosen = {"action": "delete_selected", "_selected_action": member.pk, "post": "yes"}
    removed = admin_client.post(reverse("admin:agent_jobs_membership_changelist"), chosen)

    assert [answer.status_code for answer in (changed, added, removed)] == [302] * 3
    told = AuditEntry.objects.order_by("id").values_list("action", "actor", "object_id", "after")
    assert list(told) == [
        ("org.updated", "user:admin", "acme", {"name": "New name", "weight": 7}),
        ("member.created", "user:admin", "ann", {"org": "acme", "user": ann.pk, "role": "admin"}),
        ("member.removed", "user:admin", "ann", None),
    ]
    for page in ("auditentry", "auditseal"):
        assert admin_client.get(reverse(f"admin:agent_jobs_{page}_changelist")).status_code == 200


def test_a_slack_installation_by_command_is_told(monkeypatch):
    rows.org()
    monkeypatch.setattr("sys.stdin", io.StringIO("xoxb-canary\n"))
    monkeypatch.setenv("SIGNING", "canary-secret")
    call_command(
        "install_slack", "--org=acme", "--team=T0ACME", "--bot-token-stdin", "--signing-secret-env=SIGNING",
        stdout=io.StringIO(),
    )  # fmt: skip

    left = AuditEntry.objects.get()
    assert (left.action, left.actor, left.object_id) == (
        "slack_installation.created",
        "command:install_slack",
        "T0ACME",
    )
    assert "canary" not in str(left.after)
    assert directory.installations("acme")
