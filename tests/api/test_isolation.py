"""No address shows or changes what belongs to another organisation, whoever asks (promise I13).

Every address has a row here for each method that it takes: what our own, the stranger's and nobody's things answer. The
walk asks each in every role and under every prefix. An address without a row fails the first test.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.test import override_settings
from django.urls import URLPattern, get_resolver

from agent_jobs import llm
from agent_jobs.audit import audit_log
from agent_jobs.catalog import model_keys
from agent_jobs.hours import stated_hours
from agent_jobs.hours.stated_hours import Place
from agent_jobs.models import (
    Approval,
    AuditEntry,
    Executor,
    JobTally,
    Message,
    Org,
    PlaceHours,
    Profile,
    Step,
    Task,
)
from agent_jobs.schedules import editing, requested_runs
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from agent_jobs.tenants import login_tokens
from agent_jobs.tools import tool_secrets
from agent_jobs.webhooks import endpoints
from channels_integration import directory, web_messages
from infra import prepared_sql
from tests import emptying, factories, rows
from tests.dialects.own_forms import signed_in
from tests.dialects.workspace_clients import person

pytestmark = pytest.mark.django_db
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ROLES = ("none", "READ", "WRITE", "EXECUTE", "ADMIN")
IMPLIED = {"READ": {"READ"}, "WRITE": {"READ", "WRITE"}, "EXECUTE": {"EXECUTE"}, "ADMIN": set(ROLES)}
HOOK = "http://127.0.0.1:9/in"
OPEN_HOURS = {"time_zone": "UTC", "quiet": []}
ENTRY = {"id": "new", "name": "New"}
SCHEDULE = "agent-schedules/<str:schedule_id>"
OF_SCHEDULE = "agent-schedules/{schedule}"


# --- The rows --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    """`statuses`: for our own things, the stranger's, nobody's. `by`: whether the address (or body) names an `org`, an
    `id` that is unique in the service, or a `name` that each organisation has for itself."""

    path: str
    statuses: tuple[int, int, int]
    by: str = "name"
    body: Callable[[dict[str, str]], dict[str, Any]] | None = None
    level: str = ""
    writes: bool = True  # a POST that only asks, or a sign of life, leaves no entry
    is_for_people: bool = False  # who sign in: a member may read, an admin may write


def _held(**fields):
    return lambda names: {"executor_id": f"executor-of-{names['org']}", "lease_token": 1, **fields}


def _hook(names):
    return {"platform": "webhook", "code": names["code"], "address": HOOK}


def _schedule(names):
    target = {"org_id": names["org"], "platform": "web", "code": "lobby"}
    job = {"job_type_id": "greet", "target_channel": target, "params": {"name": "Ann"}}
    return {"name": "New", "cron": "@daily", "job": job}


def _stored_schedule(org_id):
    body = _schedule({"org": org_id})
    body["job"]["target_channel"].pop("org_id")
    return body


def _backfill(names):
    return {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}


def _slack(names):
    return {"team_id": names["team"], "bot_token": "xoxb-new", "signing_secret": "12345678"}


ROWS = {
    ("agent-jobs", "GET"): Row("agent-jobs?org_id={org}", (200, 403, 403), "org"),
    ("agent-jobs", "POST"): Row(
        "agent-jobs", (201, 404, 404), "org", lambda names: factories.job_request(names["org"])
    ),
    ("agent-jobs/", "GET"): Row("agent-jobs/", (400, 400, 400)),
    ("agent-jobs/", "DELETE"): Row("agent-jobs/", (400, 400, 400)),
    ("agent-jobs/changes", "GET"): Row("agent-jobs/changes", (200, 200, 200)),
    ("agent-jobs/<str:job_id>", "GET"): Row("agent-jobs/{job}?include=activities,explanation", (200, 403, 404), "id"),
    ("agent-jobs/<str:job_id>", "DELETE"): Row("agent-jobs/{job}", (200, 403, 404), "id"),
    ("agent-jobs/bulk", "POST"): Row(
        "agent-jobs/bulk", (201, 404, 404), "org", lambda names: {"jobs": [factories.job_request(names["org"])]}
    ),
    ("agent-jobs/bulk/cancel", "POST"): Row(
        "agent-jobs/bulk/cancel", (200, 404, 404), "id", lambda names: {"ids": [names["job"]]}
    ),
    ("agent-jobs/bulk/retry", "POST"): Row(
        "agent-jobs/bulk/retry", (200, 404, 404), "id", lambda names: {"ids": [names["ended"]]}
    ),
    ("agent-jobs/<str:job_id>/retry", "POST"): Row("agent-jobs/{ended}/retry", (200, 403, 404), "id"),
    ("agent-jobs/<str:job_id>/replay", "POST"): Row("agent-jobs/{ended}/replay", (201, 403, 404), "id"),
    ("agent-jobs/<str:job_id>/messages", "GET"): Row("agent-jobs/{job}/messages", (200, 403, 404), "id"),
    ("agent-jobs/<str:job_id>/messages", "POST"): Row(
        "agent-jobs/{job}/messages", (201, 403, 404), "id", lambda names: {"text": "Hi", "author": "Ann"}
    ),
    ("agent-jobs/<str:job_id>/events", "GET"): Row("agent-jobs/{job}/events", (200, 403, 404), "id"),
    ("agent-jobs/<str:job_id>/tasks", "GET"): Row("agent-jobs/{ended}/tasks", (200, 403, 404), "id"),
    ("agent-jobs/<str:job_id>/tasks/<str:task_id>", "GET"): Row(
        "agent-jobs/{ended}/tasks/{task}", (200, 403, 404), "id"
    ),
    ("agent-jobs/<str:job_id>/approvals", "GET"): Row("agent-jobs/{parked}/approvals", (200, 403, 404), "id"),
    ("agent-jobs/<str:job_id>/approvals/<str:approval_id>", "GET"): Row(
        "agent-jobs/{parked}/approvals/{approval}", (200, 403, 404), "id"
    ),
    ("agent-jobs/<str:job_id>/approvals/<str:approval_id>", "POST"): Row(
        "agent-jobs/{parked}/approvals/{approval}", (200, 403, 404), "id", lambda names: {"decision": "approve"}
    ),
    ("agent-schedules", "GET"): Row("agent-schedules", (200, 200, 200)),
    ("agent-schedules", "POST"): Row("agent-schedules", (201, 404, 404), "org", _schedule),
    ("agent-schedules/preview", "POST"): Row(
        "agent-schedules/preview", (200, 200, 200), body=lambda names: {"cron": "@daily"}, writes=False
    ),
    ("agent-schedules/by-key/<str:key>", "PUT"): Row(
        "agent-schedules/by-key/{code}", (201, 404, 404), "org", _schedule
    ),
    (SCHEDULE, "GET"): Row(OF_SCHEDULE, (200, 404, 404), "id"),
    (SCHEDULE, "PUT"): Row(OF_SCHEDULE, (200, 404, 404), "id", lambda names: _schedule({"org": "acme"})),
    (SCHEDULE, "PATCH"): Row(OF_SCHEDULE, (200, 404, 404), "id", lambda names: {"name": "New"}),
    (SCHEDULE, "DELETE"): Row(OF_SCHEDULE, (200, 404, 404), "id"),
    (f"{SCHEDULE}/pause", "POST"): Row(f"{OF_SCHEDULE}/pause", (200, 404, 404), "id"),
    (f"{SCHEDULE}/resume", "POST"): Row(f"{OF_SCHEDULE}/resume", (200, 404, 404), "id"),
    (f"{SCHEDULE}/run", "POST"): Row(f"{OF_SCHEDULE}/run", (200, 404, 404), "id"),
    (f"{SCHEDULE}/backfill", "POST"): Row(f"{OF_SCHEDULE}/backfill", (200, 404, 404), "id", _backfill),
    (f"{SCHEDULE}/next", "GET"): Row(f"{OF_SCHEDULE}/next", (200, 404, 404), "id"),
    (f"{SCHEDULE}/jobs", "GET"): Row(f"{OF_SCHEDULE}/jobs", (200, 404, 404), "id"),
    (f"{SCHEDULE}/firings", "GET"): Row(f"{OF_SCHEDULE}/firings", (200, 404, 404), "id"),
    (f"{SCHEDULE}/versions", "GET"): Row(f"{OF_SCHEDULE}/versions", (200, 404, 404), "id"),
    (f"{SCHEDULE}/versions/<str:number>", "GET"): Row(f"{OF_SCHEDULE}/versions/1", (200, 404, 404), "id"),
    (f"{SCHEDULE}/rollback/<str:number>", "POST"): Row(f"{OF_SCHEDULE}/rollback/1", (200, 404, 404), "id"),
    ("executors", "GET"): Row("executors", (200, 200, 200)),
    ("executors/claim", "POST"): Row(
        "executors/claim", (200, 200, 200), body=lambda names: {"executor_id": "e1"}, level="EXECUTE"
    ),
    # Nobody needs an entry for each sign of life.
    ("executors/jobs/<str:job_id>/heartbeat", "PUT"): Row(
        "executors/jobs/{held}/heartbeat", (200, 404, 404), "id", _held(), level="EXECUTE", writes=False
    ),
    ("executors/jobs/<str:job_id>/complete", "PUT"): Row(
        "executors/jobs/{held}/complete", (200, 404, 404), "id", _held(result="r"), level="EXECUTE"
    ),
    ("executors/jobs/<str:job_id>/fail", "PUT"): Row(
        "executors/jobs/{held}/fail", (200, 404, 404), "id", _held(error_message="m"), level="EXECUTE"
    ),
    ("executors/jobs/<str:job_id>/release", "PUT"): Row(
        "executors/jobs/{held}/release", (200, 404, 404), "id", _held(), level="EXECUTE"
    ),
    ("approvals", "GET"): Row("approvals", (200, 200, 200)),
    ("activities", "GET"): Row("activities?org_id={org}", (200, 403, 403), "org"),
    ("stats", "GET"): Row("stats?org_id={org}", (200, 403, 403), "org"),
    ("workers", "GET"): Row("workers", (200, 200, 200)),
    ("usage", "GET"): Row("usage", (200, 200, 200)),
    ("audit", "GET"): Row("audit", (200, 200, 200), level="ADMIN"),
    ("app-tokens", "GET"): Row("app-tokens", (200, 200, 200), level="ADMIN"),
    ("app-tokens", "POST"): Row(
        "app-tokens",
        (201, 201, 201),
        body=lambda names: {"app": names["code"], "scopes": ["SERVICES:READ"]},
        level="ADMIN",
    ),
    ("app-tokens/<str:public_id>", "GET"): Row("app-tokens/{token}", (200, 404, 404), "id", level="ADMIN"),
    ("app-tokens/<str:public_id>", "DELETE"): Row("app-tokens/{token}", (200, 404, 404), "id", level="ADMIN"),
    ("tool-secrets", "GET"): Row("tool-secrets", (200, 200, 200), level="ADMIN"),
    ("tool-secrets/<str:name>", "GET"): Row("tool-secrets/{code}", (200, 404, 404), level="ADMIN"),
    ("tool-secrets/<str:name>", "PUT"): Row(
        "tool-secrets/{code}",
        (200, 201, 201),
        body=lambda names: {"value": "a-new-secret", "hosts": ["example.com"]},
        level="ADMIN",
    ),
    ("tool-secrets/<str:name>", "DELETE"): Row("tool-secrets/{code}", (200, 404, 404), level="ADMIN"),
    ("webhook-endpoints", "GET"): Row("webhook-endpoints", (200, 200, 200)),
    ("webhook-endpoints", "POST"): Row(
        "webhook-endpoints", (201, 201, 201), body=lambda names: {"url": HOOK}, level="ADMIN"
    ),
    ("webhook-endpoints/<str:endpoint_id>", "GET"): Row("webhook-endpoints/{endpoint}", (200, 404, 404), "id"),
    ("webhook-endpoints/<str:endpoint_id>", "PATCH"): Row(
        "webhook-endpoints/{endpoint}", (200, 404, 404), "id", lambda names: {"description": "new"}, level="ADMIN"
    ),
    ("webhook-endpoints/<str:endpoint_id>", "DELETE"): Row(
        "webhook-endpoints/{endpoint}", (200, 404, 404), "id", level="ADMIN"
    ),
    ("webhook-endpoints/<str:endpoint_id>/rotate-secret", "POST"): Row(
        "webhook-endpoints/{endpoint}/rotate-secret", (200, 404, 404), "id", level="ADMIN"
    ),
    ("webhook-endpoints/<str:endpoint_id>/test", "POST"): Row(
        "webhook-endpoints/{endpoint}/test", (201, 404, 404), "id", level="ADMIN"
    ),
    ("webhook-endpoints/<str:endpoint_id>/deliveries", "GET"): Row(
        "webhook-endpoints/{endpoint}/deliveries", (200, 404, 404), "id"
    ),
    ("webhook-endpoints/<str:endpoint_id>/deliveries/<str:delivery_id>/redeliver", "POST"): Row(
        "webhook-endpoints/{endpoint}/deliveries/{delivery}/redeliver", (200, 404, 404), "id", level="ADMIN"
    ),
    ("channels", "GET"): Row("channels", (200, 200, 200)),
    ("channels", "POST"): Row("channels", (201, 201, 201), body=_hook, level="ADMIN"),
    ("channels/slack/installations", "GET"): Row("channels/slack/installations", (200, 200, 200)),
    ("channels/slack/installations", "POST"): Row(
        "channels/slack/installations", (201, 201, 201), body=_slack, level="ADMIN"
    ),
    ("channels/slack/installations/<str:team_id>", "DELETE"): Row(
        "channels/slack/installations/{team}", (200, 404, 404), level="ADMIN"
    ),
    ("channels/<str:platform>/<str:code>", "DELETE"): Row("channels/webhook/{code}", (200, 404, 404), level="ADMIN"),
    ("channels/<str:platform>/<str:code>/messages", "GET"): Row("channels/webhook/{code}/messages", (200, 404, 404)),
    ("channels/<str:platform>/<str:code>/messages", "POST"): Row(
        "channels/webhook/{code}/messages", (201, 404, 404), body=lambda names: {"text": "Hi", "author": "Ann"}
    ),
    ("channels/<str:platform>/<str:code>/presses", "POST"): Row(
        "channels/web/lobby/presses",
        (200, 404, 404),
        "id",
        lambda names: {"value": f"deny:{names['approval']}", "author": "Ann"},
    ),
}
for word in ("agent-jobs-type", "profiles"):
    base, entry = f"organizations/<str:org_id>/{word}", f"organizations/{{org}}/{word}"
    ROWS |= {
        (base, "GET"): Row(entry, (200, 404, 404), "org"),
        (base, "POST"): Row(entry, (201, 404, 404), "org", lambda names: ENTRY),
        (f"{base}/<str:entry_id>", "GET"): Row(f"{entry}/greet", (200, 404, 404), "org"),
        (f"{base}/<str:entry_id>", "PUT"): Row(f"{entry}/greet", (200, 404, 404), "org", lambda names: {"name": "X"}),
        (f"{base}/<str:entry_id>", "PATCH"): Row(f"{entry}/greet", (200, 404, 404), "org", lambda names: {"name": "X"}),
        (f"{base}/<str:entry_id>", "DELETE"): Row(f"{entry}/greet", (200, 404, 404), "org"),
    }
_key = {"key": "sk-new-key-of-acme"}
for address, path in {"": "", "/<str:provider>": "/openai"}.items():
    base, at = f"organizations/<str:org_id>/model-keys{address}", f"organizations/{{org}}/model-keys{path}"
    ROWS[base, "GET"] = Row(at, (200, 404, 404), "org", level="ADMIN")
ROWS[base, "PUT"] = Row(at, (200, 404, 404), "org", lambda names: _key, level="ADMIN")
ROWS[base, "DELETE"] = Row(at, (200, 404, 404), "org", level="ADMIN")
for word, name in (("", ""), ("/channels", "/web/shared"), ("/people", "/web/shared")):
    one = {"/channels": "/<str:platform>/<str:code>", "/people": "/<str:platform>/<str:person>"}.get(word, "")
    base, entry = f"organizations/<str:org_id>/hours{word}", f"organizations/{{org}}/hours{word}"
    ROWS |= {
        (f"{base}{one}", "GET"): Row(entry + name, (200, 404, 404), "org"),
        (f"{base}{one}", "PUT"): Row(entry + name, (200, 404, 404), "org", lambda names: {"hours": OPEN_HOURS}),
        (f"{base}{one}", "DELETE"): Row(entry + name, (200, 404, 404), "org"),
    }
    if word:
        ROWS[base, "GET"] = Row(entry, (200, 404, 404), "org")
CHADBURN_JOB = {"name": "New", "schedule": "@daily", "command": "true"}
ROWS |= {
    ("chadburn/api/v1/jobs", "GET"): Row("chadburn/api/v1/jobs", (200, 200, 200)),
    ("chadburn/api/v1/jobs", "POST"): Row("chadburn/api/v1/jobs", (201, 201, 201), body=lambda names: CHADBURN_JOB),
}
for method, action, body in (
    ("GET", "", None),
    ("PUT", "", lambda names: {"name": "New"}),
    ("DELETE", "", None),
    ("POST", "/run", None),
    ("POST", "/pause", None),
    ("POST", "/resume", None),
    ("GET", "/executions", None),
):
    ROWS[f"chadburn/api/v1/jobs/<str:job_id>{action}", method] = Row(
        f"chadburn/api/v1/jobs/{{command}}{action}", (200, 404, 404), "id", body
    )
CHRONOS_JOB = {"name": "New", "schedule": "@daily", "webhook": {"url": HOOK}}
_jobs, _job = "chronos/api/v1/jobs", "chronos/api/v1/jobs/<str:job_id>"
ROWS |= {
    (_jobs, "GET"): Row(_jobs, (200, 200, 200)),
    (_jobs, "POST"): Row(_jobs, (201, 201, 201), body=lambda names: CHRONOS_JOB),
    ("chronos/api/v1/cluster/status", "GET"): Row("chronos/api/v1/cluster/status", (200, 200, 200)),
    (f"{_job}/executions/<str:execution_id>", "GET"): Row(
        f"{_jobs}/{{hook}}/executions/exec-{{hook_run}}", (200, 404, 404), "id"
    ),
    (f"{_job}/executions/<str:execution_id>/replay", "POST"): Row(
        f"{_jobs}/{{hook}}/executions/exec-{{hook_run}}/replay", (200, 404, 404), "id"
    ),
    (f"{_job}/versions/<str:number>", "GET"): Row(f"{_jobs}/{{hook}}/versions/1", (200, 404, 404), "id"),
    (f"{_job}/rollback/<str:number>", "POST"): Row(f"{_jobs}/{{hook}}/rollback/1", (200, 404, 404), "id"),
}
for method, action, body in (
    ("GET", "", None),
    ("PUT", "", lambda names: CHRONOS_JOB),
    ("DELETE", "", None),
    ("POST", "/trigger", None),
    ("POST", "/enable", None),
    ("POST", "/disable", None),
    ("GET", "/executions", None),
    ("GET", "/versions", None),
):
    ROWS[f"{_job}{action}", method] = Row(f"{_jobs}/{{hook}}{action}", (200, 404, 404), "id", body)
EXECUTR_JOB = {
    "type": "render",
    "binary_url": "https://example.com/binary",
    "binary_sha256": "ab" * 32,
    "priority": "background",
}
OF_EXECUTR = "executr/api/v1/jobs/<str:job_id>"


def _executr(**fields):
    return lambda names: {"executor_id": f"executor-of-{names['org']}", **fields}


ROWS |= {
    ("executr/api/v1/jobs", "GET"): Row("executr/api/v1/jobs", (200, 200, 200)),
    ("executr/api/v1/jobs", "POST"): Row("executr/api/v1/jobs", (201, 201, 201), body=lambda names: EXECUTR_JOB),
    ("executr/api/v1/jobs/bulk", "POST"): Row(
        "executr/api/v1/jobs/bulk", (201, 201, 201), body=lambda names: [EXECUTR_JOB]
    ),
    ("executr/api/v1/jobs/bulk/cancel", "POST"): Row(
        *("executr/api/v1/jobs/bulk/cancel", (200, 200, 200)),
        body=lambda names: {"job_ids": [names["held"]]},
        writes=False,
    ),
    ("executr/api/v1/jobs/claim", "POST"): Row(
        "executr/api/v1/jobs/claim", (200, 200, 200), body=_executr(executor_ip="h"), level="EXECUTE"
    ),
    (OF_EXECUTR, "GET"): Row("executr/api/v1/jobs/{held}", (200, 404, 404), "id"),
    (OF_EXECUTR, "DELETE"): Row("executr/api/v1/jobs/{held}", (400, 404, 404), "id", writes=False),
    (f"{OF_EXECUTR}/heartbeat", "PUT"): Row(
        "executr/api/v1/jobs/{held}/heartbeat", (204, 404, 404), "id", _executr(), level="EXECUTE", writes=False
    ),
    (f"{OF_EXECUTR}/complete", "PUT"): Row(
        "executr/api/v1/jobs/{held}/complete", (204, 404, 404), "id", _executr(), level="EXECUTE"
    ),
    (f"{OF_EXECUTR}/fail", "PUT"): Row(
        "executr/api/v1/jobs/{held}/fail", (204, 404, 404), "id", _executr(error_message="m"), level="EXECUTE"
    ),
    ("executr/api/v1/admin/stats", "GET"): Row("executr/api/v1/admin/stats", (200, 200, 200)),
    ("executr/api/v1/admin/executors", "GET"): Row("executr/api/v1/admin/executors", (200, 200, 200)),
    ("executr/api/v1/metrics", "GET"): Row("executr/api/v1/metrics", (200, 200, 200)),
}
_workspace, _jobs = "workspace/<str:workspace_id>/jobs", "workspace/{number}/jobs"
_of_people = {"by": "id", "is_for_people": True}


def _workspace_job(names):
    return {"job_type": "render", "workspace_id": int(names["number"])}


ROWS |= {
    ("jobs", "GET"): Row("jobs?workspace_id={number}", (200, 403, 403), **_of_people),
    (_workspace, "GET"): Row(_jobs, (200, 403, 403), **_of_people),
    (_workspace, "POST"): Row(_jobs, (201, 403, 403), **_of_people, body=_workspace_job),
}
for method, thing, action, body in (
    ("GET", "job", "", None),
    ("PATCH", "held", "", lambda names: {"progress_percent": 50}),
    ("GET", "job", "/status", None),
    ("GET", "job", "/result", None),
    ("POST", "job", "/cancel", None),
    ("POST", "ended", "/retry", None),
):
    ROWS[f"{_workspace}/<str:job_id>{action}", method] = Row(
        f"{_jobs}/{{{thing}}}{action}", (200, 404, 404), **_of_people, body=body
    )
# What is told in the audit as a reach for another organisation's thing: (`by` of the row, whose thing).
REACHES = {("org", "foreign"), ("org", "unknown"), ("id", "foreign")}
# Shows nothing of any organisation, or belongs to another door, with isolation tests of its own.
OPEN = ("chronos/health", "health/live", "health/ready", "metrics", "schema", "docs", "executr/api/v1/health")
OTHER_DOORS = ("admin/", "console/", "channels/slack/events", "channels/slack/interactions", "static/")
# Name no organisation, because they ask who a person is. Tokens count for nothing there: nobody learns who exists.
WITHOUT_ORG = {
    "auth/login": lambda names: {"username": names["person"], "password": "a wrong one"},
    "auth/refresh": lambda names: {"refresh_token": names["access_token"]},
}
PREFIXES = ("services/", "api/v0/services/", "")


def addresses(patterns=None, prefix=""):
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, getattr(pattern.callback, "cls", None)
        else:
            yield from addresses(pattern.url_patterns, route)


@cache
def native():
    """(address without its prefix, method) → the prefixes, of all that the URLconf serves and that is not open."""
    served = {}
    for route, view in addresses():
        if route in OPEN or route in WITHOUT_ORG or route.startswith(OTHER_DOORS):
            continue
        prefix = next(prefix for prefix in PREFIXES if route.startswith(prefix))
        assert view is not None, f"{route} is no view of REST framework: what does it show, and to whom?"
        for method in METHODS:
            if hasattr(view, method.lower()):
                served.setdefault((route.removeprefix(prefix), method), []).append(prefix)
    return served


def test_every_address_has_a_row():
    served = set(native())

    assert served - set(ROWS) == set(), "an address without a row: say what a stranger gets there"
    assert set(ROWS) - served == set(), "a row without an address"
    open_to_all = {route for route, view in addresses() if view and not view.authentication_classes}
    assert open_to_all - set(OPEN) == set(WITHOUT_ORG), "takes no credentials: say what it shows, and to whom"


# --- The world -------------------------------------------------------------------------------------------------
@dataclass
class World:
    """Everything of ours and of the stranger's, full of canaries; `names` of the things, by whose they are, and
    `theirs`: the ids that are the stranger's."""

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    theirs: set[str] = field(default_factory=set)
    clients: dict[str, factories.Api] = field(default_factory=dict)
    people: dict[str, factories.Api] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)


