"""Command jobs, from the POST that makes them to the report of their attempts, with real commands."""

import json
import threading
import time
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from agent_jobs import runners
from agent_jobs.models import Activity, AuditEntry, Job, Org, Task
from agent_jobs.runners import command_runner
from agent_jobs.states import JobStatus
from agent_jobs.turns import calls_in_flight
from agent_jobs.worker import command_readiness
from agent_jobs.worker.loop import Worker
from infra import commands
from tests import factories, rows
from tests.conversations import QuietKeeper
from tests.infra.commands.conftest import marker, processes_with
from tests.waiting import PATIENCE, wait_for

__all__ = ["marker"]
pytestmark = pytest.mark.django_db
SECRET = "s3cret-of-acme-42"


@pytest.fixture(params=["sandbox", "trusted"])
def mode(request: pytest.FixtureRequest, settings: Any) -> str:
    able = commands.probe(commands.Mode(request.param))
    if not able.ok:
        pytest.skip(f"NO {request.param} ON THIS MACHINE, so nothing of it is tested: {able.reason}")
    settings.COMMAND_RUNNER = request.param
    return str(request.param)


def client() -> factories.Api:
    rows.org("acme", allows_commands=True)
    rows.job_type(key="run", runner="command", default_config={})
    return factories.api("acme", "SERVICES:WRITE")


@pytest.fixture
def acme(db: None, settings: Any) -> factories.Api:
    settings.COMMAND_RUNNER = "trusted"
    return client()


def post(acme: factories.Api, work: dict[str, Any], **fields: Any) -> Any:
    return acme.post("/services/agent-jobs", {"job_type_id": "run", "work": work, **fields})


def made(acme: factories.Api, work: dict[str, Any], **fields: Any) -> Job:
    answer = post(acme, work, **fields)
    assert answer.status_code == 201, answer.content
    return Job.objects.get(pk=answer.json()["data"]["id"])


def ran(acme: factories.Api, work: dict[str, Any], **fields: Any) -> tuple[Job, dict[str, Any]]:
    job = made(acme, work, **fields)
    assert Worker(QuietKeeper()).serve("commands") == 1
    job.refresh_from_db()
    return job, Task.objects.get(job=job).report or {}


