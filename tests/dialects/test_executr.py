"""Executr's API: every example of its document, its errors, filters and defaults, and what real clients need."""

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from django.db.models import F
from django.urls import resolve

from agent_jobs.duties import recovery
from agent_jobs.lifecycle import queue_order
from agent_jobs.models import Executor, Job
from agent_jobs.reads import pages, service_state
from tests import factories, rows
from tests.races import in_threads

pytestmark = pytest.mark.django_db
BASE = "/executr/api/v1"
NATIVE = "/services/agent-jobs"
DOCUMENT = Path(__file__).parent / "documents" / "executr.md"
SHA = "ab" * 32
NOBODY = "550e8400-e29b-41d4-a716-446655440000"
# The document's example with a hash that is one: "abc123..." is none.
SUBMIT = {
    "type": "data-processing",
    "binary_url": "https://example.com/binary",
    "binary_sha256": SHA,
    "arguments": ["arg1", "arg2"],
    "env_variables": {"KEY1": "value1", "KEY2": "value2"},
    "priority": "background",
}
CLAIM = {"executor_id": "worker-1-abc123", "executor_ip": "192.168.1.100"}
COMPLETE = {"executor_id": "worker-1-abc123", "stdout": "Job output...", "stderr": "", "exit_code": 0}
FAIL = {
    "executor_id": "worker-1-abc123",
    "stdout": "Partial output...",
    "stderr": "Error messages...",
    "exit_code": 1,
    "error_message": "Binary execution failed",
}
# Keys and types of the document's answers.
TIME = "time"
SUBMITTED = {"id": UUID, "type": str, "status": str, "created_at": TIME}
LISTED = {**SUBMITTED, "priority": str, "executor_id": str, "started_at": TIME}
WHOLE = {
    **LISTED,
    "binary_url": str,
    "binary_sha256": str,
    "arguments": list,
    "env_variables": dict,
    "stdout": str,
    "stderr": str,
    "exit_code": int,
    "completed_at": TIME,
    "attempts": list,
}
ATTEMPT = {"executor_id": str, "executor_ip": str, "started_at": TIME, "ended_at": TIME, "status": str}


