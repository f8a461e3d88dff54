"""Workspace's API: every example of its document, its errors, filters and defaults, and its edge cases."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.db.models import F
from django.test import Client
from django.urls import resolve

from agent_jobs.models import Activity, AuditEntry, Job, Membership
from agent_jobs.states import JobStatus
from agent_jobs.tenants import login_tokens
from tests import factories, races, rows
from tests.dialects.workspace_clients import PASSWORD, Workspace, membership, person

pytestmark = pytest.mark.django_db
DOCUMENT = (Path(__file__).parent / "documents" / "workspace.md").read_text()
NOBODY = "550e8400-e29b-41d4-a716-446655440000"
NATIVE = "/services/agent-jobs"
# The document's examples, by what precedes them.
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)]
LISTED, CREATED, SHOWN, STATUS, RESULT, UPDATED, CANCELED, RETRIED = EXAMPLES
CREATE = {
    "job_type": "data_processing",
    "workspace_id": 1,
    "priority": "high",
    "metadata": {"source_file": "dataset.csv", "output_format": "parquet", "filters": {"column": "value"}},
    "estimated_duration": 600,
    "scheduled_at": "2024-01-15T15:00:00Z",
}
UPDATE = {
    "status": "running",
    "progress_percent": 50,
    "progress_message": "Halfway complete",
    "result": {"intermediate_data": "temp_results.json", "rows_processed": 25000},
}


@pytest.fixture
def ann(db: None) -> Workspace:
    """An admin of our organisation, signed in."""
    return Workspace()


@pytest.fixture
def eve(db: None) -> Workspace:
    """An admin of the stranger's organisation."""
    return Workspace("eve", "rival")


def matches(example: Any, actual: Any, *, at: str = "answer") -> None:
    """The same keys in the same order, and values of the same types; a time is a time, and null may be a value."""
    if isinstance(example, dict) and "." not in at.removeprefix("answer.data").removeprefix("answer"):
        assert list(actual) == list(example), at
    if isinstance(example, dict):
        for key, value in example.items():
            if key != "result":
                matches(value, actual[key], at=f"{at}.{key}")
    elif isinstance(example, str) and re.fullmatch(r"\d{4}-.*Z", example):
        assert isinstance(actual, str), at
        assert datetime.fromisoformat(actual).tzinfo, at
        assert actual.endswith("Z"), at
    elif example is None:
        assert actual is None, at
    else:
        assert type(actual) is type(example), at


# --- The document, example by example --------------------------------------------------------------------------
ENDPOINTS = sorted(set(re.findall(r"^(GET|POST|PATCH) +(/\S+)", DOCUMENT, re.MULTILINE)))


def test_the_document_has_nine_endpoints_for_jobs() -> None:
    assert len(ENDPOINTS) == 9


@pytest.mark.parametrize(("method", "path"), [*ENDPOINTS, ("POST", "/auth/login"), ("POST", "/auth/refresh")])
def test_every_endpoint_of_the_document_is_routed(method: str, path: str) -> None:
    view = resolve(path).func.cls
    assert view.__name__.startswith("Workspace")
    assert hasattr(view, method.lower())


def test_a_login_gives_both_tokens(ann: Workspace) -> None:
    tokens = ann.ask("POST", "/auth/login", {"username": "ann", "password": PASSWORD})
    assert list(tokens) == ["access_token", "refresh_token", "token_type"]
    assert tokens["token_type"] == "bearer"
    assert all(isinstance(value, str) for value in tokens.values())


def test_create_answers_as_documented(ann: Workspace) -> None:
    shown = ann.asked("POST", "", {**CREATE, "workspace_id": ann.number}, 201)
    matches(CREATED, shown)
    assert {key: shown[key] for key in ("job_type", "status", "priority", "result", "estimated_duration")} == {
        key: CREATED[key] for key in ("job_type", "status", "priority", "result", "estimated_duration")
    }
    assert (shown["scheduled_at"], shown["created_by"]) == ("2024-01-15T15:00:00Z", ann.user.pk)