UNKNOWN = {
    "org": "unknown",
    "job": "01930000-0000-7000-8000-000000000000",
    "ended": "01930000-0000-7000-8000-000000000000",
    "task": "01930000-0000-7000-8000-000000000005",
    "parked": "01930000-0000-7000-8000-000000000001",
    "approval": "01930000-0000-7000-8000-000000000002",
    "held": "01930000-0000-7000-8000-000000000008",
    "token": "ajt_live_0000000",
    "endpoint": "01930000-0000-7000-8000-000000000003",
    "delivery": "01930000-0000-7000-8000-000000000004",
    "schedule": "01930000-0000-4000-8000-000000000003",
    "command": "01930000-0000-4000-8000-000000000004",
    "hook": "01930000-0000-4000-8000-000000000005",
    "hook_run": "01930000-0000-4000-8000-000000000006",
    "code": "nobodys",
    "team": "T0NOBODY",
    "number": "999999",
    "person": "nobody",
    "access_token": "ey.no.token",
}


OF_WORLD = {
    "COMMAND_RUNNER": "trusted",
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],  # a real one takes half a second
    "STREAM_SECONDS": 0,  # streams tell what there is, and end
}


def populate(org_id, code, team):
    """Names are the same in both organisations where they can be; every text that may be shown is a canary."""
    canary = f"canary-{org_id}"
    Org.objects.create(pk=org_id, name=canary, allows_commands=True)
    rows.job_type(org_id, name=canary, description=canary, params_schema={"title": canary}, tags=[canary])
    Profile.objects.create(org_id=org_id, key="greet", name=canary, instructions=canary, tags=[canary])
    job = rows.job(
        JobStatus.RUNNING,
        org_id=org_id,
        params={"name": canary},
        prompt=canary,
        result=canary,
        result_data={"a": canary},
        tags=[canary],
        channel_data={"a": canary},
        channel_type=canary,
        thread=canary,
        error_message=canary,
        config={"start_prompt": canary},
    )
    Message.objects.create(job=job, is_human=True, author=canary, text=canary)
    ended = rows.job(JobStatus.FAILED, org_id=org_id, params={"name": canary}, prompt=canary, result=canary)
    task = Task.objects.create(job=ended, number=1, lease_token=1, result=canary, report={"stdout": canary})
    parked = rows.parked(org_id, params={"name": canary})
    asked = {"question": canary, "arguments": {"a": canary}, "tool": canary, "reason": canary}
    approval = rows.approval(parked, **asked)
    factories.activity(job, note=canary, input={"a": canary}, output={"a": canary}, actor=canary)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    JobTally.objects.create(org_id=org_id, span="hour", start_at=hour, kind="type", key=canary, number=7)
    PlaceHours.objects.create(org_id=org_id, kind="person", platform="web", name=canary, hours={"a": canary})
    of_job = {"org_id": org_id, "job": job}
    told = {"input": {"a": canary}, "output": {"a": canary}}
    step = Step.objects.create(**of_job, life=0, number=1, turn=0, kind="tool", name=canary, **told)
    asked = {"question": canary, "arguments": {"a": canary}, "expires_at": datetime.now(UTC)}
    Approval.objects.create(**of_job, step=step, tool=canary, **asked)
    directory.register_channel(org_id, platform="webhook", code=code, address=f"{HOOK}/{canary}", name=canary)
    directory.register_channel(org_id, platform="webhook", code="shared", address=f"{HOOK}/{canary}", name=canary)
    directory.install_slack(org_id, team_id=team, bot_token=f"xoxb-{canary}", signing_secret=canary, name=canary)
    tool_secrets.store(org_id, code, f"{canary}-secret", hosts=["example.com"], actor=Actor("user", canary, canary))
    model_keys.put_key(org_id, "openai", key=f"sk-{canary}", base_url=f"{HOOK}/{canary}", actor=Actor("user", canary))
    zone = {"acme": "Europe/Berlin", "rival": "Pacific/Apia"}[org_id]
    for place in (Place(), Place("channel", "web", "shared"), Place("person", "web", "shared")):
        stated_hours.put(org_id, place, {"time_zone": zone, "quiet": []}, actor=Actor("user", canary, canary))
    for place in (code, "shared"):
        web_messages.say(org_id, "webhook", place, text=canary, author=canary)
    Org.objects.filter(pk=org_id).update(max_tokens_per_day=10**9)
    usage = {"job_id": job.pk, "job_type_key": canary, "config": {}, "input_tokens": 100, "max_output_tokens": 100}
    rows.reserved(org_id=org_id, model=canary, **usage).settle(llm.Usage(7, 7))
    audit_log.record(org_id, "thing.done", canary, actor=Actor("user", canary, canary), after={"a": canary})
    schedule = editing.create(
        org_id,
        {**_stored_schedule(org_id), "name": canary, "annotations": {"a": canary}},
        actor=Actor("user", canary, canary),
    )
    requested_runs.run_now(org_id, schedule.pk, actor=Actor("user", canary, canary))
    rows.job_type(org_id, "command", runner="command", default_config={})
    command = editing.create(
        org_id,
        {"name": canary, "cron": "@daily", "job": {"job_type_id": "command", "work": {"shell": canary}}},
        actor=Actor("user", canary),
    )
    requested_runs.run_now(org_id, command.pk, actor=Actor("user", canary))
    rows.job_type(org_id, "hook", runner="webhook", default_config={})
    work = {"url": HOOK, "body": canary}
    hook = editing.create(
        org_id, {"name": canary, "cron": "@daily", "job": {"job_type_id": "hook", "work": work}}, actor=rows.TESTER
    )
    of_hook = {"runner": "webhook", "lane": "webhooks", "job_type_key": "hook", "platform": "", "channel_code": ""}
    hook_run = rows.job(JobStatus.FAILED, org_id, **of_hook, work=work, schedule_id=hook.pk, prompt="")
    endpoint, _ = endpoints.create(
        org_id, url=f"{HOOK}/{canary}", description=canary, actor=Actor("user", canary, canary)
    )
    delivery = endpoints.send_test(org_id, endpoint.pk, actor=Actor("user", canary))
    external = {"org_id": org_id, "runner": "external", "lane": "external", "placement": "binary\x1fgreet"}
    rows.job(**external, params={"name": canary})
    held = rows.job(
        JobStatus.RUNNING,
        **external,
        executor_id=f"executor-of-{org_id}",
        progress_message=canary,
        work={"type": canary},
    )
    Task.objects.create(job=held, number=1, lease_token=1, executor_id=f"executor-of-{org_id}", executor_address=canary)
    Executor.objects.create(org_id=org_id, executor_id=f"executor-of-{org_id}", address=canary, labels=[canary])
    plain = factories.token(org_id, app=canary)
    made = {"job": job, "ended": ended, "parked": parked, "approval": approval, "held": held}
    made |= {"task": task, "endpoint": endpoint, "delivery": delivery, "schedule": schedule, "command": command}
    made |= {"hook": hook, "hook_run": hook_run}
    ids = {name: str(row.pk) for name, row in made.items()}
    number = str(Org.objects.get(pk=org_id).number)
    user = person(f"person-of-{org_id}", org_id)
    access = login_tokens.issue(user, login_tokens.ACCESS, now=datetime.now(UTC))
    of_person = {"number": number, "person": user.username, "access_token": access}
    return {"org": org_id, **ids, "token": plain[:16], "code": code, "team": team, **of_person}, plain


