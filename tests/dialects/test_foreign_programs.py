"""Stand-ins for the upstreams' own clients (`foreign_programs`) call our dialects, from create to delete."""

from typing import Any
from unittest import mock

import pytest

from agent_jobs import sealed_work
from agent_jobs.dialects.chronos import chronos_views
from agent_jobs.models import Job, Schedule
from tests import factories, open_answers
from tests.dialects import foreign_programs as programs
from tests.dialects.conftest import work
from tests.dialects.foreign_programs import (
    ChadburnPage,
    Chronosctl,
    ChronosPage,
    ChronosRefused,
    ExecutrProgram,
    ExecutrRefused,
)
from tests.dialects.go_json import BOOL, INT, OPTIONAL_TIME, TEXT, Undecodable, decode
from tests.dialects.test_chronos import body as chronos_body
from tests.fakes.webhook import FakeReceiver

pytestmark = pytest.mark.django_db
SUBMIT = {
    "type": "data-processing",
    "binary_url": "https://example.com/binary",
    "binary_sha256": "AB" * 32,
    "priority": "background",
}
EXECUTOR = "worker-1-0123abcd"
CLUSTER_RUN = {"job_id": TEXT, "next_run": OPTIONAL_TIME}


@pytest.fixture
def token(acme: factories.Api) -> str:
    return factories.token("acme", "SERVICES:ADMIN")


def at_work() -> Any:
    """A worker performs the runs while triggers wait."""
    return mock.patch.object(open_answers, "pause", side_effect=lambda: work("webhooks"))


# --- The decoder itself ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (5, programs.TEXT),
        ("5", programs.INT),
        (1.0, programs.INT),
        (True, programs.INT),
        (1, programs.BOOL),
        ("", programs.TIME),
        ("2026-01-01T00:00:00", programs.TIME),
        ("job_123", programs.ID),
        ({}, [programs.TEXT]),
        ([], {"a": programs.TEXT}),
        ({"a": 1}, programs.Map(programs.TEXT)),
    ],
)
def test_the_decoder_refuses_what_go_refuses(value: Any, shape: Any) -> None:
    with pytest.raises(Undecodable):
        decode(value, shape)


# --- Executr ---------------------------------------------------------------------------------------------------
def test_executrs_program_submits_runs_and_looks(token: str) -> None:
    executr = ExecutrProgram(token, "/executr/api/v1", user="anybody")
    assert executr.health()["status"] == "healthy"
    assert executr.claim(EXECUTOR) is None
    first = executr.submit(**SUBMIT, arguments=["a", ""], env_variables={"K": "v"})
    second = executr.submit(**SUBMIT)
    assert executr.job(first)["status"] == "pending"
    claimed = executr.claim(EXECUTOR)
    assert (claimed["id"], claimed["status"], claimed["env_variables"]) == (first, "running", {"K": "v"})
    executr.heartbeat(first, EXECUTOR)
    executr.complete(first, EXECUTOR, "done \u0000 \ufffd")
    assert (executr.job(first)["status"], executr.job(first)["stdout"]) == ("completed", "done \ufffd \ufffd")
    assert executr.claim(EXECUTOR)["id"] == second
    executr.fail(second, EXECUTOR)
    failed = executr.job(str(second).upper())
    assert (failed["status"], failed["exit_code"], failed["error_message"]) == ("failed", None, "job failed")
    third = executr.submit(**SUBMIT)
    executr.cancel(third)
    assert [job["status"] for job in executr.jobs()] == ["cancelled", "failed", "completed"]
    assert [job["id"] for job in executr.jobs("?status=&type=&priority=&limit=1&offset=1")] == [second]
    assert executr.job(third.hex)["id"] == third


