"""Claims ready jobs for an executor. The executor gets the whole work, with the secrets in clear."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from agent_jobs import sealed_work
from agent_jobs.errors import IllegalMove
from agent_jobs.executors import attempts, known_executors, reporting
from agent_jobs.executors.attempts import Attempt
from agent_jobs.lifecycle import executor_claims
from agent_jobs.lifecycle.executor_claims import Claimant, ExecutorClaim
from agent_jobs.models import Job
from agent_jobs.runners.base import Failed
from agent_jobs.specs import Actor
from infra.sealing import SealingError

__all__ = ["Claimant", "ClaimedJob", "begin", "claim"]


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job as its executor gets it. `work` has its secrets in clear. `lease_seconds`: how long the lease lasts without
    a heartbeat.
    """

    job: Job
    attempt: Attempt
    task_id: UUID
    work: Mapping[str, Any]
    lease_seconds: float


def claim(org_id: str, claimant: Claimant, *, actor: Actor, most: int = 1) -> list[ClaimedJob]:
    """Claim up to `most` ready jobs that the executor fits; an empty list if there are none.

    Registers the executor. Raises Conflict if the organisation has too many executors.
    """
    known_executors.note_claim(org_id, claimant)
    lease_seconds = float(settings.LEASE_SECONDS)
    with transaction.atomic():
        claims = executor_claims.claim_for_executor(
            org_id, claimant, actor=actor, most=most, lease_seconds=lease_seconds
        )
        jobs = Job.objects.in_bulk([claimed.job_id for claimed in claims])
        found = []
        for claimed in claims:
            try:
                found.append(_opened(claimed, jobs[claimed.job_id], claimant, lease_seconds))
            except SealingError as error:
                attempt = Attempt(claimed.job_id, claimant.executor_id, claimed.lease_token)
                failed = Failed("secret_unavailable", error.message)
                reporting.settle(org_id, attempt, failed, actor=actor)
        return found


def begin(org_id: str, job_id: UUID, claimant: Claimant, *, actor: Actor, lease: timedelta | None = None) -> ClaimedJob:
    """Claim a certain job, for an API whose programs choose their jobs and send no heartbeats.

    `lease` is then the time in which the job must end; by default the one of ordinary claims. Ignores labels, caps and
    the order of the queue, and registers no executor. Raises NotFound, and IllegalMove if the job is not ready.
    """
    lease_seconds = lease.total_seconds() if lease else float(settings.LEASE_SECONDS)
    with transaction.atomic():
        job = attempts.require_job(org_id, job_id, Job.objects.select_for_update())
        claimed = executor_claims.claim_one_for_executor(
            org_id, job_id, claimant, actor=actor, lease_seconds=lease_seconds
        )
        if claimed is None:
            raise IllegalMove(f"cannot start a {job.status} job", job_id=str(job.pk), status=job.status)
        job.refresh_from_db()
        return _opened(claimed, job, claimant, lease_seconds)


def whole_work(org_id: str, job_id: UUID) -> Mapping[str, Any]:
    """The work of a job with its secrets, for a caller that might claim the job. Raises NotFound, and SealingError if
    they cannot be opened.
    """
    return sealed_work.whole(attempts.require_job(org_id, job_id))


def _opened(claimed: ExecutorClaim, job: Job, claimant: Claimant, lease_seconds: float) -> ClaimedJob:
    """The job as its executor gets it. Raises SealingError if the secrets cannot be opened."""
    attempt = Attempt(job.pk, claimant.executor_id, claimed.lease_token)
    return ClaimedJob(job, attempt, claimed.task_id, sealed_work.whole(job), lease_seconds)