def test_the_list_answers_as_documented(ann: Workspace) -> None:
    job_id = ann.made(job_type="data_analysis", priority="high", estimated_duration=300)
    ann.moved(job_id, "running", progress_percent=75, progress_message="Processing data...")
    shown = ann.asked("GET")
    assert list(shown) == list(LISTED)
    assert shown["pagination"] == LISTED["pagination"]
    matches(LISTED["data"][0], shown["data"][0])
    assert shown["data"][0]["result"] == LISTED["data"][0]["result"]


@pytest.mark.django_db(transaction=True)
def test_a_finished_job_answers_as_documented(ann: Workspace) -> None:
    job_id = ann.made(job_type="data_analysis", priority="high", estimated_duration=300)
    ann.moved(job_id, "running", progress_percent=75)
    Job.objects.update(started_at=F("started_at") - timedelta(seconds=285, milliseconds=300))
    ann.moved(job_id, "completed", result=SHOWN["result"])
    shown = ann.asked("GET", f"/{job_id}")
    matches(SHOWN, shown)
    assert (shown["result"], shown["status"], shown["actual_duration"]) == (SHOWN["result"], "success", 285)
    result = ann.asked("GET", f"/{job_id}/result")
    matches(RESULT, result)
    assert result["result"] == SHOWN["result"]


def test_the_status_answers_as_documented(ann: Workspace) -> None:
    job_id = ann.made()
    ann.moved(job_id, "running", progress_percent=75, progress_message="Processing batch 3 of 4...")
    shown = ann.asked("GET", f"/{job_id}/status")
    matches(STATUS, shown)
    assert {**shown, "job_id": 0, "updated_at": 0} == {**STATUS, "job_id": 0, "updated_at": 0}


def test_an_update_answers_as_documented(ann: Workspace) -> None:
    job_id = ann.made(job_type="data_analysis", priority="high", estimated_duration=300)
    shown = ann.asked("PATCH", f"/{job_id}", UPDATE)
    matches(UPDATED, shown)
    assert shown["result"] == UPDATED["result"]


def test_a_cancel_answers_as_documented(ann: Workspace) -> None:
    job_id = ann.made(job_type="data_analysis", priority="high", estimated_duration=300)
    ann.moved(job_id, "running", result={"partial_results": "temp_data.json"})
    shown = ann.asked("POST", f"/{job_id}/cancel")
    matches(CANCELED, shown)
    assert (shown["status"], shown["result"]) == ("cancelled", CANCELED["result"])


def test_a_retry_answers_as_documented(ann: Workspace) -> None:
    job_id = ann.made(job_type="data_analysis", priority="high", estimated_duration=300)
    ann.moved(job_id, "running")
    ann.moved(job_id, "failed", result={"partial": 1})
    shown = ann.asked("POST", f"/{job_id}/retry")
    matches(RETRIED, shown)
    assert (shown["status"], shown["result"], shown["retry_count"]) == ("pending", RETRIED["result"], 1)


def test_the_legacy_list_is_deprecated(ann: Workspace) -> None:
    job_id = ann.made()
    for path in ("/jobs", f"/jobs?workspace_id={ann.number}"):
        response = ann.answer("GET", path)
        assert response.status_code == 200
        assert [job["job_id"] for job in response.json()["data"]] == [job_id]
        assert re.fullmatch(r"@\d+", response["Deprecation"])
        assert response["Sunset"].endswith("GMT")


# --- Logins ----------------------------------------------------------------------------------------------------
def test_wrong_names_and_wrong_passwords_look_alike(ann: Workspace) -> None:
    answers = [
        Client().post("/auth/login", {"username": name, "password": "wrong"}, content_type="application/json")
        for name in ("ann", "nobody")
    ]
    assert [(one.status_code, one.json()) for one in answers] == [(401, {"detail": "Invalid credentials"})] * 2
    assert answers[0]["WWW-Authenticate"] == "Bearer"


def test_the_sixth_wrong_try_is_refused(ann: Workspace) -> None:
    def attempt(password: str) -> Any:
        body = {"username": "ann", "password": password}
        return Client().post("/auth/login", body, content_type="application/json")

    assert [attempt("wrong").status_code for _ in range(5)] == [401] * 5
    for password in ("wrong", PASSWORD):
        answer = attempt(password)
        assert answer.status_code == 429
        assert int(answer["Retry-After"]) > 0
        assert set(answer.json()) == {"detail"}