def test_executrs_program_is_told_what_is_wrong(token: str) -> None:
    executr = ExecutrProgram(token, "/executr/api/v1")
    done = executr.submit(**SUBMIT)
    executr.claim(EXECUTOR)
    executr.complete(done, EXECUTOR, "")
    for status, call in (
        (400, lambda: executr.submit(**{**SUBMIT, "priority": ""})),
        (400, lambda: executr.submit(**{**SUBMIT, "binary_sha256": "abc123..."})),
        (404, lambda: executr.job("job_123")),
        (400, lambda: executr.cancel(done)),
        (404, lambda: executr.heartbeat(done, EXECUTOR)),
        (400, lambda: executr.complete(done, EXECUTOR, "")),
        (400, lambda: executr.fail(done, EXECUTOR)),
        (400, lambda: executr.complete(done, "another", "")),
        (404, lambda: executr.job("")),
    ):
        with pytest.raises(ExecutrRefused, match=f"^{status} "):
            call()
    with pytest.raises(ExecutrRefused, match=r"^401 "):
        ExecutrProgram("wrong", "/executr/api/v1").jobs()


def test_a_whole_job_has_every_key_and_no_null_where_a_list_belongs(token: str) -> None:
    executr = ExecutrProgram(token, "/executr/api/v1")
    executr.submit(**SUBMIT)
    for shown in (
        executr.send("GET", "/jobs").json()[0],
        executr.send(
            "POST",
            "/jobs/claim",
            {
                "executor_id": EXECUTOR,
                "executor_ip": "",
            },
        ).json(),
    ):
        assert {key for key in programs.EXECUTR_JOB if key not in shown} <= {"stdout", "stderr"}
        assert (shown["arguments"], shown["env_variables"], shown["error_message"]) == ([], {}, "")


# --- Chronos ---------------------------------------------------------------------------------------------------
def test_chronosctl_works_from_create_to_delete(token: str, receiver: FakeReceiver) -> None:
    ctl = Chronosctl(token, "/chronos/api/v1")
    assert ctl.jobs() == []
    file = chronos_body(name="nightly", webhook={"url": receiver.address}, tags={"a": "b"}, unknown=1)
    job = ctl.create(file)
    assert ctl.job(job) == f"{job} nightly  @daily UTC"
    assert ctl.jobs() == [f"{job[:8]} nightly @daily False"]
    assert ctl.executions(job) == []
    ctl.act("POST", f"/jobs/{job}/enable")
    with at_work():
        run, status = ctl.trigger(job)
    assert (run[:5], status) == ("exec-", "success")
    (line,) = ctl.executions(job)
    assert line.startswith(f"{run[:8]} success 1 0.")
    assert ctl.cluster() == "1 0"
    ctl.act("POST", f"/jobs/{job}/disable")
    ctl.act("DELETE", f"/jobs/{job}")
    with pytest.raises(ChronosRefused, match=r"^NOT_FOUND: "):
        ctl.job(job)


def test_chronosctl_shows_errors_and_runs_that_go_wrong(token: str) -> None:
    ctl = Chronosctl(token, "/chronos/api/v1")
    for file, code in (
        ({"jobs": [chronos_body()]}, "VALIDATION_ERROR"),
        (chronos_body(timeout="5 minutes"), "INVALID_TIMEOUT"),
        ([], "INVALID_JSON"),
    ):
        with pytest.raises(ChronosRefused, match=f"^{code}: "):
            ctl.create(file)
    with pytest.raises(ChronosRefused, match=r"^UNAUTHORIZED: "):
        Chronosctl("wrong", "/chronos/api/v1").jobs()
    with pytest.raises(ChronosRefused, match=r"^NOT_FOUND: "):
        ctl.act("GET", "/migration/status")
    job = ctl.create(chronos_body(retry_policy={"max_attempts": 1}))
    with at_work():
        assert ctl.trigger(job)[1] == "failed"
    with mock.patch.object(chronos_views, "TRIGGER_SECONDS", 0):
        assert ctl.trigger(job)[1] == "running"
        assert ctl.trigger(job)[1] == "skipped"
    skipped, running, failed = ctl.executions(job)
    assert (skipped.split()[1:], running.split()[1:]) == (["skipped", "0", "0.0"], ["pending", "0", "-"])
    assert failed.split()[1:3] == ["failed", "1"]


