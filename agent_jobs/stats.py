"""Aggregates over jobs. Each takes rows that `queries` has already cut down to one organisation."""

from django.db.models import Count, QuerySet

from agent_jobs.models import Job
from agent_jobs.states import JobStatus


def status_counts(jobs: QuerySet[Job]) -> dict[str, int]:
    """`{"waiting": 3, "scheduled": 0, "running": 1, "completed": 12, "failed": 0, "canceled": 0}`: every status."""
    counts = dict(jobs.order_by().values_list("status").annotate(Count("pk")))
    return {status.lower(): counts.get(str(status), 0) for status in _SHOWN}


_SHOWN = (
    *(JobStatus.WAITING, JobStatus.SCHEDULED, JobStatus.RUNNING),
    *(JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED),
)