@pytest.fixture(scope="module")
def all_things(django_db_setup, django_db_blocker):
    """Made once, and committed: the server's oldest transaction holds up what other processes test."""
    with django_db_blocker.unblock(), override_settings(**OF_WORLD):
        try:
            yield made_world()
        finally:
            emptying.empty()


def made_world():
    world = World(names={"unknown": UNKNOWN})
    for whose, org_id, code, team in (
        ("own", "acme", "ours", "T0OURS"),
        ("foreign", "rival", "theirs", "T0THEIRS"),
    ):
        world.names[whose], plain = populate(org_id, code, team)
        world.secrets += [plain, f"xoxb-canary-{org_id}", f"canary-{org_id}-secret", f"sk-canary-{org_id}"]
    for role in ROLES:
        plain = None if role == "none" else factories.token("acme", f"SERVICES:{role}")
        world.clients[role] = factories.Api(plain)
        world.secrets += [plain] if plain else []
    signed = {"READ": signed_in("bob", "member"), "ADMIN": signed_in("ann", "admin")}
    world.people = {"none": factories.Api(None), **signed}
    world.theirs = ids_of("rival", world.names["foreign"])
    return world


@pytest.fixture
def world(all_things, db, settings, monkeypatch):
    monkeypatch.setattr("agent_jobs.dialects.chronos.chronos_views.TRIGGER_SECONDS", 0)
    for name, value in OF_WORLD.items():
        setattr(settings, name, value)
    return all_things


