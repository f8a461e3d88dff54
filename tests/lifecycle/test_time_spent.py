"""Seconds that a job spent in each kind of time, as a trigger keeps them on its row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_jobs import lifecycle
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import Claim, OrgRotation, Settlement
from agent_jobs.models import Job
from agent_jobs.states import TIME_KINDS, JobStatus, TaskStatus, WaitingFor
from tests import factories, rows

pytestmark = pytest.mark.django_db


def pass_seconds(job: Job, seconds: float) -> None:
    """The job has been in its present state for that long."""
    Job.objects.filter(pk=job.pk).update(state_since=datetime.now(UTC) - timedelta(seconds=seconds))


def claim() -> Claim:
    (claimed,) = lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), worker_id=7).claimed
    return claimed


def settle(claimed: Claim, **fields: Any) -> None:
    defaults = {"status": JobStatus.RUNNING, "task_status": TaskStatus.COMPLETED}
    lifecycle.settle_and_claim(
        [Settlement(id=claimed.id, token=claimed.token, task_id=claimed.task_id, **{**defaults, **fields})]
    )


def spent(job: Job) -> dict[str, int]:
    kept: dict[str, float] = Job.objects.get(pk=job.pk).time_spent
    return {kind: round(seconds) for kind, seconds in kept.items() if round(seconds)}


def test_each_kind_of_time_is_added_up_as_the_job_moves() -> None:
    job = rows.job(JobStatus.SCHEDULED, scheduled_at=datetime.now(UTC))
    pass_seconds(job, 100)
    assert lifecycle.promote_due() == {"messages": 1}
    pass_seconds(job, 3)
    claimed = claim()
    pass_seconds(job, 7)
    settle(claimed, waiting_for=WaitingFor.REPLY, wake_seconds=0.0)
    pass_seconds(job, 500)
    assert lifecycle.wake_due() == {"messages": 1}
    pass_seconds(job, 2)
    claimed = claim()
    pass_seconds(job, 6)
    settle(claimed, status=JobStatus.COMPLETED, result="done")

    assert spent(job) == {"delay": 100, "queue": 5, "work": 13, "reply": 500}
    ended = Job.objects.get(pk=job.pk)
    assert ended.finished_at is not None
    assert abs(ended.finished_at - ended.state_since) < timedelta(seconds=1)


@pytest.mark.parametrize("wait", WaitingFor)
def test_every_wait_is_a_kind_of_its_own(wait: WaitingFor) -> None:
    is_scheduled = wait == WaitingFor.COOLDOWN
    status = JobStatus.SCHEDULED if is_scheduled else JobStatus.RUNNING
    job = rows.job(status, lease_until=None, waiting_for=wait)
    pass_seconds(job, 40)
    lifecycle.move_one(Event.CANCEL, job, actor=rows.TESTER)
    assert spent(job) == {str(wait): 40}
    assert wait in TIME_KINDS


def test_an_attempt_that_failed_or_was_lost_is_told_from_work() -> None:
    job = rows.job()
    claimed = claim()
    pass_seconds(job, 30)
    settle(claimed, waiting_for=WaitingFor.RETRY, wake_seconds=0.0, failed_attempts=1, task_status=TaskStatus.FAILED)
    lifecycle.wake_due()
    claim()
    pass_seconds(job, 20)
    lost = Job.objects.get(pk=job.pk)
    lifecycle.move_one(Event.TAKE_BACK, lost, actor=rows.TESTER, crash_count=1)
    assert spent(job) == {"failed_work": 50}


def test_a_renewed_lease_and_the_time_after_the_end_count_nothing() -> None:
    job = rows.job(JobStatus.RUNNING)
    since = job.state_since
    Job.objects.filter(pk=job.pk).update(lease_until=datetime.now(UTC) + timedelta(minutes=9))
    assert Job.objects.get(pk=job.pk).state_since == since

    lifecycle.move_one(Event.CANCEL, job, actor=rows.TESTER)
    before = spent(job)
    lifecycle.move_one(Event.RETRY, job, actor=rows.TESTER, retry_count=1, finished_at=None)
    assert spent(job) == before
    assert Job.objects.get(pk=job.pk).state_since > since


def test_the_api_shows_the_sums_and_when_the_present_kind_began() -> None:
    job = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", time_spent={"queue": 0.25, "work": 3.5})
    api = factories.api("acme", "SERVICES:READ")
    for address in (f"/services/agent-jobs/{job.pk}", "/services/agent-jobs"):
        data = api.get(address).json()["data"]
        shown = data[0] if isinstance(data, list) else data
        assert shown["time_spent"] == {"queue": 0.25, "work": 3.5}
        assert shown["state_since"][:19] == f"{job.state_since:%Y-%m-%dT%H:%M:%S}"