class TestTheCommand:
    def test_it_runs_as_the_work_says(self, acme: factories.Api, mode: str) -> None:
        work = {
            "shell": 'cat; echo "$NAME" "$AGENT_JOBS_ATTEMPT"; pwd >&2; echo "$AGENT_JOBS_PARAMS"',
            "stdin": "from stdin\n",
            "environment": {"NAME": "Ann"},
            "working_directory": "here/below",
            "limits": {"processes": 20},
        }
        job, report = ran(acme, work, params={"a": "é"})
        assert job.status == JobStatus.COMPLETED, job.error_message
        stdout = 'from stdin\nAnn 1\n{"a": "\\u00e9"}\n'
        assert (report["stdout"], report["exit_code"], report["ended_by"]) == (stdout, 0, "exit")
        assert report["stderr"].endswith("/here/below\n")
        assert job.result_data == {"exit_code": 0, "stdout": stdout}
        assert str(job.result).startswith("exit code 0 in ")

    @pytest.mark.parametrize(
        ("work", "code", "exit_code"),
        [
            ({"shell": "exit 3"}, "exit_code", 3),
            ({"argv": ["no-such-program-anywhere"]}, "exit_code", 127),
            ({"shell": "kill -TERM $$"}, "exit_code", 143),
        ],
    )
    def test_any_other_exit_code_fails_the_job(
        self, acme: factories.Api, mode: str, work: dict[str, Any], code: str, exit_code: int
    ) -> None:
        job, report = ran(acme, work)
        assert (job.status, job.error_code, report["exit_code"]) == (JobStatus.FAILED, code, exit_code)

    def test_it_is_retried_as_the_policy_says(self, acme: factories.Api) -> None:
        job, _ = ran(acme, {"shell": "exit 1"}, config={"retry_policy": {"max_attempts": 2}})
        assert (job.status, job.waiting_for) == (JobStatus.RUNNING, "retry")

    def test_it_ends_at_its_time_out_with_all_that_it_started(
        self, acme: factories.Api, mode: str, marker: str
    ) -> None:
        work = {"shell": f"echo begun; sleep {marker} & setsid sleep {marker} & wait"}
        job, report = ran(acme, work, config={"attempt_timeout_seconds": 1})
        assert (job.error_code, report["ended_by"], report["stdout"]) == ("attempt_timeout", "timeout", "begun\n")
        assert processes_with(marker) == []

    def test_a_command_that_prints_for_ever_is_ended(self, acme: factories.Api, mode: str) -> None:
        job, report = ran(acme, {"argv": ["yes"]})
        assert (job.error_code, report["is_stdout_truncated"]) == ("output_limit", True)
        assert len(report["stdout"]) < 1_100_000

    def test_a_command_that_forks_for_ever_ends_at_its_time_out_and_the_next_job_runs(
        self, acme: factories.Api, mode: str, marker: str
    ) -> None:
        bomb = f"f() {{ sleep {marker} & f & f; }}; f; while :; do f; done"
        work = {"argv": ["bash", "-c", bomb], "limits": {"processes": 20}}
        job, report = ran(acme, work, config={"attempt_timeout_seconds": 1})
        assert (job.status, report["ended_by"]) == (JobStatus.FAILED, "timeout")
        assert processes_with(marker) == []
        neighbour, _ = ran(acme, {"shell": "echo well"})
        assert neighbour.result_data == {"exit_code": 0, "stdout": "well\n"}

    def test_what_no_database_stores_is_replaced(self, acme: factories.Api) -> None:
        job, report = ran(acme, {"shell": r"printf 'a\000b\377'"})
        assert job.status == JobStatus.COMPLETED
        assert report["stdout"] == "a\ufffdb\ufffd"

    def test_no_value_of_its_environment_is_shown(self, acme: factories.Api, caplog: pytest.LogCaptureFixture) -> None:
        work = {"shell": 'echo "$TOKEN"; echo "$TOKEN" >&2; exit 1', "environment": {"TOKEN": SECRET}}
        job, report = ran(acme, work)
        assert (report["stdout"], report["stderr"], job.work["environment"]) == (
            "******\n",
            "******\n",
            {"TOKEN": "******"},
        )
        shown = [
            acme.get(f"/services/agent-jobs/{job.pk}?include=activities").content.decode(),
            json.dumps(list(Activity.objects.values_list("note", "input", "output")), default=str),
            json.dumps(list(AuditEntry.objects.values_list("before", "after")), default=str),
            caplog.text,
            str(Job.objects.filter(pk=job.pk).values().get()),
        ]
        assert not [text for text in shown if SECRET in text]


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("work", "field"),
        [
            ({}, "work.argv"),
            ({"argv": []}, "work.argv"),
            ({"argv": "ls"}, "work.argv"),
            ({"argv": ["ls", 1]}, "work.argv"),
            ({"argv": ["ls"], "shell": "ls"}, "work.argv"),
            ({"shell": "ls", "environment": {"A": 1}}, "work.environment"),
            ({"shell": "ls", "environment": {"A=B": "c"}}, "work.environment"),
            ({"shell": "ls", "environment": {"AGENT_JOBS_JOB_ID": "c"}}, "work.environment.AGENT_JOBS_JOB_ID"),
            ({"shell": "ls", "environment": {f"A{n}": "b" for n in range(101)}}, "work.environment"),
            ({"shell": "ls", "environment": {"A": "******"}}, "work.environment.A"),
            ({"shell": "ls", "working_directory": "../up"}, "work.working_directory"),
            ({"shell": "ls", "network": "yes"}, "work.network"),
            ({"shell": "ls", "stdin": 1}, "work.stdin"),
            ({"shell": "ls", "limits": {"memory_bytes": 1}}, "work.limits.memory_bytes"),
            ({"shell": "ls", "limits": {"memory_bytes": 1 << 40}}, "work.limits.memory_bytes"),
            ({"shell": "ls", "limits": {"fingers": 10}}, "work.limits.fingers"),
            ({"shell": "ls", "user": "root"}, "work.user"),
        ],
    )
    def test_bad_work_is_a_400_that_names_the_field(
        self, acme: factories.Api, work: dict[str, Any], field: str
    ) -> None:
        answer = post(acme, work)
        assert (answer.status_code, factories.fields_of(answer)) == (400, [field])
        assert Job.objects.count() == 0

    def test_no_job_is_made_where_commands_are_off(self, acme: factories.Api, settings: Any) -> None:
        settings.COMMAND_RUNNER = "off"
        answer = post(acme, {"shell": "true"})
        assert (answer.status_code, answer.json()["code"]) == (403, "commands_not_allowed")

    def test_an_organisation_needs_the_operators_permission(self, acme: factories.Api) -> None:
        call_command("allow_commands", "acme", "--undo")
        answer = post(acme, {"shell": "true"})
        assert (answer.status_code, answer.json()["code"]) == (403, "commands_not_allowed")
        call_command("allow_commands", "acme")
        assert post(acme, {"shell": "true"}).status_code == 201
        changes = AuditEntry.objects.filter(org_id="acme", action="org.updated").order_by("id")
        assert [entry.after for entry in changes] == [{"allows_commands": False}, {"allows_commands": True}]

    def test_the_network_needs_a_permission_of_its_own(self, acme: factories.Api) -> None:
        work = {"shell": "true", "network": True}
        answer = post(acme, work)
        assert (answer.status_code, answer.json()["code"]) == (403, "command_network_not_allowed")
        schedule = {"name": "s", "cron": "@hourly", "job": {"job_type_id": "run", "work": work}}
        assert acme.post("/services/agent-schedules", schedule).status_code == 403
        call_command("allow_commands", "acme", "--network")
        job = made(acme, work)
        assert AuditEntry.objects.get(action="org.updated").after == {"allows_command_network": True}
        call_command("allow_commands", "acme")
        Worker(QuietKeeper()).serve("commands")
        job.refresh_from_db()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "command_network_not_allowed")

    def test_create_org_allows_commands_only_if_it_is_told_to(self, db: None) -> None:
        call_command("create_org", "first")
        call_command("create_org", "second", "--allow-commands")
        call_command("create_org", "second")
        assert dict(Org.objects.values_list("id", "allows_commands")) == {"first": False, "second": True}

    def test_a_job_fails_if_the_permission_was_taken_back(self, acme: factories.Api) -> None:
        job = made(acme, {"shell": "true"})
        Org.objects.filter(pk="acme").update(allows_commands=False)
        Worker(QuietKeeper()).serve("commands")
        job.refresh_from_db()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "commands_not_allowed")

    def test_a_worker_without_commands_leaves_the_job_to_others(self, acme: factories.Api, settings: Any) -> None:
        job = made(acme, {"shell": "true"})
        settings.COMMAND_RUNNER = "off"
        Worker(QuietKeeper()).serve("commands")
        job.refresh_from_db()
        assert (job.status, job.waiting_for, job.failed_attempts) == (JobStatus.RUNNING, "retry", 0)

    @pytest.mark.parametrize("name", ["command", "webhook"])
    def test_a_process_that_does_not_know_the_runner_leaves_the_job_alone(
        self, acme: factories.Api, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        lane = runners.get(name).lane
        job = rows.job(runner=name, lane=lane, platform="", channel_code="", work={"shell": "true"})
        known = {other: runner for other, runner in runners._BY_NAME.items() if other != name}
        monkeypatch.setattr(runners, "_BY_NAME", known)
        assert Worker(QuietKeeper()).serve(lane) == 0
        job.refresh_from_db()
        assert (job.status, job.attempt) == (JobStatus.WAITING, 0)


def test_a_worker_does_not_start_without_the_sandbox_that_it_should_have(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(commands, "probe", lambda mode: commands.Capability(False, "There is no bwrap."))
    settings.COMMAND_RUNNER = command_runner.OFF
    command_readiness.require()
    settings.COMMAND_RUNNER = "sandbox"
    with pytest.raises(SystemExit) as ended:
        command_readiness.require()
    assert ended.value.code == 78
    assert "There is no bwrap." in caplog.text


@pytest.mark.parametrize("crash_count", [0, 2], ids=["in the worker", "in a process of its own"])
@pytest.mark.django_db(transaction=True)
def test_a_cancel_ends_all_processes_within_two_seconds(mode: str, marker: str, crash_count: int) -> None:
    acme = client()
    job = made(acme, {"shell": f"sleep {marker} & setsid sleep {marker} & wait"})
    Job.objects.filter(pk=job.pk).update(crash_count=crash_count)
    worker = Worker(QuietKeeper())

    def serve() -> None:
        worker.serve("commands")
        connection.close()

    serving = threading.Thread(target=serve)
    serving.start()
    wait_for(lambda: len(processes_with(marker)) >= 3, what="the command runs")
    assert acme.delete(f"/services/agent-jobs/{job.pk}").status_code == 200
    began = time.monotonic()
    while processes_with(marker) and time.monotonic() - began < PATIENCE:
        calls_in_flight.CALLS.look()  # what the keeper does each second
        serving.join(0.05)
    assert time.monotonic() - began < 1.5
    serving.join(PATIENCE)
    job.refresh_from_db()
    assert (job.status, Task.objects.get(job=job).report) == (JobStatus.CANCELED, None)