class Door:
    """A client of this API that asks as curl does, with an Accept header."""

    def __init__(self, api: factories.Api) -> None:
        self.api = api

    def ask(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        response = self.api.client.generic(
            method,
            BASE + path,
            content,
            content_type="application/json",
            headers={"Accept": "*/*", **self.api.headers, **{k.replace("_", "-"): v for k, v in headers.items()}},
        )
        assert response.status_code == status, (response.status_code, response.content)
        return response

    def json(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        return self.ask(method, path, body, status).json()

    def submit(self, **fields: Any) -> str:
        return str(self.json("POST", "/jobs", {**SUBMIT, **fields}, 201)["id"])

    def claim(self, executor_id: str = "worker-1-abc123") -> dict[str, Any]:
        found: dict[str, Any] = self.json("POST", "/jobs/claim", {**CLAIM, "executor_id": executor_id})
        return found

    def error(self, method: str, path: str, body: Any = None, status: int = 400) -> Any:
        """The error of a refused request, checked for the document's shape."""
        told = self.json(method, path, body, status)
        assert set(told) == {"error", "context"}
        assert isinstance(told["error"], str)
        assert told["error"]
        assert isinstance(told["context"], dict)
        return told


@pytest.fixture
def door(db: None) -> Door:
    """Our own client, which may do everything."""
    return Door(factories.api("acme", "SERVICES:ADMIN"))


@pytest.fixture
def reader(db: None) -> Door:
    return Door(factories.api("acme", "SERVICES:READ"))


@pytest.fixture
def stranger(db: None) -> Door:
    return Door(factories.api("rival", "SERVICES:ADMIN"))


def fits(shown: Mapping[str, Any], shape: Mapping[str, Any]) -> None:
    for key, kind in shape.items():
        value = shown[key]
        if kind is TIME:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value), (key, value)
            datetime.fromisoformat(value)
        elif kind is UUID:
            UUID(value)
        else:
            assert type(value) is kind, (key, value)


# --- The document, example by example --------------------------------------------------------------------------
ENDPOINTS = re.findall(r"^(GET|POST|PUT|DELETE) /api/v1(/[^?\s]+)", DOCUMENT.read_text(), re.MULTILINE)


def test_the_document_has_fourteen_endpoints() -> None:
    assert len(set(ENDPOINTS)) == 14


@pytest.mark.parametrize(("method", "path"), sorted(set(ENDPOINTS)))
def test_every_endpoint_of_the_document_is_routed(method: str, path: str) -> None:
    view = resolve(f"{BASE}{path}").func.cls
    assert view.__name__.startswith("Executr")
    assert hasattr(view, method.lower())


def test_health_needs_no_credentials(db: None) -> None:
    shown = Door(factories.Api(None)).json("GET", "/health")
    assert shown == {"status": "healthy", "database": "connected"}


def test_metrics_are_of_the_organization(door: Door, stranger: Door) -> None:
    stranger.submit(priority="foreground")
    door.submit()
    door.submit(priority="foreground")
    door.claim()
    answer = door.ask("GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.content.decode()
    assert 'executr_jobs_in_queue{status="pending",priority="background"} 1\n' in text
    assert 'executr_jobs_in_queue{status="running",priority="foreground"} 1\n' in text
    assert 'executr_jobs_submitted_total{priority="foreground"} 1\n' in text
    assert "executr_executors_active 1\n" in text
    assert {line.split(" ")[0] for line in text.splitlines()} >= {"#"}
    assert set(re.findall(r'(\w+)="', text)) == {"status", "priority"}


def test_submit_shows_the_new_job(door: Door) -> None:
    shown = door.json("POST", "/jobs", SUBMIT, 201)
    fits(shown, SUBMITTED)
    assert (shown["type"], shown["status"]) == ("data-processing", "pending")


def test_optional_fields_may_be_absent_or_null(door: Door) -> None:
    needed = {key: SUBMIT[key] for key in ("type", "binary_url", "binary_sha256", "priority")}
    for more in ({}, {"arguments": None, "env_variables": None, "max_retries": None}, {"unknown": 1}):
        shown = door.json("POST", "/jobs", {**needed, **more}, 201)
        assert (shown["arguments"], shown["env_variables"]) == ([], {})


def test_the_list_is_a_bare_array_newest_first(door: Door) -> None:
    ids = [door.submit() for _ in range(3)]
    door.claim()
    shown = door.json("GET", "/jobs")
    assert [job["id"] for job in shown] == ids[::-1]
    fits(shown[-1], LISTED)
    assert shown[-1]["executor_id"] == "worker-1-abc123"
    assert not {"stdout", "stderr", "attempts"} & set(shown[-1])
    assert shown[0]["started_at"] is None


def test_the_documents_list_request_works(door: Door) -> None:
    made = door.submit()
    path = "/jobs?status=pending&type=data-processing&priority=background&limit=10&offset=0"
    assert [job["id"] for job in door.json("GET", path)] == [made]
    assert door.json("GET", "/jobs?limit=20&offset=40") == []


@pytest.mark.parametrize(("limit", "most_bytes"), [(2, pages.MAX_BYTES), (100, 200)])
def test_a_list_that_does_not_show_all_has_a_link_to_the_rest(
    door: Door, monkeypatch: pytest.MonkeyPatch, limit: int, most_bytes: int
) -> None:
    """Whether the limit or the bytes of the rows ended it."""
    monkeypatch.setattr(pages, "MAX_BYTES", most_bytes)
    ids = [door.submit(arguments=["x" * 100]) for _ in range(5)]
    door.submit(type="other")
    path, found, requests = f"/jobs?type=data-processing&limit={limit}", [], 0
    while path:
        answer = door.ask("GET", path)
        found += [job["id"] for job in answer.json()]
        link = re.fullmatch(rf'<{BASE}(/jobs\?\S+)>; rel="next"', answer.headers.get("Link", ""))
        path, requests = link[1] if link else "", requests + 1
    assert found == ids[::-1]
    assert requests == 3 if limit == 2 else requests > 1


def test_a_completed_job_has_its_whole_life(door: Door) -> None:
    job_id = door.submit()
    claimed = door.claim()
    assert claimed["id"] == job_id
    fits(claimed, {key: kind for key, kind in WHOLE.items() if key not in ("completed_at", "exit_code")})
    assert claimed["env_variables"] == SUBMIT["env_variables"]
    assert (claimed["completed_at"], claimed["exit_code"], claimed["stdout"]) == (None, None, "")
    door.ask("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": "worker-1-abc123"})
    door.ask("PUT", f"/jobs/{job_id}/complete", COMPLETE)
    shown = door.json("GET", f"/jobs/{job_id}")
    fits(shown, WHOLE)
    assert (shown["status"], shown["stdout"], shown["exit_code"]) == ("completed", "Job output...", 0)
    (attempt,) = shown["attempts"]
    fits(attempt, ATTEMPT)
    assert (attempt["executor_id"], attempt["executor_ip"], attempt["status"]) == (*CLAIM.values(), "completed")


def test_a_failed_job_keeps_its_output(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    door.ask("PUT", f"/jobs/{job_id}/fail", FAIL)
    shown = door.json("GET", f"/jobs/{job_id}")
    fits(shown, WHOLE)
    assert (shown["status"], shown["stderr"], shown["exit_code"]) == ("failed", "Error messages...", 1)
    assert (shown["error_message"], shown["attempts"][0]["status"]) == ("Binary execution failed", "failed")


def test_cancel_ends_a_pending_job(door: Door) -> None:
    job_id = door.submit()
    door.ask("DELETE", f"/jobs/{job_id}")
    assert door.json("GET", f"/jobs/{job_id}")["status"] == "cancelled"


def test_stats_count_every_status_and_priority(door: Door) -> None:
    empty = door.json("GET", "/admin/stats")
    statuses = dict.fromkeys(("pending", "running", "completed", "failed", "cancelled"), 0)
    priorities = dict.fromkeys(("foreground", "background", "best_effort"), 0)
    assert empty == {"jobs_by_status": statuses, "pending_by_priority": priorities, "active_executors": 0}
    done = door.submit()
    door.claim()
    door.ask("PUT", f"/jobs/{done}/complete", COMPLETE)
    for priority in ("foreground", "best_effort", "best_effort"):
        door.submit(priority=priority)
    door.claim("e2")
    shown = door.json("GET", "/admin/stats")
    assert shown["jobs_by_status"] == {**statuses, "pending": 2, "running": 1, "completed": 1}
    assert shown["pending_by_priority"] == {**priorities, "best_effort": 2}
    assert shown["active_executors"] == 2
    for status, number in shown["jobs_by_status"].items():
        assert len(door.json("GET", f"/jobs?status={status}")) == number


def test_executors_show_their_newest_job(door: Door) -> None:
    assert door.json("GET", "/admin/executors") == []
    door.submit()
    second = door.submit(type="render")
    door.claim()
    door.claim()
    door.ask("POST", "/jobs/claim", {**CLAIM, "executor_id": "idle"}, 204)
    busy, idle = sorted(door.json("GET", "/admin/executors"), key=lambda one: one["executor_id"], reverse=True)
    fits(busy, {"executor_id": str, "current_job_id": UUID, "job_type": str, "last_heartbeat": TIME})
    assert (busy["current_job_id"], busy["job_type"], busy["jobs_completed"]) == (second, "render", 0)
    assert (idle["executor_id"], idle["current_job_id"], idle["job_type"]) == ("idle", None, None)
    door.ask("PUT", f"/jobs/{second}/complete", COMPLETE)
    assert door.json("GET", "/admin/executors")[1]["jobs_completed"] == 1


def test_bulk_submit_answers_in_the_order_of_the_request(door: Door) -> None:
    needed = {"binary_url": "https://example.com/binary1", "binary_sha256": SHA}
    body = [{"type": f"job-{n}", **needed, "priority": p} for n, p in enumerate(("background", "foreground"), 1)]
    shown = door.json("POST", "/jobs/bulk", body, 201)
    assert [set(one) for one in shown] == [{"id", "status"}] * 2
    assert [door.json("GET", f"/jobs/{one['id']}")["type"] for one in shown] == ["job-1", "job-2"]
    assert {one["status"] for one in shown} == {"pending"}


def test_bulk_cancel_treats_each_on_its_own(door: Door) -> None:
    ids = [door.submit(), door.submit()]
    assert door.json("POST", "/jobs/bulk/cancel", {"job_ids": ids}) == {"cancelled": 2, "failed": 0, "errors": []}
    waits, runs = door.submit(priority="best_effort"), door.submit()
    door.claim()
    asked = [waits, waits, runs, NOBODY, "job_123", ids[0]]
    shown = door.json("POST", "/jobs/bulk/cancel", {"job_ids": asked})
    assert (shown["cancelled"], shown["failed"]) == (1, 5)
    assert [one["job_id"] for one in shown["errors"]] == asked[1:]
    assert all(one["error"] for one in shown["errors"])


# --- Errors ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "with blank"}, "type"),
        ({"type": None}, "type"),
        ({"type": 5}, "type"),
        ({"binary_url": "ftp://example.com/x"}, "binary_url"),
        ({"binary_url": ""}, "binary_url"),
        ({"binary_sha256": "abc123..."}, "binary_sha256"),
        ({"arguments": "arg1"}, "arguments"),
        ({"arguments": ["a", 1]}, "arguments"),
        ({"env_variables": {"KEY": 1}}, "env_variables"),
        ({"env_variables": ["KEY"]}, "env_variables"),
        ({"env_variables": {"KEY": "******"}}, "env_variables.KEY"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 5}, "priority"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
    ],
)
def test_a_wrong_field_is_named(door: Door, change: dict[str, Any], field: str) -> None:
    told = door.error("POST", "/jobs", {**SUBMIT, **change})
    assert told["context"]["field"] == field
    assert not Job.objects.exists()