def test_a_disabled_user_cannot_sign_in(ann: Workspace) -> None:
    ann.user.is_active = False
    ann.user.save()
    body = {"username": "ann", "password": PASSWORD}
    assert ann.refused("POST", "/auth/login", body, 403)
    assert ann.refused("POST", "/auth/login", {**body, "password": "wrong"}, 401)
    ann.refused("GET", f"/workspace/{ann.number}/jobs", status=401)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("username=ann", "application/x-www-form-urlencoded", 415),
        ("{", "application/json", 400),
        ("", "application/json", 400),
        ("[]", "application/json", 422),
        ('{"username": "ann"}', "application/json", 422),
        ('{"username": "ann", "password": 5}', "application/json", 422),
        ('{"username": "a\\u0000", "password": "x"}', "application/json", 401),
    ],
)
def test_malformed_logins_are_refused(db: None, content: str, kind: str, status: int) -> None:
    answer: Any = Client().generic("POST", "/auth/login", content, content_type=kind)
    assert answer.status_code == status, answer.content
    assert isinstance(answer.json()["detail"], str)


def test_a_refresh_gives_a_new_access_token(ann: Workspace) -> None:
    tokens = ann.ask("POST", "/auth/refresh", {"refresh_token": ann.refresh_token})
    assert list(tokens) == ["access_token", "refresh_token", "token_type"]
    assert tokens["refresh_token"] == ann.refresh_token
    ann.token = tokens["access_token"]
    assert ann.asked("GET")["data"] == []


def test_each_token_serves_its_own_purpose(ann: Workspace) -> None:
    assert ann.refused("POST", "/auth/refresh", {"refresh_token": ann.token}, 401)
    ann.token = ann.refresh_token
    assert ann.refused("GET", f"/workspace/{ann.number}/jobs", status=401) == "Not authenticated"


def test_a_new_password_ends_all_tokens(ann: Workspace) -> None:
    ann.user.set_password("another long password")
    ann.user.save()
    ann.refused("GET", f"/workspace/{ann.number}/jobs", status=401)
    ann.refused("POST", "/auth/refresh", {"refresh_token": ann.refresh_token}, 401)


def test_tokens_expire(ann: Workspace) -> None:
    ann.token = login_tokens.issue(ann.user, login_tokens.ACCESS, now=datetime.now(UTC) - timedelta(minutes=31))
    ann.refused("GET", f"/workspace/{ann.number}/jobs", status=401)


@pytest.mark.parametrize("header", ["", "Bearer x.y.z", "Bearer", "Basic YTpi", "Bearer \u00e9"])
def test_without_a_valid_token_there_is_a_challenge(ann: Workspace, header: str) -> None:
    headers = {"Authorization": header.encode().decode("latin-1")} if header else {}
    answer = Client().get(f"/workspace/{ann.number}/jobs", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})
    assert answer["WWW-Authenticate"] == "Bearer"


def test_an_app_token_is_no_login(ann: Workspace) -> None:
    ann.token = factories.token()
    ann.refused("GET", f"/workspace/{ann.number}/jobs", status=401)