def tables():
    """(model, the way from its rows to their organisation), of every table that belongs to organisations."""
    yield Org, "id"
    ways = {"org_id": "org_id", "job_id": "job__org_id", "channel_id": "channel__org_id"}
    for app in ("agent_jobs", "channels_integration"):
        for model in apps.get_app_config(app).get_models():
            columns = {column.attname for column in model._meta.concrete_fields}
            if way := next((path for column, path in ways.items() if column in columns), None):
                yield model, way


def all_of(org_id):
    """Every row of every table that belongs to the organisation, by the table's model."""
    return {
        model.__name__: list(model._default_manager.filter(**{way: org_id}).order_by("pk").values())
        for model, way in tables()
    }


@cache
def _texts():
    """One statement for all these rows, as texts."""
    parts = []
    for model, way in tables():
        table, (column, _, _) = model._meta.db_table, way.partition("__")
        if "__" in way:
            related = model._meta.get_field(column).related_model._meta.db_table
            chosen = f"{column}_id IN (SELECT id FROM {related} WHERE org_id = %(org_id)s)"
        else:
            chosen = f"{column} = %(org_id)s"
        parts.append(f"SELECT '{table}', array_agg(t::text ORDER BY t::text) FROM {table} t WHERE {chosen}")
    return " UNION ALL ".join(parts)


