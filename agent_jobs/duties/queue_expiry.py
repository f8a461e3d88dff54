"""Fails the jobs that no worker has begun within their `queue_ttl_minutes`."""

from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from agent_jobs import lifecycle
from agent_jobs.errors import IllegalMove
from agent_jobs.legal_moves import Event
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
    found = expired.exclude(pk__in=_failed.rows()).order_by("expires_at").values_list("pk", flat=True)
    failed = 0
    for job_id in list(found[:_BATCH]):
        with _failed.row(job_id), transaction.atomic():
            job = expired.filter(pk=job_id).select_for_update(skip_locked=True).first()
            if job is None:
                continue
            message = endings.expiry_message(job.config)
            try:
                lifecycle.move_one(
                    Event.FAIL,
                    job,
                    actor=_SWEEPER,
                    note=f"FAILED {endings.EXPIRED}: {message}",
                    result=job.result or f"{endings.EXPIRED}: {message}",
                    error_code=endings.EXPIRED,
                    error_message=message,
                )
            except IllegalMove:
                continue
            failed += 1
    return failed