# --- Filters, order, pages -------------------------------------------------------------------------------------
@pytest.fixture
def some(ann: Workspace) -> dict[str, str]:
    """Jobs by a name of theirs."""
    jobs = {name: ann.made(job_type=name, priority=name) for name in ("low", "normal", "high", "urgent")}
    ann.moved(jobs["high"], "running")
    ann.moved(jobs["urgent"], "running")
    ann.moved(jobs["urgent"], "success")
    ann.asked("POST", f"/{jobs['low']}/cancel")
    return jobs


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["urgent", "high", "normal", "low"]),
        ("?order=asc", ["low", "normal", "high", "urgent"]),
        ("?status=running", ["high"]),
        ("?status=pending", ["normal"]),
        ("?status=success", ["urgent"]),
        ("?status=completed", ["urgent"]),
        ("?status=failed", []),
        ("?status=&job_type=&page=&status=pending", ["normal"]),
        ("?status=cancelled&status=success", ["urgent", "low"]),
        ("?job_type=low", ["low"]),
        ("?job_type=low&job_type=high", ["high", "low"]),
        ("?priority=high", ["high"]),
        ("?priority=high&priority=urgent", ["urgent", "high"]),
        ("?priority=high&status=pending", []),
        ("?sort=priority", ["urgent", "high", "normal", "low"]),
        ("?sort=priority&order=asc", ["low", "normal", "high", "urgent"]),
        ("?sort=status&order=asc", ["low", "normal", "high", "urgent"]),
        ("?sort=created_at&order=desc", ["urgent", "high", "normal", "low"]),
        ("?page=2&limit=3", ["low"]),
        ("?page=9", []),
        ("?unknown=1", ["urgent", "high", "normal", "low"]),
    ],
)
def test_filters_order_and_pages(ann: Workspace, some: dict[str, str], query: str, names: list[str]) -> None:
    found = {job_id: name for name, job_id in some.items()}
    shown = ann.asked("GET", query)
    assert [found[job["job_id"]] for job in shown["data"]] == names
    if "page" not in query:
        assert shown["pagination"] == {"page": 1, "limit": 50, "total": len(names), "total_pages": min(len(names), 1)}
    assert [found[job["job_id"]] for job in ann.ask("GET", f"/jobs{query}")["data"]] == names


def test_the_last_changed_may_come_first(ann: Workspace) -> None:
    ids = [ann.made() for _ in range(3)]
    Job.objects.filter(pk=ids[1]).update(updated_at=datetime(2999, 1, 1, tzinfo=UTC))
    Job.objects.filter(pk=ids[2]).update(updated_at=datetime(2000, 1, 1, tzinfo=UTC))
    shown = ann.asked("GET", "?sort=updated_at&order=desc&page=1&limit=20")
    assert [job["job_id"] for job in shown["data"]] == [ids[1], ids[0], ids[2]]


def test_pages_tell_the_true_total(ann: Workspace) -> None:
    ids = [ann.made() for _ in range(5)]
    pages = [ann.asked("GET", f"?sort=priority&limit=2&page={page}") for page in (1, 2, 3, 4)]
    assert [job["job_id"] for page in pages for job in page["data"]] == ids[::-1]
    assert {(page["pagination"]["total"], page["pagination"]["total_pages"]) for page in pages} == {(5, 3)}


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "limit=0", "limit=101", "sort=name", "order=up", "status=done", "priority=top"]
)
@pytest.mark.parametrize("path", ["/workspace/{}/jobs", "/jobs"])
def test_wrong_parameters_are_422(ann: Workspace, path: str, query: str) -> None:
    detail = ann.refused("GET", f"{path.format(ann.number)}?{query}")
    assert query.partition("=")[0] in detail


# --- Create ----------------------------------------------------------------------------------------------------
def test_defaults_of_a_create(ann: Workspace) -> None:
    shown = ann.asked("POST", "", {"job_type": "batch", "workspace_id": ann.number}, 201)
    told = {key: shown[key] for key in ("priority", "estimated_duration", "scheduled_at", "max_retries", "result")}
    assert told == {
        "priority": "normal",
        "estimated_duration": None,
        "scheduled_at": None,
        "max_retries": 3,
        "result": None,
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"job_type": None}, "job_type"),
        ({"job_type": "a b"}, "job_type"),
        ({"job_type": 5}, "job_type"),
        ({"workspace_id": 999_999}, "workspace_id"),
        ({"workspace_id": "1"}, "workspace_id"),
        ({"workspace_id": None}, "workspace_id"),
        ({"priority": "top"}, "priority"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"estimated_duration": -1}, "estimated_duration"),
        ({"estimated_duration": 1.5}, "estimated_duration"),
        ({"estimated_duration": "600"}, "estimated_duration"),
        ({"scheduled_at": "soon"}, "scheduled_at"),
        ({"scheduled_at": 5}, "scheduled_at"),
        ({"scheduled_at": "2999-01-01T00:00:00Z"}, "scheduled_at"),
    ],
)
def test_a_wrong_field_of_a_create_is_422(ann: Workspace, change: dict[str, Any], field: str) -> None:
    body = {**CREATE, "workspace_id": ann.number, **change}
    assert field in ann.refused("POST", f"/workspace/{ann.number}/jobs", body)
    assert not Job.objects.exists()