@pytest.mark.parametrize("field", ["type", "binary_url", "binary_sha256", "priority"])
def test_a_missing_field_is_named(door: Door, field: str) -> None:
    body = {key: value for key, value in SUBMIT.items() if key != field}
    assert door.error("POST", "/jobs", body)["context"]["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/jobs?limit=x", None, 400),
        ("GET", "/jobs?limit=0", None, 400),
        ("GET", "/jobs?offset=-1", None, 400),
        ("GET", "/jobs?status=done", None, 400),
        ("GET", "/jobs?priority=urgent", None, 400),
        ("GET", "/jobs/job_123", None, 404),
        ("GET", f"/jobs/{NOBODY}", None, 404),
        ("DELETE", f"/jobs/{NOBODY}", None, 404),
        ("PUT", f"/jobs/{NOBODY}/heartbeat", {"executor_id": "e"}, 404),
        ("PUT", f"/jobs/{NOBODY}/complete", COMPLETE, 404),
        ("PUT", f"/jobs/{NOBODY}/fail", FAIL, 404),
        ("POST", "/jobs/claim", {"executor_id": "e"}, 400),
        ("POST", "/jobs/claim", {"executor_ip": "e"}, 400),
        ("POST", "/jobs/claim", {"executor_id": "", "executor_ip": "e"}, 400),
        ("POST", "/jobs/claim", {"executor_id": "e" * 256, "executor_ip": "e"}, 400),
        ("POST", "/jobs/claim", None, 400),
        ("POST", "/jobs", [], 400),
        ("POST", "/jobs/bulk", {}, 400),
        ("POST", "/jobs/bulk", [], 400),
        ("POST", "/jobs/bulk/cancel", {}, 400),
        ("POST", "/jobs/bulk/cancel", {"job_ids": []}, 400),
        ("POST", "/jobs/bulk/cancel", {"job_ids": [1]}, 400),
        ("POST", "/health", {}, 405),
        ("DELETE", "/jobs", None, 405),
        ("GET", "/nothing", None, 404),
        ("GET", "/jobs/", None, 404),
    ],
)
def test_errors_have_the_documents_shape(door: Door, method: str, path: str, body: Any, status: int) -> None:
    told = door.error(method, path, body, status)
    if "/jobs/job_123" in path:
        assert told["context"]["job_id"] == "job_123"


