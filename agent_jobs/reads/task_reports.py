"""Reads the tasks of one job, and the report of one of them."""

from uuid import UUID

from django.db.models import QuerySet

from agent_jobs.errors import NotFound
from agent_jobs.models import Task
from agent_jobs.reads.queries import Row

COLUMNS = ("id", "job_id", "number", "created_at", "finished_at", "status", "result")


def tasks(org_id: str, job_id: UUID) -> QuerySet[Task]:
    """The attempts of one job."""
    return Task.objects.filter(job__org_id=org_id, job_id=job_id)


def task(org_id: str, job_id: UUID, task_id: UUID) -> Row:
    """One attempt with its report. Raises NotFound."""
    row: Row | None = tasks(org_id, job_id).filter(pk=task_id).values(*COLUMNS, "report").first()
    if row is None:
        raise not_found(str(task_id))
    return row


def not_found(task_id: str) -> NotFound:
    return NotFound(f"there is no task {task_id[:64]!r} of this job", code="task_not_found")