def ids_of(org_id, names):
    """Ids of an organisation's things that no answer to another may hold."""
    held = all_of(org_id)
    found = {
        str(line.get("key", line["id"]))
        for name in ("Activity", "Approval", "Message", "Channel", "Installation", "WebMessage", "WebhookDelivery")
        for line in held[name]
    }
    made = ("job", "ended", "parked", "held", "token", "endpoint", "delivery")
    return found | {names[name] for name in made}


def texts_of(org_id):
    """As `all_of`, to be compared: a fortieth of the queries, planned once."""
    return dict(prepared_sql.all_rows(_texts(), {"org_id": org_id}))


def test_the_walk_looks_at_every_table_that_holds_something_of_an_organisation(world):
    held = all_of("rival")

    empty = {name for name, found in held.items() if not found}
    of_runs = {"Approval", "Step", "Task"}
    assert empty <= of_runs | {"Membership", "SavedView", "IdempotencyKey", "AuditSeal", "OutboundMessage", "Lane"}
    assert "UsageDay" in held
    assert {"Job", "Activity", "AppToken", "Channel", "Installation", "WebMessage", "AuditEntry", "Org"} <= set(held)
    assert "ModelKey" in held


def is_let_in(row, method, role):
    level = row.level or ("READ" if method == "GET" else "WRITE")
    return role != "none" and level in IMPLIED[role]


