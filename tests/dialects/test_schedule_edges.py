"""Edge cases of the two dialects whose jobs are schedules: changes while something runs, and races."""

import re
from typing import Any
from unittest import mock

import pytest
from django.db import connection

from agent_jobs.dialects.chadburn import chadburn_views
from agent_jobs.dialects.chronos import chronos_views
from agent_jobs.models import Job, Schedule, ScheduleVersion
from agent_jobs.reads import pages
from agent_jobs.schedules import editing, requested_runs
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from tests import factories
from tests.dialects import test_chadburn, test_chronos
from tests.dialects.conftest import Door, work
from tests.dialects.test_chronos import body, data, error, trigger
from tests.fakes.webhook import FakeReceiver
from tests.races import in_threads

pytestmark = pytest.mark.django_db


@pytest.fixture
def chadburn(acme: factories.Api) -> Door:
    return Door(acme, "/chadburn/api/v1")


@pytest.fixture
def chronos(acme: factories.Api) -> Door:
    return Door(acme, "/chronos/api/v1")


# --- Chadburn --------------------------------------------------------------------------------------------------
def test_a_pause_and_an_update_leave_a_run_as_it_began(chadburn: Door) -> None:
    job = test_chadburn.make(chadburn, command="echo before")
    assert chadburn.post(f"/jobs/{job}/run").status_code == 200
    assert chadburn.post(f"/jobs/{job}/pause").status_code == 200
    assert chadburn.put(f"/jobs/{job}", {"command": "echo after"}).status_code == 200
    assert work("commands") == 1
    (run,) = chadburn.get(f"/jobs/{job}/executions").json()["data"]
    assert (run["status"], run["output"]) == ("success", "before\n")
    assert chadburn.post(f"/jobs/{job}/run").status_code == 200, "also while it is paused"
    work("commands")
    assert chadburn.get(f"/jobs/{job}").json()["data"]["last_run"]["output"] == "after\n"


@pytest.mark.parametrize("door", ["chadburn", "chronos"])
def test_a_run_of_a_job_that_is_deleted_meanwhile_makes_none(acme: factories.Api, door: str) -> None:
    make = {"chadburn": test_chadburn.make, "chronos": test_chronos.make}[door]
    views: Any = {"chadburn": chadburn_views, "chronos": chronos_views}[door]
    client, action = Door(acme, f"/{door}/api/v1"), {"chadburn": "run", "chronos": "trigger"}[door]
    job = make(client)

    def run_late(org_id: str, schedule_id: Any, **options: Any) -> Any:
        editing.delete(org_id, schedule_id, actor=Actor("user", "somebody"), cancels_jobs=True)
        return run_now(org_id, schedule_id, **options)

    run_now = requested_runs.run_now
    with mock.patch.object(views.requested_runs, "run_now", run_late):
        assert client.post(f"/jobs/{job}/{action}").status_code == 404
    assert not Job.objects.exists()


def test_pages_of_jobs_and_of_executions_tell_the_true_total(chadburn: Door) -> None:
    jobs = [test_chadburn.make(chadburn) for _ in range(3)]
    for query, found in (("", jobs), ("?limit=2", jobs[:2]), ("?limit=2&offset=2", jobs[2:]), ("?offset=9", [])):
        told = chadburn.get(f"/jobs{query}").json()
        assert ([job["id"] for job in told["data"]], told["pagination"]["total"]) == (found, 3)
    told = chadburn.get(f"/jobs/{jobs[0]}/executions").json()
    assert told == {"data": [], "pagination": {"total": 0, "limit": 10, "offset": 0}}


@pytest.mark.parametrize("name", ["chadburn", "chronos"])
def test_a_list_that_the_bytes_of_its_rows_end_has_a_link_to_the_rest(
    acme: factories.Api, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pages, "MAX_BYTES", 500)
    monkeypatch.setattr(chronos_views, "_MOST_LISTED_BYTES", 500)
    client = Door(acme, f"/{name}/api/v1")
    make = {"chadburn": test_chadburn.make, "chronos": test_chronos.make}[name]
    jobs, found, path, requests = [make(client) for _ in range(4)], [], "/jobs", 0
    while path:
        answer = client.get(path)
        told = answer.json()
        listed = told["data"] if name == "chadburn" else told["data"]["jobs"]
        assert (told["pagination"] if name == "chadburn" else told["data"])["total"] == 4
        found += [job["id"] for job in listed]
        link = re.fullmatch(rf'<{client.mount}(/jobs\?\S+)>; rel="next"', answer.headers.get("Link", ""))
        path, requests = link[1] if link else "", requests + 1
    assert found == jobs
    assert requests > 1