def test_chronos_web_page_shows_and_edits_without_losing_anything(token: str) -> None:
    page = ChronosPage(token, "/chronos/api/v1")
    auth = {"type": "basic", "username": "u", "password": "a-password"}
    hook = {"url": "http://127.0.0.1:9/in", "method": "POST", "headers": {"X-Secret": "a-secret"}, "body": "b"}
    whole = chronos_body(
        webhook={**hook, "auth": auth, "success_codes": [204]}, tags={"team": "a"}, timeout="1h30m", enabled=True
    )
    job = page.call("POST", "/jobs", whole)["id"]
    before = page.job(job)
    after = page.edit(job, name="renamed")
    assert {**after, "name": "a", "updated_at": 0, "version": 1} == {**before, "updated_at": 0}
    secrets = sealed_work.secrets_of(Schedule.objects.get())
    assert {"a-password"} <= set(secrets.values())
    for action in ("disable", "enable"):
        assert page.call("POST", f"/jobs/{job}/{action}")["id"] == job
    assert page.executions(job) == []
    with mock.patch.object(chronos_views, "TRIGGER_SECONDS", 0):
        page.call("POST", f"/jobs/{job}/trigger")
        page.call("POST", f"/jobs/{job}/trigger")
    assert [one["status"] for one in page.executions(job)] == ["skipped", "pending"]
    status = page.call("GET", "/cluster/status")
    decode(status, {"is_leader": BOOL, "jobs_total": INT, "running": INT, "next_runs": [CLUSTER_RUN]})
    assert status["next_runs"][0].keys() == CLUSTER_RUN.keys()
    page.call("DELETE", f"/jobs/{job}", needs_data=False)


# --- Chadburn --------------------------------------------------------------------------------------------------
def test_chadburns_page_works_from_create_to_delete(token: str) -> None:
    page = ChadburnPage(token, "/chadburn/api/v1")
    assert page.call("GET", "/jobs", shape=[programs.CHADBURN_LISTED]) == []
    fields = {"name": "a", "schedule": "@daily", "command": "echo $SECRET; exit 3", "environment": {"SECRET": "shh"}}
    job = page.call("POST", "/jobs", {**fields, "retries": 0}, shape=programs.CHADBURN_JOB)["id"]
    run = page.call("POST", f"/jobs/{job}/run")["execution_id"]
    (waiting,) = page.call("GET", f"/jobs/{job}/executions", shape=[programs.CHADBURN_EXECUTION])
    assert (waiting["status"], waiting["exit_code"], waiting["finished_at"]) == ("in_progress", None, None)
    assert work("commands") == 1
    (ended,) = page.call("GET", f"/jobs/{job}/executions", shape=[programs.CHADBURN_EXECUTION])
    assert (ended["id"], ended["status"], ended["exit_code"]) == (run, "failure", 3)
    shown = page.call("GET", f"/jobs/{job}", shape={**programs.CHADBURN_JOB, "last_run": programs.CHADBURN_EXECUTION})
    assert shown["last_run"]["status"] == "failure"
    for action in ("pause", "pause", "resume", "resume"):
        assert page.call("POST", f"/jobs/{job}/{action}")["id"] == job
    put = {"name": "b", "environment": shown["environment"]}
    assert page.call("PUT", f"/jobs/{job}", put, shape=programs.CHADBURN_JOB)["name"] == "b"
    assert list(sealed_work.secrets_of(Schedule.objects.get()).values()) == ["shh"]
    page.call("DELETE", f"/jobs/{job}")
    assert Job.objects.count() == 1


@pytest.mark.parametrize("mount", ["/chadburn/api/v1", "/chronos/api/v1", "/executr/api/v1"])
def test_an_answer_without_jobs_has_a_list_all_the_same(acme: factories.Api, mount: str) -> None:
    told = acme.get(f"{mount}/jobs").json()
    told = told if isinstance(told, list) else told["data"]
    assert (told if isinstance(told, list) else told["jobs"]) == []
