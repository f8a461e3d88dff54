"""Chronos' document: every endpoint, example, default and error, and the cases that it leaves open."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import resolve

from agent_jobs import sealed_work
from agent_jobs.dialects.chronos import chronos_views
from agent_jobs.models import DutyRun, Job, JobType, Schedule
from agent_jobs.schedules import firing
from infra import database
from tests import factories, open_answers
from tests.dialects import documented
from tests.dialects.conftest import Door, work
from tests.fakes.webhook import FakeReceiver
from tests.schedules.conftest import due

pytestmark = pytest.mark.django_db
MOUNT = "/chronos"
ENDPOINTS = documented.endpoints("chronos.md")
EXAMPLES = {(one.method, one.route.removeprefix("/api/v1")): one.examples for one in ENDPOINTS}
CREATE = EXAMPLES["POST", "/jobs"][0]
OPTIONAL = ("description", "timezone", "retry_policy", "timeout", "concurrency", "tags", "enabled")
# The replay by a stranger takes the plain type, which every answer has, for a text of ours.
HEADERS = {**CREATE["webhook"]["headers"], "Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
def door(acme: factories.Api) -> Door:
    return Door(acme, f"{MOUNT}/api/v1")


def body(**fields: Any) -> dict[str, Any]:
    whole = {"name": "a", "schedule": "@daily", "webhook": {"url": "http://127.0.0.1:9/in"}, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def make(door: Door, **fields: Any) -> str:
    answer = door.post("/jobs", body(**fields))
    assert answer.status_code == 201, answer.content
    return str(answer.json()["data"]["id"])


def data(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.content
    told = answer.json()
    assert (set(told), told["success"], told["error"]) == ({"success", "data", "error"}, True, None)
    return told["data"]


def error(answer: Any, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.content
    told = answer.json()
    assert (told["success"], told["data"]) == (False, None)
    return told["error"]["code"], told["error"]["message"]


def trigger(door: Door, job: str, *, serves: bool = True) -> Any:
    """A trigger, while a worker performs the job or while none does."""
    seconds = mock.patch.object(chronos_views, "TRIGGER_SECONDS", 25.0 if serves else 0.0)
    with seconds, mock.patch.object(open_answers, "pause", side_effect=lambda: work("webhooks")):
        return door.post(f"/jobs/{job}/trigger")


# --- The document ----------------------------------------------------------------------------------------------
def test_the_document_has_sixteen_endpoints() -> None:
    assert len(ENDPOINTS) == 16


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_every_path_of_the_document_is_served(endpoint: documented.Endpoint) -> None:
    path = endpoint.route
    for name, value in {"{id}": str(uuid4()), "{execId}": f"exec-{uuid4()}", "{version}": "1"}.items():
        path = path.replace(name, value)
    assert hasattr(resolve(f"{MOUNT}{path}").func.cls, endpoint.method.lower())


def test_every_example_of_the_document_is_answered_as_documented(door: Door, receiver: FakeReceiver) -> None:
    made = door.post("/jobs", {**CREATE, "webhook": {**CREATE["webhook"], "url": receiver.address, "headers": HEADERS}})
    job = data(made, 201)
    for key in ("name", "description", "schedule", "timezone", "retry_policy", "timeout", "concurrency", "tags"):
        assert job[key] == CREATE[key], key
    assert job["webhook"]["success_codes"] == [200, 201, 202]
    assert job["webhook"]["body"] == CREATE["webhook"]["body"]
    assert job["webhook"]["auth"] == {"type": "bearer", "token": "******"}
    assert job["webhook"]["headers"] == {**HEADERS, "Authorization": "******"}
    assert job["enabled"] is True
    path = f"/jobs/{job['id']}"

    def compare(method: str, at: str, answer: Any) -> Any:
        found = data(answer)
        assert documented.differences(EXAMPLES[method, at][0], answer.json()) == []
        return found

    compare("GET", "/jobs", door.get("/jobs"))
    ran = compare("POST", "/jobs/{id}/trigger", trigger(door, job["id"]))
    assert (ran["status"], ran["attempts"], ran["status_code"]) == ("success", 1, 200)
    (sent,) = receiver.received
    headers = {name.lower(): value for name, value in sent.headers.items()}
    assert (headers["authorization"], headers["x-chronos-job-id"]) == ("Bearer my-secret-token", job["id"])
    assert (headers["x-chronos-execution-id"], headers["x-chronos-attempt"]) == (ran["id"].removeprefix("exec-"), "1")
    assert sent.body.decode() == CREATE["webhook"]["body"]
    compare("GET", "/jobs/{id}/executions", door.get(f"{path}/executions?limit=20"))
    assert data(door.get(f"{path}/executions/{ran['id']}")) == ran
    replayed = compare(
        "POST", "/jobs/{id}/executions/{execId}/replay", door.post(f"{path}/executions/{ran['id']}/replay")
    )
    assert replayed["original_execution_id"] == ran["id"]
    assert work("webhooks") == 1
    assert len(receiver.received) == 2
    again = data(door.get(f"{path}/executions/{replayed['replay_execution_id']}"))
    assert (again["status"], again["replay_of"]) == ("success", ran["id"])
    data(door.put(path, {**CREATE, "webhook": {"url": receiver.address}, "description": "other"}))
    assert (
        documented.differences({**EXAMPLES["GET", "/jobs/{id}/versions"][0]}, door.get(f"{path}/versions").json()) == []
    )
    assert [one["version"] for one in data(door.get(f"{path}/versions"))] == [2, 1]
    rolled = compare("POST", "/jobs/{id}/rollback/{version}", door.post(f"{path}/rollback/1"))
    assert (rolled["rolled_back_from"], rolled["new_version"], rolled["job"]["description"]) == (
        1,
        3,
        CREATE["description"],
    )
    compare("GET", "/cluster/status", door.get("/cluster/status"))
    health = Client().get(f"{MOUNT}/health")
    assert documented.differences(EXAMPLES["GET", "/health"][0], health.json()) == []
    assert data(door.delete(path)) == {"id": job["id"]}
    for gone in ("", "/versions", "/executions"):
        assert error(door.get(f"{path}{gone}"), 404)[0] == "NOT_FOUND"


@pytest.mark.parametrize("stated", [{}, dict.fromkeys(OPTIONAL)], ids=["left out", "null"])
def test_the_defaults_are_those_of_the_document(door: Door, stated: dict[str, None]) -> None:
    job = data(door.get(f"/jobs/{make(door, **stated)}"))
    expected = {
        "description": "",
        "timezone": "UTC",
        "timeout": "5m",
        "concurrency": "forbid",
        "tags": {},
        "enabled": False,
        "next_run": None,
        "retry_policy": {"max_attempts": 3, "initial_interval": "1s", "max_interval": "1m", "multiplier": 2.0},
        "webhook": {"url": "http://127.0.0.1:9/in", "method": "GET"},
    }
    assert {key: job[key] for key in expected} == expected


def test_what_is_not_there_has_the_name_of_the_document(door: Door) -> None:
    job = make(door)
    assert error(door.get("/jobs/one"), 404)[1] == "there is no job 'one'"
    assert error(door.get(f"/jobs/{job}/executions/one"), 404)[1] == "there is no execution 'one'"


# --- Requests --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"webhook": ...}, "VALIDATION_ERROR", "webhook"),
        ({"name": ..., "schedule": ..., "webhook": ..., "jobs": []}, "VALIDATION_ERROR", "name"),
        ({"webhook": {}}, "VALIDATION_ERROR", "webhook.url"),
        ({"webhook": {"url": "ftp://x.example/"}}, "VALIDATION_ERROR", "webhook.url"),
        ({"webhook": {"url": "http://x.example/", "method": "BREW"}}, "VALIDATION_ERROR", "webhook.method"),
        ({"webhook": {"url": "http://x.example/", "auth": {"type": "digest"}}}, "VALIDATION_ERROR", "webhook.auth"),
        ({"webhook": {"url": "http://x.example/", "auth": {"type": "api_key"}}}, "VALIDATION_ERROR", "webhook.auth"),
        ({"webhook": {"url": "http://x.example/", "headers": {"A": 1}}}, "VALIDATION_ERROR", "webhook.headers"),
        ({"webhook": {"url": "http://x.example/", "headers": {"Cookie": "******"}}}, "VALIDATION_ERROR", "webhook"),
        ({"webhook": {"url": "http://x.example/", "success_codes": [1]}}, "VALIDATION_ERROR", "webhook.success"),
        ({"timeout": "5 minutes"}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": ""}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": "5"}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": "1d"}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": "0"}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": "-5m"}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": 300}, "INVALID_TIMEOUT", "timeout"),
        ({"timeout": True}, "INVALID_TIMEOUT", "timeout"),
        ({"retry_policy": {"initial_interval": "x"}}, "VALIDATION_ERROR", "retry_policy"),
        ({"retry_policy": {"max_attempts": 0}}, "VALIDATION_ERROR", "retry_policy"),
        ({"retry_policy": {"multiplier": 0.5}}, "VALIDATION_ERROR", "retry_policy"),
        ({"concurrency": "maybe"}, "VALIDATION_ERROR", "concurrency"),
        ({"timezone": "Mars/Olympus"}, "VALIDATION_ERROR", "timezone"),
        ({"schedule": "0 0 31 2 *"}, "VALIDATION_ERROR", "schedule"),
        ({"schedule": "nonsense"}, "VALIDATION_ERROR", "schedule"),
        ({"tags": ["a"]}, "VALIDATION_ERROR", "tags"),
        ({"enabled": "yes"}, "VALIDATION_ERROR", "enabled"),
        ({"name": "x" * 256}, "VALIDATION_ERROR", "name"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_stored(
    door: Door, fields: dict[str, Any], code: str, field: str
) -> None:
    told, message = error(door.post("/jobs", body(**fields)))
    assert told == code, message
    assert field in message
    assert not Schedule.objects.exists()
    assert not JobType.objects.exists()


@pytest.mark.parametrize("raw", [b"", b"[", b"[]", b"1", b'{"timeout": NaN}'])
def test_what_is_no_json_object_is_invalid_json(door: Door, raw: bytes) -> None:
    assert error(door.post("/jobs", raw=raw))[0] == "INVALID_JSON"


def test_texts_are_shown_as_they_came_and_held_as_they_say(door: Door) -> None:
    policy = {"initial_interval": 1_500_000_000, "max_interval": "2m0s", "max_attempts": 5}
    fields = {"timeout": "1m30s", "retry_policy": policy, "concurrency_policy": "allow", "tags": {"a=b": "c", "d": ""}}
    job = make(door, **fields, enabled=True)
    shown = data(door.get(f"/jobs/{job}"))
    expected = {"max_attempts": 5, "initial_interval": "1.5s", "max_interval": "2m0s", "multiplier": 2.0}
    assert (shown["timeout"], shown["retry_policy"], shown["concurrency"]) == ("1m30s", expected, "allow")
    assert shown["tags"] == {"a=b": "c", "d": ""}
    config = Schedule.objects.get().definition["job"]["config"]
    assert config["attempt_timeout_seconds"] == 90
    assert config["retry_policy"]["initial_interval_seconds"] == 1.5


def test_a_body_is_no_template(door: Door, receiver: FakeReceiver) -> None:
    job = make(door, webhook={"url": receiver.address, "method": "POST", "body": "{{ user }} {% x %}"})
    assert data(trigger(door, job))["status"] == "success"
    assert receiver.received[0].body == b"{{ user }} {% x %}"


def test_put_replaces_but_keeps_secrets_tags_and_codes(door: Door) -> None:
    webhook = {
        "url": "http://127.0.0.1:9/in",
        "auth": {"type": "api_key", "api_key": "secret-key"},
        "success_codes": [204],
    }
    job = make(door, webhook=webhook, tags={"a": "b"}, timeout="9s", enabled=True)
    same = data(door.put(f"/jobs/{job}", body(webhook={"url": "http://127.0.0.1:9/other"})))
    assert same["webhook"]["auth"] == {"type": "api_key", "api_key": "******"}
    assert (same["webhook"]["success_codes"], same["tags"], same["enabled"]) == ([204], {"a": "b"}, True)
    assert same["timeout"] == "5m"
    assert list(sealed_work.secrets_of(Schedule.objects.get()).values()) == ["secret-key"]
    stolen = body(webhook={"url": "http://127.0.0.1:10/thief"})
    assert error(door.put(f"/jobs/{job}", stolen))[0] == "VALIDATION_ERROR"
    cleared = body(webhook={"url": "http://127.0.0.1:9/in", "auth": None, "success_codes": None}, tags=None)
    after = data(door.put(f"/jobs/{job}", cleared))
    assert (after["webhook"].keys() & {"auth", "success_codes"}, after["tags"]) == (set(), {})
    assert error(door.put(f"/jobs/{uuid4()}", raw=b"{"), 404)[0] == "NOT_FOUND"


# --- Running ---------------------------------------------------------------------------------------------------
def test_a_refused_port_is_a_failed_execution(door: Door) -> None:
    job = make(door, retry_policy={"max_attempts": 1})
    ran = data(trigger(door, job))
    assert (ran["status"], ran["status_code"]) == ("failed", None)
    assert ran["error"] == "cannot connect: Connection refused"


def test_one_that_takes_longer_is_running(door: Door) -> None:
    job = make(door)
    ran = data(trigger(door, job, serves=False))
    assert (ran["status"], ran["completed_at"]) == ("running", None)
    assert "duration" not in ran


def test_a_run_that_cannot_be_recorded_is_an_execution_error(door: Door) -> None:
    job = make(door)
    JobType.objects.update(active=False)
    assert error(door.post(f"/jobs/{job}/trigger"), 500)[0] == "EXECUTION_ERROR"
    assert not Job.objects.exists()


def test_a_second_run_under_forbid_is_skipped_and_listed(door: Door) -> None:
    job = make(door)
    first = data(trigger(door, job, serves=False))
    second = data(door.post(f"/jobs/{job}/trigger"))
    assert (second["status"], second["attempts"], second["started_at"]) == ("skipped", 0, second["scheduled_time"])
    listed = data(door.get(f"/jobs/{job}/executions"))
    assert [one["id"] for one in listed["executions"]] == [second["id"], first["id"]]
    assert listed["total"] == 2
    for path in (second["id"], second["id"].removeprefix("exec-")):
        assert data(door.get(f"/jobs/{job}/executions/{path}"))["status"] == "skipped"
    for one in (first, second):
        assert error(door.post(f"/jobs/{job}/executions/{one['id']}/replay"))[0] == "VALIDATION_ERROR"


def test_a_replaced_run_fails_and_says_so(door: Door) -> None:
    job = make(door, concurrency="replace", enabled=True)
    for seconds in (9, 1):
        due(job, ago=timedelta(seconds=seconds))
        firing.fire_due()
    newest, oldest = data(door.get(f"/jobs/{job}/executions"))["executions"]
    assert (newest["status"], oldest["status"]) == ("pending", "failed")
    assert "replaced" in oldest["error"]


def test_ids_are_random_and_prefixed(door: Door) -> None:
    job = make(door, concurrency="allow")
    ids = {data(trigger(door, job, serves=False))["id"] for _ in range(4)}
    assert all(one.startswith("exec-") for one in ids)
    assert len({one[:8] for one in ids}) > 1
    other = make(door)
    assert error(door.get(f"/jobs/{other}/executions/{ids.pop()}"), 404)[0] == "NOT_FOUND"


@pytest.mark.parametrize(("limit", "count"), [("0", 3), ("101", 3), ("x", 3), ("2", 2), ("", 3)])
def test_limits_of_executions_are_forgiving(door: Door, limit: str, count: int) -> None:
    job = make(door, concurrency="allow")
    for _ in range(3):
        trigger(door, job, serves=False)
    assert len(data(door.get(f"/jobs/{job}/executions?limit={limit}"))["executions"]) == count


def test_none_is_an_empty_list(door: Door) -> None:
    assert data(door.get("/jobs")) == {"jobs": [], "total": 0}
    assert data(door.get(f"/jobs/{make(door)}/executions")) == {"executions": [], "total": 0}
    assert [one["version"] for one in data(door.get(f"/jobs/{Schedule.objects.get().pk}/versions"))] == [1]


# --- Enabling, versions, cluster -------------------------------------------------------------------------------
def test_enabling_twice_makes_one_version_and_no_catching_up(door: Door) -> None:
    job = make(door, schedule="@hourly")
    Schedule.objects.update(created_at=datetime.now(UTC) - timedelta(days=3))
    enabled = [data(door.post(f"/jobs/{job}/enable")) for _ in range(2)]
    assert [one["version"] for one in enabled] == [2, 2]
    assert enabled[0]["enabled"] is True
    assert firing.fire_due() == 0
    disabled = [data(door.post(f"/jobs/{job}/disable")) for _ in range(2)]
    assert [(one["enabled"], one["next_run"]) for one in disabled] == [(False, None)] * 2
    for action in ("enable", "disable", "trigger"):
        assert error(door.post(f"/jobs/{uuid4()}/{action}"), 404)[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("number", "status"), [("0", 404), ("-1", 404), ("99", 404), ("abc", 400), ("--1", 400), ("-", 400)]
)
def test_versions_that_are_none(door: Door, number: str, status: int) -> None:
    job = make(door)
    code = {404: "NOT_FOUND", 400: "VALIDATION_ERROR"}[status]
    assert error(door.get(f"/jobs/{job}/versions/{number}"), status)[0] == code
    assert error(door.post(f"/jobs/{job}/rollback/{number}"), status)[0] == code


def test_versions_are_in_order_and_masked(door: Door) -> None:
    job = make(door, webhook={"url": "http://127.0.0.1:9/in", "auth": {"type": "bearer", "token": "one-secret"}})
    for number in range(11):
        data(door.put(f"/jobs/{job}", body(name=f"n{number}")))
    found = data(door.get(f"/jobs/{job}/versions"))
    assert [one["version"] for one in found] == list(range(12, 0, -1))
    assert "one-secret" not in str(found)
    assert data(door.post(f"/jobs/{job}/rollback/12"))["new_version"] == 13


def test_the_cluster_is_led_while_beat_rings(door: Door) -> None:
    assert data(door.get("/cluster/status")) == {"is_leader": False, "jobs_total": 0, "running": 0, "next_runs": []}
    job = make(door, enabled=True)
    DutyRun.objects.update_or_create(duty=DutyRun.BELL, defaults={"done_at": datetime.now(UTC)})
    status = data(door.get("/cluster/status"))
    assert (status["is_leader"], status["jobs_total"], status["next_runs"][0]["job_id"]) == (True, 1, job)


def test_health_is_open_and_tells_of_an_outage(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data(Client().get("/chronos/health"))["status"] == "healthy"
    head = Client().head("/chronos/health")
    assert (head.status_code, head.content) == (200, b"")

    def away() -> None:
        raise OperationalError("connection to server failed: the server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(database, "now", away)
        assert error(Client().get("/chronos/health"), 503)[0] == "STORE_ERROR"


def test_what_is_made_here_is_seen_filtered_and_canceled_natively(door: Door, acme: factories.Api) -> None:
    job = make(door, name="here")
    run = data(trigger(door, job, serves=False))["id"].removeprefix("exec-")
    (seen,) = acme.get("/services/agent-jobs?job_type_id=chronos-webhook").json()["data"]
    assert seen["id"] == run
    assert acme.delete(f"/services/agent-jobs/{run}").status_code == 200
    (shown,) = data(door.get(f"/jobs/{job}/executions"))["executions"]
    assert shown["status"] == "failed"
    assert "CANCELED" in shown["error"]
    assert "chadburn" not in str(data(door.get("/jobs")))