def test_missing_fields_of_a_create_are_named(ann: Workspace) -> None:
    detail = ann.refused("POST", f"/workspace/{ann.number}/jobs", {})
    assert "job_type" in detail
    assert "workspace_id" in detail


def test_a_time_without_offset_is_utc_and_the_past_is_now(ann: Workspace) -> None:
    late = ann.asked("POST", "", {**CREATE, "workspace_id": ann.number, "scheduled_at": "2024-01-15T15:00:00"}, 201)
    assert late["scheduled_at"] == "2024-01-15T15:00:00Z"
    assert Job.objects.get(pk=late["job_id"]).status == JobStatus.WAITING
    ahead = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0, tzinfo=None).isoformat()
    shown = ann.asked("POST", "", {**CREATE, "workspace_id": ann.number, "scheduled_at": ahead}, 201)
    assert (shown["status"], shown["scheduled_at"]) == ("pending", f"{ahead}Z")
    assert Job.objects.get(pk=shown["job_id"]).status == JobStatus.SCHEDULED


@pytest.mark.parametrize(("content", "kind", "status"), [("{", "application/json", 400), ("{}", "text/plain", 415)])
def test_a_body_that_is_no_json_is_refused(ann: Workspace, content: str, kind: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {ann.token}"}
    path = f"/workspace/{ann.number}/jobs"
    answer: Any = ann.client.generic("POST", path, content, content_type=kind, headers=headers)
    assert (answer.status_code, set(answer.json())) == (status, {"detail"})


# --- Moves by PATCH --------------------------------------------------------------------------------------------
def _in(ann: Workspace, status: str) -> str:
    """A job that was brought to this status."""
    job_id = ann.made()
    if status in ("running", "success", "failed"):
        ann.moved(job_id, "running")
    if status in ("success", "failed"):
        ann.moved(job_id, status)
    if status == "cancelled":
        ann.asked("POST", f"/{job_id}/cancel")
    return job_id


LEGAL = {
    "pending": {"pending", "running", "failed", "cancelled"},
    "running": {"pending", "running", "success", "failed", "cancelled"},
    "success": {"success"},
    "failed": {"failed"},
    "cancelled": {"cancelled"},
}


@pytest.mark.parametrize("target", LEGAL)
@pytest.mark.parametrize("source", LEGAL)
def test_only_legal_moves_are_made(ann: Workspace, source: str, target: str) -> None:
    job_id = _in(ann, source)
    before = ann.asked("GET", f"/{job_id}")
    if target in LEGAL[source]:
        assert ann.moved(job_id, target)["status"] == target
    else:
        ann.refused("PATCH", f"/workspace/{ann.number}/jobs/{job_id}", {"status": target}, 400)
        assert ann.asked("GET", f"/{job_id}") == before


@pytest.mark.django_db(transaction=True)
def test_moves_set_the_times_and_are_recorded(ann: Workspace) -> None:
    job_id = ann.made()
    started = ann.moved(job_id, "running")
    assert started["started_at"]
    assert started["completed_at"] is None
    ended = ann.moved(job_id, "success")
    assert ended["started_at"] == started["started_at"]
    assert (ended["actual_duration"], ended["result"]) == (0, None)
    actors = Activity.objects.filter(job_id=job_id, moved_to__gt="").order_by("number").values_list("actor", flat=True)
    assert set(actors) == {"user:ann"}


def test_each_change_is_in_the_audit_without_the_values_of_its_result(ann: Workspace) -> None:
    job_id = ann.made()
    ann.moved(job_id, "running", progress_percent=5, result={"a": "a secret"})
    for body in ({}, {"status": "running"}, {"progress_message": "half"}):
        ann.asked("PATCH", f"/{job_id}", body)

    entries = AuditEntry.objects.filter(object_id=job_id, actor="user:ann").order_by("id")
    assert list(entries.values_list("action", "after")) == [
        ("job.created", mock.ANY),
        ("job.started", mock.ANY),
        ("job.updated", {"progress_percent": 5, "result_keys": ["a"]}),
        ("job.updated", {"progress_message": "half"}),
    ]
    assert "a secret" not in str(list(entries.values("after")))


def test_an_empty_change_changes_nothing(ann: Workspace) -> None:
    for status in LEGAL:
        job_id = _in(ann, status)
        before = ann.asked("GET", f"/{job_id}")
        assert ann.asked("PATCH", f"/{job_id}", {}) == before
        assert ann.asked("PATCH", f"/{job_id}", {"status": None, "result": None, "unknown": 1}) == before


def test_without_a_status_the_status_stays(ann: Workspace) -> None:
    job_id = ann.made()
    shown = ann.asked("PATCH", f"/{job_id}", {"progress_percent": 0, "result": {"a": 1}})
    assert (shown["status"], shown["result"]) == ("pending", {"progress_percent": 0, "a": 1})


def test_an_ended_job_takes_no_result(ann: Workspace) -> None:
    job_id = _in(ann, "success")
    for body in ({"result": {"a": 1}}, {"progress_percent": 5}, {"status": "success", "result": {}}):
        ann.refused("PATCH", f"/workspace/{ann.number}/jobs/{job_id}", body, 400)


def test_results_merge_one_level_deep(ann: Workspace) -> None:
    job_id = ann.made()
    ann.moved(job_id, "running", result={"a": {"x": 1}, "b": 1})
    ann.moved(job_id, "running", result={"a": {"y": 2}, "progress_percent": 30}, progress_percent=10)
    assert ann.asked("GET", f"/{job_id}")["result"] == {"progress_percent": 30, "a": {"y": 2}, "b": 1}
    assert ann.moved(job_id, "success", result={"c": 3})["result"] == {"a": {"y": 2}, "b": 1, "c": 3}
    assert ann.asked("GET", f"/{job_id}/status")["progress_percent"] == 30


def test_a_failed_job_keeps_its_result(ann: Workspace) -> None:
    job_id = ann.made()
    ann.moved(job_id, "running", result={"a": 1})
    assert ann.moved(job_id, "failed", result={"b": 2})["result"] == {"a": 1, "b": 2}
    assert ann.asked("GET", f"/{job_id}/result")["status"] == "failed"


@pytest.mark.parametrize(
    "body",
    [
        {"status": "done"},
        {"status": 5},
        {"progress_percent": 101},
        {"progress_percent": -1},
        {"progress_percent": 50.5},
        {"progress_percent": True},
        {"progress_message": 5},
        {"result": []},
        {"result": "x"},
    ],
)
def test_wrong_values_of_a_change_are_422(ann: Workspace, body: dict[str, Any]) -> None:
    job_id = _in(ann, "running")
    ann.refused("PATCH", f"/workspace/{ann.number}/jobs/{job_id}", body)


def test_a_result_beyond_a_mebibyte_is_413(ann: Workspace) -> None:
    job_id = _in(ann, "running")
    half = {"a": "x" * 600_000}
    ann.asked("PATCH", f"/{job_id}", {"result": half})
    path = f"/workspace/{ann.number}/jobs/{job_id}"
    ann.refused("PATCH", path, {"result": {"b": "x" * 600_000}}, 413)
    ann.refused("PATCH", path, {"result": {"b": "x" * 1_200_000}}, 413)
    assert ann.asked("GET", f"/{job_id}/result")["result"] == half
    (listed,) = ann.asked("GET")["data"]
    assert set(listed["result"]) == {"omitted_bytes"}


@pytest.mark.django_db(transaction=True)
def test_changes_at_once_lose_no_key(ann: Workspace) -> None:
    job_id = _in(ann, "running")

    def change(number: int) -> int:
        body = {"result": {f"key{number}": number}}
        return int(ann.answer("PATCH", f"/workspace/{ann.number}/jobs/{job_id}", body).status_code)

    assert races.in_threads(*(lambda n=n: change(n) for n in range(4))) == [200] * 4
    assert ann.asked("GET", f"/{job_id}")["result"] == {f"key{n}": n for n in range(4)}


@pytest.mark.django_db(transaction=True)
def test_a_cancel_and_a_success_at_once_have_one_winner(ann: Workspace) -> None:
    job_id = _in(ann, "running")
    path = f"/workspace/{ann.number}/jobs/{job_id}"
    found = races.in_threads(
        lambda: ann.answer("POST", f"{path}/cancel").status_code,
        lambda: ann.answer("PATCH", path, {"status": "success"}).status_code,
    )
    assert sorted(found) == [200, 400]


# --- Actions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        ("cancel", "pending", 200),
        ("cancel", "running", 200),
        ("cancel", "success", 400),
        ("cancel", "failed", 400),
        ("cancel", "cancelled", 400),
        ("retry", "pending", 400),
        ("retry", "running", 400),
        ("retry", "success", 400),
        ("retry", "failed", 200),
        ("retry", "cancelled", 200),
    ],
)
def test_actions_by_status(ann: Workspace, action: str, status: str, expected: int) -> None:
    job_id = _in(ann, status)
    response = ann.answer("POST", f"/workspace/{ann.number}/jobs/{job_id}/{action}")
    assert response.status_code == expected
    if expected == 400:
        assert set(response.json()) == {"detail"}