# --- Chronos ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", slice(0, 3)),
        ("?limit=2", slice(0, 2)),
        ("?limit=2&offset=2", slice(2, 3)),
        ("?limit=x&offset=-1", slice(3)),
    ],
)
def test_all_jobs_are_listed_unless_a_limit_is_named(chronos: Door, query: str, shown: slice) -> None:
    jobs = [test_chronos.make(chronos) for _ in range(3)]
    told = data(chronos.get(f"/jobs{query}"))
    assert ([job["id"] for job in told["jobs"]], told["total"]) == (jobs[shown], 3)


def test_a_put_is_checked_and_leaves_a_run_as_it_began(chronos: Door, receiver: FakeReceiver) -> None:
    job = test_chronos.make(chronos, webhook={"url": receiver.address, "method": "POST", "body": "before"})
    trigger(chronos, job, serves=False)
    assert error(chronos.put(f"/jobs/{job}", body(timezone="Mars/Olympus")))[0] == "VALIDATION_ERROR"
    data(chronos.put(f"/jobs/{job}", body(webhook={"url": receiver.address, "method": "POST", "body": "after"})))
    assert work("webhooks") == 1
    assert [one.body for one in receiver.received] == [b"before"]


def test_deleting_gives_up_what_runs_and_all_that_was(chronos: Door, receiver: FakeReceiver) -> None:
    job = test_chronos.make(chronos, webhook={"url": receiver.address})
    done = data(trigger(chronos, job))["id"]
    waiting = data(trigger(chronos, job, serves=False))["id"].removeprefix("exec-")
    data(chronos.delete(f"/jobs/{job}"))
    assert Job.objects.get(pk=waiting).status == JobStatus.CANCELED
    assert work("webhooks") == 0
    assert len(receiver.received) == 1
    for method, path in (
        ("DELETE", ""),
        ("PUT", ""),
        ("GET", "/versions/1"),
        ("POST", "/rollback/1"),
        ("GET", f"/executions/{done}"),
        ("POST", f"/executions/{done}/replay"),
        ("POST", "/trigger"),
    ):
        assert error(chronos.api.send(method, f"{chronos.mount}/jobs/{job}{path}"), 404)[0] == "NOT_FOUND"


def test_a_replay_of_a_replay_names_the_replay(chronos: Door, receiver: FakeReceiver) -> None:
    job = test_chronos.make(chronos, webhook={"url": receiver.address})
    last = data(trigger(chronos, job))["id"]
    for _ in range(2):
        told = data(chronos.post(f"/jobs/{job}/executions/{last}/replay"))
        assert told["original_execution_id"] == last
        assert work("webhooks") == 1
        last = told["replay_execution_id"]
    assert data(chronos.get(f"/jobs/{job}/executions"))["total"] == 3


def test_a_rollback_always_makes_a_version_unless_it_is_no_longer_valid(chronos: Door) -> None:
    job = test_chronos.make(chronos)
    assert data(chronos.post(f"/jobs/{job}/rollback/1"))["new_version"] == 2
    row = ScheduleVersion.objects.get(schedule_id=job, number=1)
    row.definition = {**row.definition, "time_zone": "Mars/Olympus"}
    row.save()
    code, message = error(chronos.post(f"/jobs/{job}/rollback/1"))
    assert (code, "timezone" in message) == ("VALIDATION_ERROR", True)
    assert Schedule.objects.get().version == 2


@pytest.mark.django_db(transaction=True)
def test_two_rollbacks_at_once_make_two_versions(chronos: Door) -> None:
    job = test_chronos.make(chronos)

    def roll_back() -> int:
        try:
            return int(data(chronos.post(f"/jobs/{job}/rollback/1"))["new_version"])
        finally:
            connection.close()

    assert sorted(in_threads(roll_back, roll_back)) == [2, 3]
