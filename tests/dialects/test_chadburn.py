"""Chadburn's document: every endpoint, example, filter, default and error, and the cases that it leaves open."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.urls import resolve

from agent_jobs import sealed_work
from agent_jobs.models import AuditEntry, Job, JobType, Org, Schedule
from agent_jobs.schedules import firing
from agent_jobs.states import JobStatus
from agent_jobs.turns import calls_in_flight
from tests import factories, rows
from tests.conversations import let_time_pass
from tests.dialects import documented
from tests.dialects.conftest import Door, work
from tests.infra.commands.conftest import marker, processes_with
from tests.schedules.conftest import due
from tests.waiting import PATIENCE, wait_for

__all__ = ["marker"]
pytestmark = pytest.mark.django_db
MOUNT = "/chadburn"
ENDPOINTS = documented.endpoints("chadburn.md")
EXAMPLES = {(one.method, one.route.removeprefix("/api/v1")): one.examples for one in ENDPOINTS}
CREATE, CREATED = EXAMPLES["POST", "/jobs"]
UPDATE, UPDATED = EXAMPLES["PUT", "/jobs/{id}"]


@pytest.fixture
def door(acme: factories.Api) -> Door:
    return Door(acme, f"{MOUNT}/api/v1")


def make(door: Door, **fields: Any) -> str:
    body = {"name": "a", "schedule": "@daily", "command": "echo hello", **fields}
    answer = door.post("/jobs", {name: value for name, value in body.items() if value is not ...})
    assert answer.status_code == 201, answer.content
    return str(answer.json()["data"]["id"])


def end_waiting() -> None:
    """Let the next attempts begin now."""
    for job in Job.objects.filter(waiting_for="retry"):
        let_time_pass(job)


def error(answer: Any, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.content
    told = answer.json()["error"]
    return told["code"], told["message"]


# --- The document ----------------------------------------------------------------------------------------------
def test_the_document_has_nine_endpoints() -> None:
    assert len(ENDPOINTS) == 9


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_every_path_of_the_document_is_served(endpoint: documented.Endpoint) -> None:
    found = resolve(f"{MOUNT}{endpoint.route.replace('{id}', str(uuid4()))}")
    assert hasattr(found.func.cls, endpoint.method.lower())


def test_every_example_of_the_document_is_answered_as_documented(door: Door) -> None:
    made = door.post("/jobs", CREATE)
    assert made.status_code == 201
    assert documented.differences(CREATED, made.json()) == []
    job = made.json()["data"]
    same = ("name", "schedule", "command", "status", "tags", "timeout", "retries", "retry_delay", "environment")
    for key in (*same, "working_directory"):
        assert job[key] == CREATED["data"][key], key
    path = f"/jobs/{job['id']}"

    ran = door.post(f"{path}/run", None)
    assert documented.differences(EXAMPLES["POST", "/jobs/{id}/run"][0], ran.json()) == []
    # The example's folder is not on this machine, so this run fails for good; a second one succeeds.
    assert work("commands") == 1
    assert door.put(path, {"command": "echo done", "working_directory": None}).status_code == 200
    door.post(f"{path}/run")
    assert work("commands") == 1

    shown = door.get(path)
    assert documented.differences(EXAMPLES["GET", "/jobs/{id}"][0], shown.json()) == []
    assert shown.json()["data"]["last_run"]["output"] == "done\n"
    listed = door.get("/jobs")
    assert documented.differences(EXAMPLES["GET", "/jobs"][0], listed.json()) == []
    assert listed.json()["pagination"] == {"total": 1, "limit": 100, "offset": 0}
    history = door.get(f"{path}/executions")
    assert documented.differences(EXAMPLES["GET", "/jobs/{id}/executions"][0], history.json()) == []
    assert history.json()["pagination"] == {"total": 2, "limit": 10, "offset": 0}
    assert [run["status"] for run in history.json()["data"]] == ["success", "failure"]

    door.put(path, {"working_directory": CREATE["working_directory"]})
    updated = door.put(path, UPDATE)
    assert (updated.status_code, documented.differences(UPDATED, updated.json())) == (200, [])
    for key in set(UPDATED["data"]) - {"id", "created_at", "updated_at"}:
        assert updated.json()["data"][key] == UPDATED["data"][key], key

    resumed = door.post(f"{path}/resume")
    assert documented.differences(EXAMPLES["POST", "/jobs/{id}/resume"][0], resumed.json()) == []
    paused = door.post(f"{path}/pause")
    assert documented.differences(EXAMPLES["POST", "/jobs/{id}/pause"][0], paused.json()) == []
    assert (resumed.json()["data"]["status"], paused.json()["data"]["status"]) == ("active", "paused")
    assert door.delete(path).json() == EXAMPLES["DELETE", "/jobs/{id}"][0]


def test_the_defaults_are_those_of_the_document(door: Door) -> None:
    job = door.get(f"/jobs/{make(door)}").json()["data"]
    expected = {"tags": [], "timeout": 3600, "retries": 0, "retry_delay": 60, "environment": {}, "status": "active"}
    assert {key: job[key] for key in expected} == expected
    assert (job["working_directory"], job["last_run"]) == (None, None)


# --- Lists -----------------------------------------------------------------------------------------------------
def test_every_filter_of_jobs_finds_what_it_says(door: Door) -> None:
    first = make(door, tags=["a", "both"])
    second = make(door, tags=["b", "both", "x=y, z"])
    third = make(door, schedule="2099-01-01T00:00:00Z")
    door.post(f"/jobs/{second}/pause")
    Schedule.objects.filter(pk=third).update(next_at=None)
    for query, expected in {
        "": [first, second, third],
        "status=active": [first],
        "status=paused": [second],
        "status=completed": [third],
        "tag=both": [first, second],
        "tag=a": [first],
        "tag=a&tag=b": [first, second],
        "tag=x%3Dy%2C+z": [second],
        "tag=none": [],
        "tag=both&status=paused": [second],
        "limit=1": [first],
        "limit=1&offset=1": [second],
        "offset=7": [],
        "unknown=1&status=": [first, second, third],
    }.items():
        answer = door.get(f"/jobs?{query}").json()
        assert [job["id"] for job in answer["data"]] == expected, query
        is_page = "limit" in query or "offset" in query
        assert answer["pagination"]["total"] == (3 if is_page else len(expected)), query


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "offset=-1", "offset=x", "status=done"])
def test_a_list_refuses_what_its_parameters_cannot_be(door: Door, query: str) -> None:
    code, message = error(door.get(f"/jobs?{query}"))
    assert code == "invalid_request"
    assert query.split("=")[0] in message


def test_executions_are_filtered_paged_and_newest_first(door: Door, acme: factories.Api) -> None:
    job = make(door)
    ids = [door.post(f"/jobs/{job}/run").json()["data"]["execution_id"] for _ in range(12)]
    for one in ids[:2]:
        assert acme.delete(f"/services/agent-jobs/{one}").status_code == 200
    work("commands")
    path = f"/jobs/{job}/executions"
    assert len(door.get(path).json()["data"]) == 10
    assert door.get(path).json()["pagination"] == {"total": 12, "limit": 10, "offset": 0}
    assert [run["id"] for run in door.get(f"{path}?limit=100").json()["data"]] == ids[::-1]
    assert door.get(f"{path}?limit=100000").json()["pagination"]["limit"] == 100
    assert [run["id"] for run in door.get(f"{path}?offset=11").json()["data"]] == ids[:1]
    assert {run["id"] for run in door.get(f"{path}?status=failure").json()["data"]} == set(ids[:2])
    assert door.get(f"{path}?status=success").json()["pagination"]["total"] == 10
    assert door.get(f"{path}?status=in_progress").json() == {
        "data": [],
        "pagination": {"total": 0, "limit": 10, "offset": 0},
    }
    for query in ("status=failed", "limit=0", "limit=x", "offset=-1"):
        error(door.get(f"{path}?{query}"))


# --- Creating --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"command": ...}, "command", "invalid_request"),
        ({"name": ...}, "name", "invalid_request"),
        ({"schedule": ...}, "schedule", "invalid_request"),
        ({"command": ""}, "command", "invalid_request"),
        ({"command": 1}, "command", "invalid_request"),
        ({"schedule": "@every 1d"}, "schedule", "invalid_schedule"),
        ({"schedule": "0 0 31 2 *"}, "schedule", "invalid_schedule"),
        ({"schedule": "* * * *"}, "schedule", "invalid_schedule"),
        ({"schedule": "* * * * * * *"}, "schedule", "invalid_schedule"),
        ({"schedule": "2020-01-01T00:00:00Z"}, "schedule", "invalid_schedule"),
        ({"schedule": "2030-02-31T00:00:00Z"}, "schedule", "invalid_schedule"),
        ({"schedule": "CRON_TZ=Mars/Olympus 0 0 * * *"}, "schedule", "invalid_schedule"),
        ({"schedule": "CRON_TZ="}, "schedule", "invalid_schedule"),
        ({"timeout": "3600"}, "timeout", "invalid_request"),
        ({"timeout": 0}, "timeout", "invalid_request"),
        ({"timeout": -1}, "timeout", "invalid_request"),
        ({"timeout": 1.5}, "timeout", "invalid_request"),
        ({"retries": -1}, "retries", "invalid_request"),
        ({"retries": True}, "retries", "invalid_request"),
        ({"retry_delay": -1}, "retry_delay", "invalid_request"),
        ({"environment": {"A": 1}}, "environment", "invalid_request"),
        ({"environment": ["A"]}, "environment", "invalid_request"),
        ({"environment": {"A": "******"}}, "environment.A", "invalid_request"),
        ({"environment": {"A=B": "x"}}, "environment", "invalid_request"),
        ({"environment": {"AGENT_JOBS_X": "x"}}, "environment", "invalid_request"),
        ({"tags": "a"}, "tags", "invalid_request"),
        ({"tags": [1]}, "tags", "invalid_request"),
        ({"working_directory": "../up"}, "working_directory", "invalid_request"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_stored(
    door: Door, fields: dict[str, Any], field: str, code: str
) -> None:
    body = {"name": "a", "schedule": "@daily", "command": "true", **fields}
    answer = door.post("/jobs", {name: value for name, value in body.items() if value is not ...})
    told, message = error(answer)
    assert (told, message.split(":")[0].startswith(field)) == (code, True), message
    assert not Schedule.objects.exists()
    assert not JobType.objects.exists()


@pytest.mark.parametrize(
    "schedule",
    [
        "0 0 * * *",
        "30 0 0 * * *",
        "@DAILY",
        "@every 1h30m",
        "@every 500ms",
        "0 0 * * 7",
        "0 0 ? * MON-FRI",
        "CRON_TZ=Europe/Berlin 30 2 * * *",
        "2099-01-01T00:00:00Z",
        "2099-01-01T00:00:00+02:00",
        "2099-01-01 00:00:00",
    ],
)
def test_a_schedule_is_kept_as_it_came(door: Door, schedule: str) -> None:
    job = door.get(f"/jobs/{make(door, schedule=schedule)}").json()["data"]
    assert job["schedule"] == schedule
    assert job["next_run"] is not None


def test_five_fields_have_no_seconds(door: Door) -> None:
    next_run = door.get(f"/jobs/{make(door, schedule='15 * * * *')}").json()["data"]["next_run"]
    assert datetime.fromisoformat(next_run).strftime("%M:%S") == "15:00"


def test_nulls_and_unknown_keys_are_no_errors(door: Door) -> None:
    optional = ("tags", "timeout", "retries", "retry_delay", "environment", "working_directory")
    job = make(door, **dict.fromkeys(optional), container="x", status="paused")
    assert door.get(f"/jobs/{job}").json()["data"]["timeout"] == 3600


def test_two_jobs_may_have_one_name(door: Door) -> None:
    assert make(door, name="twice") != make(door, name="twice")


def test_what_no_database_stores_is_replaced(door: Door) -> None:
    body = {"name": "a", "schedule": "@daily", "command": "echo \x00 \ud800", "tags": ["\x00"]}
    answer = door.post("/jobs", body)
    assert answer.status_code == 201
    assert (answer.json()["data"]["command"], answer.json()["data"]["tags"]) == ("echo \ufffd \ufffd", ["\ufffd"])
    assert door.get("/jobs?tag=%00").json()["pagination"]["total"] == 1


def test_the_job_type_is_made_once_and_privately(door: Door) -> None:
    make(door)
    make(door)
    job_type = JobType.objects.get()
    assert (job_type.key, job_type.runner, job_type.visibility) == ("chadburn-command", "command", "private")
    assert AuditEntry.objects.filter(action="job_type.created").count() == 1


@pytest.mark.parametrize("off", ["organisation", "service"])
def test_without_permission_for_commands_it_is_forbidden(door: Door, settings: Any, off: str) -> None:
    job = make(door)
    if off == "service":
        settings.COMMAND_RUNNER = "off"
    else:
        Org.objects.filter(pk="acme").update(allows_commands=False)
    assert error(door.post(f"/jobs/{job}/run"), 403)[0] == "forbidden"
    assert error(door.post("/jobs", CREATE), 403)[0] == "forbidden"
    assert not Job.objects.exists()


# --- Reading ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""),
        ("put", ""),
        ("delete", ""),
        ("post", "/run"),
        ("post", "/pause"),
        ("post", "/resume"),
        ("get", "/executions"),
    ],
)
def test_what_is_not_ours_is_not_there(door: Door, rival: factories.Api, method: str, path: str) -> None:
    theirs = make(Door(rival, door.mount))
    answers = [getattr(door, method)(f"/jobs/{one}{path}") for one in (theirs, uuid4(), "job-123", "%00", "a" * 300)]
    assert [error(answer, 404)[0] for answer in answers] == ["not_found"] * 5
    assert Schedule.objects.get(pk=theirs).version == 1


def test_a_schedule_of_another_kind_is_not_there(door: Door, acme: factories.Api) -> None:
    rows.job_type()
    target = {"org_id": "acme", "platform": "web", "code": "lobby"}
    job = {"job_type_id": "greet", "target_channel": target, "params": {"name": "Ann"}}
    made = acme.post("/services/agent-schedules", {"name": "x", "cron": "@daily", "job": job}).json()["data"]["id"]
    error(door.get(f"/jobs/{made}"), 404)
    assert door.get("/jobs").json()["data"] == []


def test_an_id_is_found_with_and_without_its_prefix(door: Door) -> None:
    job = make(door)
    assert door.get(f"/jobs/job-{job}").json() == door.get(f"/jobs/{job.upper()}").json()


def test_a_running_one_has_no_end_yet(door: Door) -> None:
    job = make(door)
    run = door.post(f"/jobs/{job}/run").json()["data"]["execution_id"]
    last = door.get(f"/jobs/{job}").json()["data"]["last_run"]
    assert (last["status"], last["finished_at"], last["exit_code"]) == ("in_progress", None, None)
    (shown,) = door.get(f"/jobs/{job}/executions").json()["data"]
    assert (shown["id"], shown["duration"], shown["error"], shown["retry_count"]) == (run, None, None, 0)
    assert shown["started_at"]


# --- Running ---------------------------------------------------------------------------------------------------
def test_a_failure_has_its_code_its_output_and_its_reason(door: Door) -> None:
    job = make(door, command="echo out; echo 'it broke' >&2; exit 3")
    door.post(f"/jobs/{job}/run")
    work("commands")
    (run,) = door.get(f"/jobs/{job}/executions").json()["data"]
    assert (run["status"], run["exit_code"], run["retry_count"]) == ("failure", 3, 0)
    assert (run["output"], run["error"], run["duration"]) == ("out\n", "it broke\n", 0)


def test_it_is_repeated_as_often_and_as_late_as_it_says(door: Door) -> None:
    job = make(door, command="exit 1", retries=2, retry_delay=0)
    door.post(f"/jobs/{job}/run")
    for _ in range(3):
        assert work("commands") == 1
        end_waiting()
    (run,) = door.get(f"/jobs/{job}/executions").json()["data"]
    assert (run["status"], run["retry_count"]) == ("failure", 2)
    made = Job.objects.get()
    assert made.config["retry_policy"]["initial_interval_seconds"] == 0
    assert made.config["attempt_timeout_seconds"] == 3600


def test_a_secret_reaches_the_command_and_nobody_else(door: Door, acme: factories.Api) -> None:
    environment = {"KEY": "s3cret-value", "MONTH": "2024-01"}
    job = make(door, command='echo "$MONTH-15 $KEY"', environment=environment)
    run = door.post(f"/jobs/{job}/run").json()["data"]["execution_id"]
    work("commands")
    (shown,) = door.get(f"/jobs/{job}/executions").json()["data"]
    assert (shown["status"], shown["output"]) == ("success", "2024-01-15 ******\n"), "an ordinary variable is no secret"
    pages = (door.get(f"/jobs/{job}"), acme.get(f"/services/agent-jobs/{run}"))
    assert "s3cret-value" not in "".join(page.content.decode() for page in pages)


def test_a_second_run_at_its_time_is_left_out_and_is_no_execution(door: Door) -> None:
    job = make(door)
    for _ in range(2):
        due(job)
        firing.fire_due()
    assert door.get(f"/jobs/{job}/executions").json()["pagination"]["total"] == 1
    assert door.post(f"/jobs/{job}/run").status_code == 200, "by hand it runs all the same"
    assert door.get(f"/jobs/{job}/executions").json()["pagination"]["total"] == 2


def test_a_single_run_completes_the_job(door: Door) -> None:
    job = make(door, schedule=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    at = datetime.now(UTC) - timedelta(seconds=1)
    found = Schedule.objects.get(pk=job)
    Schedule.objects.filter(pk=job).update(next_at=at, definition={**found.definition, "run_at": at.isoformat()})
    firing.fire_due()
    shown = door.get(f"/jobs/{job}").json()["data"]
    assert (shown["status"], shown["next_run"]) == ("completed", None)
    for action in ("pause", "resume"):
        assert error(door.post(f"/jobs/{job}/{action}"), 409)[0] == "conflict"
    assert door.get("/jobs?status=completed").json()["pagination"]["total"] == 1
    assert door.put(f"/jobs/{job}", {"schedule": "@daily"}).json()["data"]["status"] == "active"


# --- Changing --------------------------------------------------------------------------------------------------
def test_an_update_changes_only_what_it_names(door: Door) -> None:
    job = make(door, tags=["t"], timeout=10, retries=2, retry_delay=5, environment={"K": "one-secret"})
    before = door.get(f"/jobs/{job}").json()["data"]
    after = door.put(f"/jobs/{job}", {"name": "b", "unknown": 1}).json()["data"]
    assert {key for key in after if after[key] != before[key]} == {"name", "updated_at"}
    same = door.put(f"/jobs/{job}", {**before, "name": "b"})
    assert same.status_code == 200
    assert same.json()["data"] == after, "what a client reads and sends back changes nothing"
    reset = door.put(f"/jobs/{job}", dict.fromkeys(("tags", "timeout", "retries", "retry_delay", "environment")))
    expected = {"tags": [], "timeout": 3600, "retries": 0, "retry_delay": 60, "environment": {}}
    assert {key: reset.json()["data"][key] for key in expected} == expected


def test_a_mask_keeps_the_secret(door: Door) -> None:
    job = make(door, command='echo "$K"', environment={"K": "abc", "L": "other"})
    answer = door.put(f"/jobs/{job}", {"environment": {"K": "******", "M": "new-one"}})
    assert answer.json()["data"]["environment"] == {"K": "******", "M": "******"}
    assert sealed_work.secrets_of(Schedule.objects.get()) == {"/environment/K": "abc", "/environment/M": "new-one"}
    error(door.put(f"/jobs/{job}", {"environment": {"X": "******"}}))


def test_another_command_gets_a_stored_secret_from_nobody_but_its_author(door: Door) -> None:
    job = make(door, command='echo "$K"', environment={"K": "s3cret-value"})
    other = Door(factories.api("acme", "SERVICES:WRITE"), door.mount)
    printing = {"command": 'echo "$K" | base64'}
    for body in (printing, {**printing, "environment": {"K": "******"}}):
        code, message = error(other.put(f"/jobs/{job}", body))
        assert (code, "environment.K" in message) == ("invalid_request", True)
    assert other.put(f"/jobs/{job}", {**printing, "environment": {"K": "its-own"}}).status_code == 200
    error(door.put(f"/jobs/{job}", {"command": "env"}))  # by now the value is somebody else's

    kept = make(door, command='echo "$K"', environment={"K": "s3cret-value"})
    assert door.put(f"/jobs/{kept}", printing).json()["data"]["environment"] == {"K": "******"}


@pytest.mark.parametrize(
    "body",
    [
        {"status": "completed"},
        {"status": "done"},
        {"name": None},
        {"command": None},
        {"schedule": "x"},
        {"timeout": 0},
    ],
)
def test_an_update_refuses_what_cannot_be(door: Door, body: dict[str, Any]) -> None:
    job = make(door)
    _, message = error(door.put(f"/jobs/{job}", body))
    assert next(iter(body)) in message
    assert Schedule.objects.get().version == 1


def test_a_new_schedule_leaves_a_paused_job_paused(door: Door) -> None:
    job = make(door)
    assert [door.post(f"/jobs/{job}/pause").status_code for _ in range(2)] == [200, 200]
    after = door.put(f"/jobs/{job}", {"schedule": "@hourly"}).json()["data"]
    assert (after["status"], after["next_run"], after["schedule"]) == ("paused", None, "@hourly")
    assert door.post(f"/jobs/{job}/run").status_code == 200
    resumed = [door.post(f"/jobs/{job}/resume").json()["data"] for _ in range(2)]
    assert [one["status"] for one in resumed] == ["active", "active"]
    assert datetime.fromisoformat(resumed[0]["next_run"]) > datetime.now(UTC)


def test_missed_runs_of_a_long_pause_are_not_made_up_for(door: Door) -> None:
    job = make(door, schedule="@hourly")
    door.post(f"/jobs/{job}/pause")
    Schedule.objects.update(created_at=datetime.now(UTC) - timedelta(days=30))
    door.post(f"/jobs/{job}/resume")
    assert firing.fire_due() == 0
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_deleting_ends_a_running_command_within_two_seconds(door: Door, marker: str) -> None:
    job = make(door, command=f"sleep {marker} & setsid sleep {marker} & wait")
    run = door.post(f"/jobs/{job}/run").json()["data"]["execution_id"]

    def serve() -> None:
        work("commands")
        connection.close()

    serving = threading.Thread(target=serve)
    serving.start()
    wait_for(lambda: len(processes_with(marker)) >= 3, what="the command runs")
    assert door.delete(f"/jobs/{job}").status_code == 200
    began = time.monotonic()
    while processes_with(marker) and time.monotonic() - began < PATIENCE:
        calls_in_flight.CALLS.look()  # what the keeper does each second
        serving.join(0.05)
    assert time.monotonic() - began < 1.5
    serving.join(PATIENCE)
    assert Job.objects.get(pk=run).status == JobStatus.CANCELED
    error(door.delete(f"/jobs/{job}"), 404)
    error(door.get(f"/jobs/{job}/executions"), 404)


# --- Beside the native API -------------------------------------------------------------------------------------
def test_what_is_made_here_is_seen_filtered_and_canceled_natively(door: Door, acme: factories.Api) -> None:
    job = make(door, name="here")
    run = door.post(f"/jobs/{job}/run").json()["data"]["execution_id"]
    (seen,) = acme.get("/services/agent-jobs?job_type_id=chadburn-command").json()["data"]
    assert seen["id"] == run
    assert acme.get(f"/services/agent-schedules/{job}").json()["data"]["name"] == "here"
    assert acme.delete(f"/services/agent-jobs/{run}").status_code == 200
    (shown,) = door.get(f"/jobs/{job}/executions").json()["data"]
    assert (shown["status"], shown["exit_code"]) == ("failure", None)
    assert "CANCELED" in shown["error"]


def test_what_is_made_natively_is_shown_here(door: Door, acme: factories.Api) -> None:
    make(door)
    body = {
        "name": "native",
        "every_seconds": 90,
        "job": {"job_type_id": "chadburn-command", "work": {"argv": ["echo", "two words"]}},
    }
    native = acme.post("/services/agent-schedules", body).json()["data"]["id"]
    shown = door.get(f"/jobs/{native}").json()["data"]
    assert (shown["schedule"], shown["command"], shown["timeout"]) == ("@every 1m30s", "echo 'two words'", 600)
    assert door.put(f"/jobs/{native}", {**shown, "name": "n"}).json()["data"]["schedule"] == "@every 1m30s"
    assert Schedule.objects.get(pk=native).definition["job"]["work"]["argv"] == ["echo", "two words"]
    acme.patch(f"/services/agent-schedules/{native}", {"cron": "0 3 * * *", "time_zone": "Europe/Berlin"})
    assert door.get(f"/jobs/{native}").json()["data"]["schedule"] == "CRON_TZ=Europe/Berlin 0 3 * * *"


def test_limits_are_told_in_the_headers_that_its_clients_read(door: Door, settings: Any) -> None:
    settings.RATE_TOKEN = "100/minute"
    answer = door.get("/jobs")
    assert (answer["X-RateLimit-Limit"], answer["X-RateLimit-Remaining"]) == ("100", "99")
    assert abs(int(answer["X-RateLimit-Reset"]) - time.time()) < 70