def test_a_job_is_retried_three_times_at_most(ann: Workspace) -> None:
    job_id = ann.made()
    for retries in range(4):
        ann.moved(job_id, "failed")
        if retries < 3:
            assert ann.asked("POST", f"/{job_id}/retry")["retry_count"] == retries + 1
    ann.refused("POST", f"/workspace/{ann.number}/jobs/{job_id}/retry", status=400)


def test_a_retried_job_is_not_scheduled_any_more(ann: Workspace) -> None:
    ahead = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    job_id = ann.made(scheduled_at=ahead)
    ann.asked("POST", f"/{job_id}/cancel")
    shown = ann.asked("POST", f"/{job_id}/retry")
    assert (shown["status"], shown["scheduled_at"]) == ("pending", None)
    assert shown["result"] == {"retry_reason": "Retried via API", "previous_attempts": 0}


def test_a_scheduled_job_may_be_started_early(ann: Workspace) -> None:
    job_id = ann.made(scheduled_at=(datetime.now(UTC) + timedelta(days=2)).isoformat())
    assert ann.moved(job_id, "running")["status"] == "running"


def test_status_and_result_of_a_job_that_waits(ann: Workspace) -> None:
    job_id = ann.made()
    shown = ann.asked("GET", f"/{job_id}/status")
    assert (shown["status"], shown["progress_percent"], shown["progress_message"]) == ("pending", None, None)
    shown = ann.asked("GET", f"/{job_id}/result")
    assert (shown["status"], shown["result"], shown["completed_at"]) == ("pending", None, None)


