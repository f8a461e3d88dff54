"""A newer release beside this one: what it wrote is left to it, and harms neither itself nor its neighbours."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError

from agent_jobs import jobs, lifecycle, runners
from agent_jobs.duties import recovery
from agent_jobs.errors import Conflict
from agent_jobs.hours import deferral, stated_hours
from agent_jobs.lifecycle import OrgRotation, running_caps
from agent_jobs.models import Job, JobType, Org, Task, WorkerProcess
from agent_jobs.reads import explanations
from agent_jobs.runners.base import Run
from agent_jobs.states import JobStatus
from agent_jobs.turns import outcomes
from agent_jobs.worker import loop
from agent_jobs.worker.loop import Worker
from channels_integration.messages import Hold
from channels_integration.models import Channel
from infra import meters
from tests import rows
from tests.agents import scripted_models
from tests.agents.places import Place, webhook
from tests.channels.sending import message
from tests.conversations import QuietKeeper, again

__all__ = ["webhook"]
pytestmark = pytest.mark.django_db

# Columns that only a newer release writes.
UNKNOWN = [{"runner": "teleport"}, {"waiting_for": "executor"}, {"resume": "on_schedule"}]


@pytest.fixture
def worker() -> Worker:
    return Worker(QuietKeeper())


@pytest.fixture(autouse=True)
def nowhere() -> None:
    Channel.objects.create(org_id="acme", platform="null", code="nowhere")
    Channel.objects.create(org_id="rival", platform="null", code="nowhere")


def job(**columns: Any) -> Job:
    return rows.job(**{"platform": "null", "channel_code": "nowhere", **columns})


# --- Claims ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("columns", UNKNOWN)
@pytest.mark.parametrize("has_caps", [False, True])
def test_a_job_that_this_process_does_not_know_is_left_where_it_is(
    worker: Worker, columns: dict[str, str], has_caps: bool
) -> None:
    unknown, known = job(**columns), job()
    Org.objects.filter(pk="acme").update(max_running_jobs=5 if has_caps else None)
    worker.serve("messages")
    assert again(known).status == JobStatus.COMPLETED
    left = again(unknown)
    assert (left.status, left.attempt, left.crash_count, left.queue_at) == ("WAITING", 0, 0, unknown.queue_at)
    assert worker.serve("messages") == 0


def test_organisations_with_nothing_but_unknown_jobs_neither_block_nor_spin(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        org = rows.org(f"newer{number:02}")
        job(org_id=org.pk, runner="teleport")
    known = job(org_id="rival")
    claims = []
    settle_and_claim = lifecycle.settle_and_claim
    monkeypatch.setattr(lifecycle, "settle_and_claim", lambda *a, **k: claims.append(1) or settle_and_claim(*a, **k))
    assert worker.serve("messages") == 1
    assert again(known).status == JobStatus.COMPLETED
    assert len(claims) <= 2


def test_the_duties_do_not_burn_it(worker: Worker) -> None:
    unknown = job(runner="teleport", created_at=datetime.now(UTC) - timedelta(days=2))
    scheduled = job(status=JobStatus.SCHEDULED, runner="teleport")
    Job.objects.filter(pk=scheduled.pk).update(scheduled_at=datetime(2026, 1, 1, tzinfo=UTC))
    lifecycle.promote_due()
    recovery.take_back_lost()
    recovery.fail_overdue()
    lifecycle.wake_due()
    assert [again(row).status for row in (unknown, scheduled)] == ["WAITING", "WAITING"]


def test_the_explanation_names_the_runner_that_no_worker_knows() -> None:
    unknown = job(runner="teleport")
    WorkerProcess.objects.create(name="old", worked_at=datetime.now(UTC))
    told = explanations.of("acme", unknown.pk)
    assert (told.rule, told.place_in_queue) == ("unknown_runner", 1)
    assert "'teleport'" in told.state
    WorkerProcess.objects.create(name="new", runners=["message", "teleport"])
    assert explanations.of("acme", unknown.pk).rule == "queue"


def test_a_wait_that_is_not_known_is_explained() -> None:
    waits = job(status=JobStatus.RUNNING, waiting_for="executor", lease_until=None, worker_id=None)
    assert explanations.of("acme", waits.pk).rule == "unknown_wait"


def test_a_worker_says_what_it_can_perform() -> None:
    keeper = QuietKeeper()
    row = WorkerProcess.objects.get(pk=keeper._insert())
    assert row.runners == runners.names()


def test_a_job_type_of_a_newer_release_takes_no_job_here() -> None:
    rows.job_type()
    JobType.objects.update(runner="teleport")
    with pytest.raises(Conflict, match="'teleport'"):
        jobs.create("acme", rows.spec(), actor=rows.TESTER)
    assert not Job.objects.exists()


# --- What is met within a turn ---------------------------------------------------------------------------------
def test_an_unknown_kind_of_tool_is_left_to_another_worker_and_costs_no_attempt() -> None:
    row = scripted_models.job(tools=[{"type": "browser", "name": "browse", "description": "Look."}])
    with scripted_models.playing(scripted_models.Actor()):
        scripted_models.work()
    waits = again(row)
    assert (waits.status, waits.waiting_for, waits.failed_attempts) == ("RUNNING", "retry", 0)
    assert Task.objects.get().result == "unsupported: this worker knows no tools of the type 'browser'"


def test_hours_of_an_unknown_shape_speak_to_nobody(worker: Worker, webhook: Place) -> None:
    row = job(**webhook.columns)
    Org.objects.filter(pk="acme").update(hours={"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"], "seasons": []})
    worker.serve("messages")
    assert (again(row).status, again(row).waiting_for, again(row).failed_attempts) == ("RUNNING", "retry", 0)


def test_a_message_is_held_while_hours_of_an_unknown_shape_hold() -> None:
    row = job(platform="webhook", channel_code="crm")
    Org.objects.filter(pk="acme").update(hours={"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"], "seasons": []})
    stated_hours.forget()
    outgoing = message(platform="webhook", code="crm", owner_key=str(row.pk))
    assert deferral.hold(outgoing, datetime.now(UTC)) == Hold(seconds=30.0, closed_seconds=0.0)


# --- Our own faults --------------------------------------------------------------------------------------------
def test_a_fault_of_the_service_is_a_recorded_failure_and_the_batch_keeps_what_it_did(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = [job() for _ in range(4)], job(prompt="bad")
    take = loop.outcomes.without_runner

    def breaks(claim: lifecycle.Claim) -> Any:
        return {}["no such key"] if claim.prompt == "bad" else take(claim)

    monkeypatch.setattr(outcomes, "without_runner", breaks)
    worker.serve("messages")
    failed = again(bad)
    assert (failed.status, failed.error_code) == ("FAILED", "internal_error")
    assert failed.error_message == "a fault of the service: KeyError"
    assert {again(row).status for row in good} == {"COMPLETED"}


def test_a_fault_of_the_service_is_retried_as_the_config_says(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    row = job(config={"max_task_retries": 1})
    monkeypatch.setattr(outcomes, "without_runner", lambda claim: {}["no such key"])
    worker.serve("messages")
    assert (again(row).waiting_for, again(row).failed_attempts, again(row).crash_count) == ("retry", 1, 0)


def test_a_config_that_cannot_be_read_is_a_recorded_failure(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    row = job(config={"max_task_retries": {"seconds": 3}})
    monkeypatch.setattr(outcomes, "without_runner", lambda claim: {}["no such key"])
    worker.serve("messages")
    assert (again(row).status, again(row).error_code) == ("FAILED", "internal_error")


# --- A settlement that is written, while something else fails ----------------------------------------------------
def _counts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    counted: list[str] = []
    monkeypatch.setattr(meters, "add", lambda name, *_, **__: counted.append(name))
    return counted


def test_a_claim_that_fails_after_the_settlement_loses_no_settlement(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = job()
    Org.objects.filter(pk="acme").update(max_running_jobs=5)
    counted, lock = _counts(monkeypatch), running_caps.lock

    def locked(org_id: str) -> int | None:
        if again(first).status == JobStatus.COMPLETED and not failures:
            failures.append(org_id)
            raise OperationalError("canceling statement due to lock timeout")
        return lock(org_id)

    failures: list[str] = []
    monkeypatch.setattr(running_caps, "lock", locked)
    monkeypatch.setattr(loop, "_SLICE_SECONDS", 100.0)
    run = type(runners.get("message")).run
    others: list[Job] = []

    def runs(self: Any, given: Run) -> Any:
        if not others:
            others.append(job())  # so that there is something to claim when this one is settled
        return run(self, given)

    monkeypatch.setattr(type(runners.get("message")), "run", runs)
    worker.serve("messages")
    assert failures == ["acme"]
    assert [again(row).status for row in (first, *others)] == ["COMPLETED", "COMPLETED"]
    assert counted.count("ends") == 2
    assert "lease_losses" not in counted


@pytest.mark.django_db(transaction=True)
def test_a_settlement_whose_commit_came_through_unheard_is_no_lost_lease(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = job()
    counted, settle_and_claim = _counts(monkeypatch), lifecycle.settle_and_claim

    def settles(settlements: Any, **claim: Any) -> lifecycle.ClaimResult:
        answer = settle_and_claim(settlements, **claim)
        if settlements and not unheard:
            unheard.append(True)
            raise OperationalError("server closed the connection unexpectedly")
        return answer

    unheard: list[bool] = []
    monkeypatch.setattr(lifecycle, "settle_and_claim", settles)
    worker.serve("messages")
    assert unheard == [True]
    assert again(row).status == JobStatus.COMPLETED
    assert counted.count("ends") == 1
    assert "lease_losses" not in counted


def test_a_turn_that_was_taken_away_is_not_taken_for_settled() -> None:
    row = job()
    (claim,) = lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), worker_id=1).claimed
    ended = lifecycle.Settlement(
        id=claim.id,
        token=claim.token,
        task_id=claim.task_id,
        status=JobStatus.COMPLETED,
        task_status="COMPLETED",
        task_result="x",
    )
    jobs.cancel("acme", row.pk, actor=rows.TESTER)
    assert lifecycle.were_settled([ended]) == frozenset()