def stripped(response, names):
    """The answer without its request's id, and with the asked-for names as one and the same."""
    text = json.dumps({**response.json(), "meta": None})
    for name in sorted(names.values(), key=len, reverse=True):
        if not name.isdigit():  # a number may be part of anything
            text = text.replace(name, "X")
    return text


# --- The walk --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("address", "method"), sorted(ROWS), ids=lambda value: value)
def test_nobody_gets_or_changes_what_is_the_strangers(world, caplog, address, method):
    row = ROWS[address, method]
    before = texts_of("rival")
    caplog.set_level(logging.DEBUG)
    caplog.clear()

    for prefix in native()[address, method]:
        for role in world.people if row.is_for_people else ROLES:
            answers = {}
            for whose in world.names:
                with transaction.atomic():  # each for itself: a second reach within the hour leaves no entry
                    answers[whose] = ask(world, prefix, row, method, role, whose)
                    assert texts_of("rival") == before, "something of the stranger's was changed"
                    transaction.set_rollback(True)

            for whose, response in answers.items():
                assert not {
                    name for name in world.theirs - set(world.names[whose].values()) if name in text_of(response)
                }
            foreign, unknown = answers["foreign"], answers["unknown"]
            if foreign.status_code == unknown.status_code >= 400:
                told = [stripped(answers[whose], world.names[whose]) for whose in ("foreign", "unknown")]
                assert told[0] == told[1], "what exists can be told from what does not"
    logged = caplog.text + str([record.__dict__ for record in caplog.records])
    assert "canary-rival" not in logged
    assert not [secret[:20] for secret in world.secrets if secret in logged]