# --- Isolation and roles ---------------------------------------------------------------------------------------
PATHS = (
    ("GET", "", None),
    ("PATCH", "", {"status": "running"}),
    ("GET", "/status", None),
    ("GET", "/result", None),
    ("POST", "/cancel", None),
    ("POST", "/retry", None),
)


def test_another_workspace_is_forbidden_whether_it_exists_or_not(ann: Workspace, eve: Workspace) -> None:
    eve.made()
    for number in (eve.number, 999_999, 99_999_999_999_999_999_999):
        told = {ann.refused("GET", f"/workspace/{number}/jobs", status=403)}
        told |= {ann.refused("POST", f"/workspace/{number}/jobs", {**CREATE, "workspace_id": number}, 403)}
        assert told == {"No access to this workspace"}
    ann.refused("GET", f"/jobs?workspace_id={eve.number}", status=403)
    assert ann.ask("GET", "/jobs")["data"] == []


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
def test_a_job_elsewhere_is_not_found(ann: Workspace, eve: Workspace, method: str, path: str, body: Any) -> None:
    theirs, ours = eve.made(), ann.made()
    membership("ann", "second")
    second = Membership.objects.get(org_id="second").org.number
    for number, job_id in (
        (ann.number, theirs),
        (eve.number, theirs),
        (eve.number, ours),
        (second, ours),
        (ann.number, NOBODY),
        (ann.number, "job_abc123"),
        (999_999, ours),
    ):
        detail = ann.refused(method, f"/workspace/{number}/jobs/{job_id}{path}", body, 404)
        assert detail == "Job not found in specified workspace"
    assert eve.asked("GET", f"/{theirs}")["status"] == "pending"


