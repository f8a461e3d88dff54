"""Fails the jobs that no worker has begun within their `queue_ttl_minutes`."""

from uuid import UUID

from django.db.models.functions import Now

from agent_jobs import lifecycle
from agent_jobs.lifecycle import endings
from agent_jobs.models import Job
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from infra.quarantine import Quarantine

_SWEEPER = Actor("system", "queue-expiry")
_BATCH = 200
_failed: Quarantine[UUID] = Quarantine("expire")


def fail_expired() -> int:
    """Fail the jobs that are WAITING for their first start after `expires_at`. Returns how many. Safe to run
    concurrently.
    """
    expired = Job.objects.filter(status=JobStatus.WAITING, started_at__isnull=True, expires_at__lte=Now())
    return _failed.each(expired.order_by("expires_at"), _fail, most=_BATCH)


def _fail(job: Job) -> bool:
    lifecycle.fail_one(job, endings.EXPIRED, endings.expiry_message(job.config), actor=_SWEEPER)
    return True