def text_of(response):
    """A stream can be read only once."""
    if not hasattr(response, "text_that_was_read"):
        response.text_that_was_read = response.getvalue().decode()
    return response.text_that_was_read


def code_of(response):
    """The code of a refusal. Dialects have it elsewhere."""
    told = response.json()
    if "detail" in told:
        return {401: "unauthorized", 403: "forbidden"}[response.status_code]
    return str(told.get("code") or (told.get("context") or told["error"])["code"])


def ask(world, prefix, row, method, role, whose):
    """One request, its status, and what it leaves in the audit: for writes and for reaches, in our own alone."""
    names = world.names[whose]
    request_id = f"asked-for-{whose}"  # of all roles, so that the stranger repeats it once (`tests/replay.py`)
    clients = world.people if row.is_for_people else world.clients
    response = clients[role].send(
        method, f"/{prefix}{row.path.format(**names)}", row.body(names) if row.body else None, X_Request_ID=request_id
    )
    may = is_let_in(row, method, role)
    if row.is_for_people and whose != "own":
        may = role != "none"  # a role counts in a workspace of one's own only
    status = row.statuses[("own", "foreign", "unknown").index(whose)] if may else 401 if role == "none" else 403
    text = text_of(response)
    assert response.status_code == status, text
    assert "canary-rival" not in text
    assert "Pacific/Apia" not in text
    assert may or code_of(response).lower() in {"unauthenticated", "insufficient_scope", "unauthorized", "forbidden"}
    left = list(AuditEntry.objects.filter(request_id=request_id).values_list("org_id", "action"))
    # An answer that is the same for what does not exist leaves the same entry, too.
    is_reach = may and (
        (row.by, whose) in REACHES or (row.by == "id" and whose == "unknown" and row.statuses[1] == row.statuses[2])
    )
    is_write = row.writes and method != "GET" and status < 300
    assert {org_id for org_id, _ in left} == ({"acme"} if is_write or is_reach else set()), "promise I18"
    assert (("acme", "access.denied") in left) == is_reach
    return response