def test_a_workspace_that_is_no_number_is_422(ann: Workspace) -> None:
    job_id = ann.made()
    for path in ("/workspace/abc/jobs", f"/workspace/abc/jobs/{job_id}", f"/workspace/-1/jobs/{job_id}/status"):
        ann.refused("GET", path)


def test_a_member_may_only_read(ann: Workspace) -> None:
    bob = Workspace("bob", "acme", "member")
    job_id = ann.made()
    assert bob.asked("GET", f"/{job_id}")["job_id"] == job_id
    base = f"/workspace/{ann.number}/jobs"
    bob.refused("POST", base, {**CREATE, "workspace_id": ann.number}, 403)
    bob.refused("PATCH", f"{base}/{job_id}", {"status": "running"}, 403)
    bob.refused("POST", f"{base}/{job_id}/cancel", status=403)
    bob.refused("POST", f"{base}/{job_id}/retry", status=403)


def test_the_legacy_list_covers_all_workspaces_of_the_caller(ann: Workspace, eve: Workspace) -> None:
    eve.made()
    membership("ann", "second")
    ours = ann.made()
    second = Membership.objects.get(org_id="second").org.number
    other = ann.ask("POST", f"/workspace/{second}/jobs", {"job_type": "x", "workspace_id": second}, 201)["job_id"]
    assert {job["job_id"] for job in ann.ask("GET", "/jobs")["data"]} == {ours, other}
    assert [job["job_id"] for job in ann.ask("GET", f"/jobs?workspace_id={second}")["data"]] == [other]


def test_a_person_without_workspace_sees_nothing(db: None) -> None:
    person("carl")
    Membership.objects.all().delete()
    client = Client()
    body = {"username": "carl", "password": PASSWORD}
    token = client.post("/auth/login", body, content_type="application/json").json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/jobs", headers=headers).json()["pagination"]["total"] == 0
    assert client.get("/workspace/1/jobs", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/auth/login", 405),
        ("DELETE", "/jobs", 405),
        ("PUT", "/workspace/1/jobs", 405),
        ("GET", "/workspace/1", 404),
        ("GET", "/auth/logout", 404),
        ("GET", "/jobs/1", 404),
    ],
)
def test_other_errors_have_the_documents_shape(ann: Workspace, method: str, path: str, status: int) -> None:
    ann.refused(method, path, status=status)


# --- The other doors -------------------------------------------------------------------------------------------
def test_a_job_of_this_door_is_seen_filtered_and_canceled_natively(ann: Workspace) -> None:
    job_id = ann.made(priority="urgent", metadata={"source_file": "dataset.csv", "filters": {"column": "value"}})
    api = factories.api("acme", "SERVICES:ADMIN")
    (shown,) = api.get(NATIVE, {"job_type_id": "workspace", "metadata.source_file": "dataset.csv"}).json()["data"]
    assert (shown["job_id"], shown["priority"]) == (job_id, 9)
    assert shown["params"] == {"source_file": "dataset.csv", "filters": {"column": "value"}}
    assert api.delete(f"{NATIVE}/{job_id}").status_code == 200
    assert ann.asked("GET", f"/{job_id}")["status"] == "cancelled"


def test_native_jobs_are_seen_and_cannot_be_moved_by_hand(ann: Workspace) -> None:
    job = rows.job(JobStatus.COMPLETED, result="Done.", result_data=None)
    shown = ann.asked("GET", f"/{job.pk}")
    assert (shown["job_type"], shown["status"], shown["result"]) == ("greet", "success", {"result": "Done."})
    assert (shown["created_by"], ann.asked("GET", "?job_type=greet")["pagination"]["total"]) == (None, 1)
    waits = rows.job()
    ann.refused("PATCH", f"/workspace/{ann.number}/jobs/{waits.pk}", {"status": "running"}, 400)
    assert ann.asked("POST", f"/{waits.pk}/cancel")["status"] == "cancelled"
