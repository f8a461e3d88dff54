"""Jobs that people move by hand, through an API without claims and heartbeats.

Starting a job is a claim in the person's name, with a lease beyond the job's deadline; the ends are reports of that
attempt. A person may also move a job that an executor holds: the executor's own report is then refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from agent_jobs import lifecycle
from agent_jobs.audit import audit_log
from agent_jobs.errors import IllegalMove
from agent_jobs.executors import claiming, reporting
from agent_jobs.executors.attempts import Attempt
from agent_jobs.executors.reporting import AttemptReport
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import queue_order, running_caps
from agent_jobs.lifecycle.executor_claims import Claimant
from agent_jobs.models import Job
from agent_jobs.reads import external_jobs, queries
from agent_jobs.runners import external
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus

# A lease outlasts the deadline, so that the deadline ends the job and not a lost lease.
_BEYOND_DEADLINE = timedelta(hours=1)
_MOST_KEYS_TOLD = 20


@dataclass(frozen=True, slots=True)
class HandChange:
    """The changes that a person asks for; None keeps a value. `result` is laid over the job's own, key by key.

    `status` is WAITING to give a started job back. `note` says why, for a cancel or a failure.
    """

    status: JobStatus | None = None
    percent: int | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None
    note: str = ""

    @property
    def tells(self) -> bool:
        """Whether the change has more than a status."""
        return self.percent is not None or self.message is not None or self.result is not None


def change(org_id: str, job_id: UUID, asked: HandChange, *, actor: Actor) -> None:
    """Move the job and keep its progress and result, in one transaction. The present status is no move.

    Raises NotFound, IllegalMove, and Invalid if the result is too large. An ended job is never changed.
    """
    with transaction.atomic():
        job = queries.locked_job(org_id, job_id)
        standing = external_jobs.status_outside(job.status, runner=job.runner, is_held=job.lease_until is not None)
        moves = asked.status is not None and asked.status != standing
        if not moves and not asked.tells:
            return
        if job.runner != external.NAME:
            raise IllegalMove(f"a job of the {job.runner} runner is not moved by hand", status=job.status)
        if job.is_terminal:
            raise IllegalMove(f"the job is {job.status} and cannot be changed", status=job.status)
        if moves and asked.status == JobStatus.RUNNING:
            _start(job, actor)
        if asked.tells:
            _keep(job, asked, actor)
        if moves and asked.status != JobStatus.RUNNING:
            _leave(job, standing, asked, actor)


def _start(job: Job, actor: Actor) -> None:
    if job.status == JobStatus.SCHEDULED:
        note = "WAITING: started by hand before its time"
        lifecycle.move_one(Event.PROMOTE, job, actor=actor, note=note, queue_at=queue_order.ready_now())
    lease = timedelta(minutes=job.deadline_minutes) + _BEYOND_DEADLINE
    claimant = Claimant(str(actor)[:255])
    claiming.begin(job.org_id, job.pk, claimant, actor=actor, lease=lease)
    job.refresh_from_db()


def _keep(job: Job, asked: HandChange, actor: Actor) -> None:
    """Keep what it tells. The audit gets the keys of a result without its values, which may be large or secret."""
    columns: dict[str, Any] = {}
    told: dict[str, Any] = {"progress_percent": asked.percent, "progress_message": asked.message}
    if asked.percent is not None:
        columns |= {"progress_percent": asked.percent, "progress_at": Now()}
    if asked.message is not None:
        columns |= {"progress_message": asked.message, "progress_at": Now()}
    if asked.result is not None:
        known = job.result_data if isinstance(job.result_data, dict) else {}
        job.result_data = {**known, **asked.result}
        reporting.require_size("result", job.result_data)
        columns["result_data"] = job.result_data
        told["result_keys"] = sorted(asked.result)[:_MOST_KEYS_TOLD]
    Job.objects.filter(pk=job.pk).update(**columns, updated_at=Now())
    after = {name: value for name, value in told.items() if value is not None}
    audit_log.record(job.org_id, "job.updated", job.pk, actor=actor, after=after)


def _leave(job: Job, standing: JobStatus, asked: HandChange, actor: Actor) -> None:
    attempt = Attempt(job.pk, job.executor_id, job.lease_token)
    report = AttemptReport(result_data=job.result_data)
    match (standing, asked.status):
        case (JobStatus.RUNNING, JobStatus.COMPLETED):
            reporting.complete(job.org_id, attempt, report, actor=actor)
        case (JobStatus.RUNNING, JobStatus.FAILED):
            reporting.fail(job.org_id, attempt, report, message=asked.note, is_retryable=False, actor=actor)
        case (JobStatus.RUNNING, JobStatus.WAITING):
            reporting.release(job.org_id, attempt, reason=asked.note, actor=actor)
        case (_, JobStatus.FAILED):
            lifecycle.fail_one(job, reporting.DEFAULT_CODE, asked.note, actor=actor, result=asked.note)
        case (_, JobStatus.CANCELED):
            lifecycle.move_one(Event.CANCEL, job, actor=actor, note=f"CANCELED: {asked.note}")
            running_caps.ring_for_place(job)
        case _:
            raise IllegalMove(f"the job is {standing} and cannot become {asked.status}", status=job.status)