def test_a_method_that_is_not_served_is_refused_to_everybody(world):
    served = native()
    for address, prefixes in {address: found for (address, _), found in served.items()}.items():
        path = address.replace("<str:org_id>", "acme").replace("<str:", "x").replace(">", "")
        for method in METHODS:
            if (address, method) not in served:
                at = f"/{prefixes[0]}{path}"
                asking = world.people if address.startswith(("jobs", "workspace/")) else world.clients
                assert asking["ADMIN"].send(method, at).status_code == 405, (method, at)
                assert world.clients["none"].send(method, at).status_code == 401, (method, at)


@pytest.mark.parametrize("address", sorted(WITHOUT_ORG))
def test_who_a_person_is_can_be_told_by_nobody_else(world, address):
    before = texts_of("rival")
    answers = []
    for role in ROLES:
        for whose in world.names:
            with transaction.atomic():  # each for itself: wrong tries are counted
                answer = world.clients[role].post(f"/{address}", WITHOUT_ORG[address](world.names[whose]))
                answers.append((answer.status_code, answer.json()))
                assert texts_of("rival") == before
                transaction.set_rollback(True)

    assert answers == [answers[0]] * len(answers)
    assert answers[0][0] == 401
    methods = {method for method in METHODS if world.clients["ADMIN"].send(method, f"/{address}").status_code != 405}
    assert methods == {"POST"}


def test_open_pages_show_nothing_of_anybody(world, client, settings):
    settings.METRICS_TOKEN = "m3trics"
    for page in OPEN:
        response = client.get(f"/{page}", headers={"Authorization": "Bearer m3trics"} if page == "metrics" else {})

        assert response.status_code in {200, 503}
        assert "canary" not in response.content.decode()


# --- Lists -----------------------------------------------------------------------------------------------------
def test_lists_hold_only_what_is_ours(world):
    for path in (
        "agent-jobs?include=activities,stats",
        "approvals",
        "activities",
        "organizations/acme/agent-jobs-type",
        "organizations/acme/profiles",
        "app-tokens",
        "executors",
        "agent-schedules",
        "webhook-endpoints",
        "channels",
        "channels/slack/installations",
        "organizations/acme/model-keys",
        "audit?action=thing.done",
    ):
        body = world.clients["ADMIN"].get(f"/services/{path}").json()
        assert body["meta"]["total"] == len(body["data"]) > 0, path
        assert {entry["org_id"] for entry in body["data"]} == {"acme"}
        assert "canary-acme" in json.dumps(body)


def test_a_channel_of_the_same_name_holds_only_our_words(world):
    body = world.clients["READ"].get("/services/channels/webhook/shared/messages").json()

    assert [message["text"] for message in body["data"]] == ["canary-acme"]