def test_no_credentials_are_401_and_a_missing_scope_403(door: Door, reader: Door) -> None:
    nobody = Door(factories.Api(None))
    for path in ("/jobs", "/metrics", "/admin/stats"):
        nobody.error("GET", path, status=401)
    reader.error("POST", "/jobs", SUBMIT, 403)
    Door(factories.api("acme", "SERVICES:WRITE")).error("POST", "/jobs/claim", CLAIM, 403)


def test_an_unreadable_body_changes_nothing(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    whole = json.dumps(COMPLETE)
    for content, kind, status in ((whole[:-9], "application/json", 400), (whole, "text/plain", 415)):
        path = f"{BASE}/jobs/{job_id}/complete"
        headers = {**door.api.headers, "Accept": "*/*"}
        answer: Any = door.api.client.generic("PUT", path, content, content_type=kind, headers=headers)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "context"})
    assert door.json("GET", f"/jobs/{job_id}")["status"] == "running"


def test_a_database_that_is_away_makes_health_503(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(service_state, "answers", away)
    told = door.json("GET", "/health", status=503)
    assert set(told) == {"status", "database", "error"}
    assert (told["status"], told["database"]) == ("unhealthy", "disconnected")


# --- Credentials and Go's client -------------------------------------------------------------------------------
def test_basic_and_api_key_are_credentials_too(db: None) -> None:
    token = factories.token("acme", "SERVICES:READ")
    basic = base64.b64encode(f"anyone:{token}".encode()).decode()
    nobody = Door(factories.Api(None))
    for headers in ({"Authorization": f"Basic {basic}"}, {"X_API_Key": token}):
        assert nobody.ask("GET", "/jobs", **headers).json() == []


def test_a_client_without_accept_header_gets_204(door: Door) -> None:
    canceled, done, failed = (door.submit(priority="best_effort"), door.submit(), door.submit())
    claimed = [door.claim()["id"], door.claim()["id"]]
    assert set(claimed) == {done, failed}
    for method, path, body in (
        ("DELETE", f"/jobs/{canceled}", None),
        ("PUT", f"/jobs/{done}/heartbeat", {"executor_id": CLAIM["executor_id"]}),
        ("PUT", f"/jobs/{done}/complete", COMPLETE),
        ("PUT", f"/jobs/{failed}/fail", FAIL),
    ):
        answer = door.api.send(method, BASE + path, body)
        assert (answer.status_code, answer.content) == (204, b"")


# --- Filters, order, limits ------------------------------------------------------------------------------------
def test_each_filter_works_alone(door: Door) -> None:
    waits = door.submit(type="a", priority="best_effort")
    runs = door.submit(type="b", priority="foreground")
    door.claim()
    door.submit(type="ab")
    for query, expected in (
        ("type=a", [waits]),
        ("type=b", [runs]),
        ("status=running", [runs]),
        ("priority=best_effort", [waits]),
        ("priority=foreground", [runs]),
        ("type=none", []),
        ("status=pending&type=a", [waits]),
    ):
        assert [job["id"] for job in door.json("GET", f"/jobs?{query}")] == expected, query


def test_a_limit_beyond_the_most_is_clamped(door: Door) -> None:
    door.submit()
    assert len(door.json("GET", "/jobs?limit=1001")) == 1


def test_fresh_jobs_are_claimed_by_priority(door: Door) -> None:
    ids = {word: door.submit(priority=word) for word in ("best_effort", "background", "foreground")}
    assert [door.claim()["id"] for _ in range(3)] == [ids["foreground"], ids["background"], ids["best_effort"]]


def test_a_job_without_binary_is_not_of_this_door(door: Door) -> None:
    rows.job_type(key="render", runner="external", default_config={})
    plain = door.api.post(NATIVE, {"job_type_id": "render", "work": {}}).json()["data"]["job_id"]
    work = {"binary_url": "https://example.com/x", "binary_sha256": SHA}
    native = door.api.post(NATIVE, {"job_type_id": "render", "work": work}).json()["data"]["job_id"]
    assert [(job["id"], job["type"]) for job in door.json("GET", "/jobs")] == [(native, "render")]
    door.error("GET", f"/jobs/{plain}", status=404)
    assert door.claim()["id"] == native
    door.ask("POST", "/jobs/claim", CLAIM, 204)


# --- Edge cases ------------------------------------------------------------------------------------------------
def test_an_id_in_capitals_is_found(door: Door) -> None:
    job_id = door.submit()
    assert door.json("GET", f"/jobs/{job_id.upper()}")["id"] == job_id


def test_secrets_are_masked_for_tokens_that_may_not_execute(door: Door, reader: Door) -> None:
    job_id = door.submit()
    assert reader.json("GET", f"/jobs/{job_id}")["env_variables"] == {"KEY1": "******", "KEY2": "******"}
    assert door.json("GET", f"/jobs/{job_id}")["env_variables"] == SUBMIT["env_variables"]
    assert "value1" not in reader.ask("GET", "/jobs").content.decode()


def test_outputs_show_what_a_program_says_of_its_variables_but_no_credentials(door: Door) -> None:
    environment = {"TEST_ENV": "test_value", "MONTH": "2024-01", "API_TOKEN": "abc-123-def"}
    job_id = door.submit(env_variables=environment)
    door.claim()
    said = "TEST_ENV=test_value\n2024-01-31 with abc-123-def"
    door.ask("PUT", f"/jobs/{job_id}/complete", {**COMPLETE, "stdout": said, "stderr": said})
    shown = door.json("GET", f"/jobs/{job_id}")
    assert shown["stdout"] == shown["stderr"] == "TEST_ENV=test_value\n2024-01-31 with ******"


def test_a_running_job_cannot_be_canceled_here(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    told = door.error("DELETE", f"/jobs/{job_id}")
    assert told["context"]["job_id"] == job_id
    assert door.json("GET", f"/jobs/{job_id}")["status"] == "running"


def test_a_foreign_or_late_executor_changes_nothing(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    for path, body, status in (
        ("heartbeat", {"executor_id": "other"}, 404),
        ("complete", {**COMPLETE, "executor_id": "other"}, 400),
        ("fail", {**FAIL, "executor_id": "other"}, 400),
    ):
        door.error("PUT", f"/jobs/{job_id}/{path}", body, status)
    door.ask("PUT", f"/jobs/{job_id}/complete", COMPLETE)
    before = door.json("GET", f"/jobs/{job_id}")
    door.error("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": CLAIM["executor_id"]}, 404)
    door.error("PUT", f"/jobs/{job_id}/complete", COMPLETE)
    door.error("PUT", f"/jobs/{job_id}/fail", FAIL)
    assert door.json("GET", f"/jobs/{job_id}") == before


def _lapse(job_id: str) -> None:
    Job.objects.filter(pk=job_id).update(lease_until=F("lease_until") - timedelta(hours=1))
    recovery.take_back_lost()


def test_a_lost_lease_makes_the_job_pending_and_the_attempt_a_timeout(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    _lapse(job_id)
    shown = door.json("GET", f"/jobs/{job_id}")
    assert (shown["status"], shown["started_at"], shown["attempts"][0]["status"]) == ("pending", None, "timeout")
    door.error("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": CLAIM["executor_id"]}, 404)
    door.error("PUT", f"/jobs/{job_id}/complete", COMPLETE)
    assert door.claim()["id"] == job_id  # the same executor again: its newest attempt counts
    door.ask("PUT", f"/jobs/{job_id}/complete", COMPLETE)
    assert [one["status"] for one in door.json("GET", f"/jobs/{job_id}")["attempts"]] == ["completed", "timeout"]


def test_three_lost_leases_fail_the_job(door: Door) -> None:
    job_id = door.submit()
    for _ in range(3):
        door.claim()
        _lapse(job_id)
    shown = door.json("GET", f"/jobs/{job_id}")
    assert (shown["status"], len(shown["attempts"])) == ("failed", 3)
    assert shown["error_message"]


def test_retries_make_a_failed_attempt_pending_again(door: Door) -> None:
    job_id = door.submit(max_retries=1)
    door.claim()
    assert door.json("PUT", f"/jobs/{job_id}/fail", FAIL)["status"] == "pending"
    wait = Job.objects.values_list(F("wake_at") - F("updated_at"), flat=True).get()
    assert timedelta(seconds=59) < wait <= timedelta(seconds=61)
    assert [job["id"] for job in door.json("GET", "/jobs?status=pending")] == [job_id]
    Job.objects.update(wake_at=F("wake_at") - timedelta(minutes=2))
    queue_order.wake_due()
    assert door.claim()["id"] == job_id
    assert door.json("PUT", f"/jobs/{job_id}/fail", FAIL)["status"] == "failed"
    assert len(door.json("GET", f"/jobs/{job_id}")["attempts"]) == 2


def test_a_job_that_waits_for_its_retry_can_be_canceled(door: Door) -> None:
    job_id = door.submit(max_retries=1)
    door.claim()
    door.ask("PUT", f"/jobs/{job_id}/fail", FAIL)
    assert door.json("DELETE", f"/jobs/{job_id}") == {"id": job_id, "status": "cancelled"}


def test_a_failure_without_exit_code_has_none(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    door.error("PUT", f"/jobs/{job_id}/fail", {"executor_id": CLAIM["executor_id"]})
    door.ask("PUT", f"/jobs/{job_id}/fail", {"executor_id": CLAIM["executor_id"], "error_message": "lost"})
    assert door.json("GET", f"/jobs/{job_id}")["exit_code"] is None


def test_a_nonzero_exit_code_may_complete(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    door.ask("PUT", f"/jobs/{job_id}/complete", {**COMPLETE, "exit_code": 3})
    shown = door.json("GET", f"/jobs/{job_id}")
    assert (shown["status"], shown["exit_code"]) == ("completed", 3)


def test_a_canceled_job_takes_no_report(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    assert door.api.delete(f"{NATIVE}/{job_id}").status_code == 200
    door.error("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": CLAIM["executor_id"]}, 404)
    door.error("PUT", f"/jobs/{job_id}/fail", FAIL)
    assert door.json("GET", f"/jobs/{job_id}")["status"] == "cancelled"


def test_a_long_and_broken_output_is_kept_as_valid_text(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    body = json.dumps({**COMPLETE, "stdout": "\x00é" * 786_432, "stderr": "\ud800x"}).encode()
    path = f"{BASE}/jobs/{job_id}/complete"
    assert door.api.send("PUT", path, raw=body, Accept="*/*").status_code == 200
    shown = door.json("GET", f"/jobs/{job_id}")
    assert 1_000_000 < len(shown["stdout"].encode()) <= 1_048_576
    assert "\x00" not in shown["stdout"]
    assert shown["stderr"] == "\ufffdx"


def test_only_reports_may_be_large(door: Door) -> None:
    job_id = door.submit()
    door.claim()
    body = {**COMPLETE, "stdout": "x" * 17_000_000}
    door.error("PUT", f"/jobs/{job_id}/complete", body, 413)
    door.error("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": "x" * 300_000}, 413)


@pytest.mark.parametrize("value", ["a\x00b", "\ud800"])
def test_characters_that_cannot_be_stored_are_replaced(door: Door, value: str) -> None:
    shown = door.json("POST", "/jobs", {**SUBMIT, "arguments": [value], "env_variables": {"K": value}}, 201)
    assert "\ufffd" in shown["arguments"][0]


def test_one_bad_item_of_a_bulk_stores_none(door: Door) -> None:
    good = {**SUBMIT, "arguments": []}
    items: list[Any] = [good] * 20
    for bad, field in (({**good, "priority": "x"}, "7.priority"), ({**good, "type": "a b"}, "7.type"), (5, "7")):
        items[7] = bad
        told = door.error("POST", "/jobs/bulk", items)
        assert told["context"]["field"].startswith(field)
    assert not Job.objects.exists()


def test_a_bulk_has_at_most_a_thousand(door: Door) -> None:
    needed = {key: SUBMIT[key] for key in ("type", "binary_url", "binary_sha256", "priority")}
    assert len(door.json("POST", "/jobs/bulk", [needed] * 1_000, 201)) == 1_000
    door.error("POST", "/jobs/bulk", [needed] * 1_001)
    assert len(door.json("GET", "/jobs?limit=1000")) == 1_000


@pytest.mark.django_db(transaction=True)
def test_of_many_executors_each_gets_another_job(door: Door) -> None:
    ids = {door.submit() for _ in range(6)}

    def claim(number: int) -> str | None:
        mine = Door(factories.Api(None))
        mine.api.headers = door.api.headers
        answer = mine.api.client.post(
            f"{BASE}/jobs/claim",
            json.dumps({**CLAIM, "executor_id": f"e{number}"}),
            content_type="application/json",
            headers=mine.api.headers,
        )
        return answer.json()["id"] if answer.status_code == 200 else None

    found = [job_id for job_id in in_threads(*(lambda n=n: claim(n) for n in range(10))) if job_id]
    assert len(found) == len(set(found))
    assert set(found) <= ids
    assert Executor.objects.count() == 10


@pytest.mark.django_db(transaction=True)
def test_a_cancel_and_a_claim_at_once_have_one_winner(door: Door) -> None:
    """Either the cancel finds the job claimed, or the claim finds none."""
    paths = {"DELETE": f"/jobs/{door.submit()}", "POST": "/jobs/claim"}

    def ask(method: str) -> int:
        client = factories.Api(None)
        client.headers = {**door.api.headers, "Accept": "*/*"}
        return int(client.send(method, BASE + paths[method], CLAIM if method == "POST" else None).status_code)

    canceled, claimed = in_threads(lambda: ask("DELETE"), lambda: ask("POST"))
    assert (canceled, claimed) in {(200, 204), (400, 200)}


# --- The other doors -------------------------------------------------------------------------------------------
def test_another_organizations_job_is_not_found(door: Door, stranger: Door) -> None:
    job_id = stranger.submit()
    stranger.claim()
    for method, path, body, status in (
        ("GET", "", None, 404),
        ("DELETE", "", None, 404),
        ("PUT", "/heartbeat", {"executor_id": CLAIM["executor_id"]}, 404),
        ("PUT", "/complete", COMPLETE, 404),
        ("PUT", "/fail", FAIL, 404),
    ):
        theirs = door.error(method, f"/jobs/{job_id}{path}", body, status)
        nobodys = door.error(method, f"/jobs/{NOBODY}{path}", body, status)
        theirs["error"] = theirs["error"].replace(job_id, NOBODY)
        assert theirs["error"] == nobodys["error"]
    assert door.json("GET", "/jobs") == []
    assert door.json("GET", "/admin/executors") == []
    shown = door.json("POST", "/jobs/bulk/cancel", {"job_ids": [job_id]})
    assert shown["failed"] == 1
    assert stranger.json("GET", f"/jobs/{job_id}")["status"] == "running"


def test_a_job_of_this_door_is_seen_filtered_and_canceled_natively(door: Door) -> None:
    job_id = door.submit(priority="foreground")
    found = door.api.get(NATIVE, {"job_type_id": "executr", "status": "WAITING"}).json()["data"]
    assert [(job["job_id"], job["priority"]) for job in found] == [(job_id, 7)]
    assert found[0]["work"]["environment"] == {"KEY1": "******", "KEY2": "******"}
    assert door.api.delete(f"{NATIVE}/{job_id}").status_code == 200
    assert door.json("GET", f"/jobs/{job_id}")["status"] == "cancelled"
