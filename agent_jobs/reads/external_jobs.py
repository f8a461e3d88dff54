"""Reads of jobs that outside programs perform: which of them wait, their attempts, their outputs, and their numbers.

To them a job of the external runner waits while nobody holds it, also when it is RUNNING until its next attempt:
`status_outside` and `with_status_outside` say so.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, Count, ExpressionWrapper, Q, QuerySet
from django.db.models.fields.json import KT

from agent_jobs.models import Job, Task
from agent_jobs.reads import queries
from agent_jobs.runners import external
from agent_jobs.states import TERMINAL, JobStatus

Row = Mapping[str, Any]
COLUMNS = (
    *("id", "org_id", "status", "job_type_key", "placement", "work", "priority", "executor_id", "error_message"),
    *("created_at", "started_at", "finished_at", "lease_until"),
)
_WAITS_FOR_AN_ATTEMPT = Q(status=JobStatus.RUNNING, runner=external.NAME, lease_until__isnull=True)


@dataclass(frozen=True, slots=True)
class JobNumber:
    """How many jobs have this status, as seen from outside, and this priority."""

    status: JobStatus
    priority: int
    jobs: int


def status_outside(status: str, *, runner: str, is_held: bool) -> JobStatus:
    """The status of a job as outside programs see it: WAITING, RUNNING, or how it ended."""
    if status in TERMINAL:
        return JobStatus(status)
    is_at_work = status == JobStatus.RUNNING and (is_held or runner != external.NAME)
    return JobStatus.RUNNING if is_at_work else JobStatus.WAITING


def with_status_outside(status: JobStatus) -> Q:
    """Jobs with this `status_outside`."""
    if status == JobStatus.WAITING:
        return Q(status__in=(JobStatus.SCHEDULED, JobStatus.WAITING)) | _WAITS_FOR_AN_ATTEMPT
    return Q(status=status) & ~_WAITS_FOR_AN_ATTEMPT if status == JobStatus.RUNNING else Q(status=status)


def with_binary(org_id: str) -> QuerySet[Job]:
    """The jobs that name a binary for their executor to run."""
    prefix = f"{external.WITH_BINARY}{external.SEPARATOR}"
    return Job.objects.filter(org_id=org_id, runner=external.NAME, placement__startswith=prefix)


def of_type(word: str, *, binary: str = external.WITH_BINARY) -> Q:
    """Jobs with a binary (or without: "") whose work states this type, whatever labels they need."""
    exact = f"{binary}{external.SEPARATOR}{word}"
    return Q(placement=exact) | Q(placement__startswith=f"{exact}{external.SEPARATOR}")


def of_any_type(words: Sequence[str]) -> Q:
    """Jobs of executors by the type that their work states, others by their job type."""
    found = Q(job_type_key__in=words) & ~Q(runner=external.NAME)
    for word in words:
        found |= of_type(word) | of_type(word, binary="")
    return found


def type_of(placement: str) -> str:
    """The type that a placement states."""
    return placement.split(external.SEPARATOR)[1]


def job(jobs: QuerySet[Job], job_id: UUID) -> Row:
    """One of these jobs. Raises NotFound."""
    row: Row | None = jobs.filter(pk=job_id).values(*COLUMNS).first()
    if row is None:
        raise queries.job_not_found(str(job_id), denied=("job", str(job_id)))
    return row


def attempts_of(job_ids: Iterable[UUID]) -> Mapping[UUID, list[Row]]:
    """The attempts of executors at each job, newest first. `exit_code` is a text or None."""
    columns = ("id", "job_id", "number", "status", "executor_id", "executor_address", "created_at", "finished_at")
    tasks = Task.objects.filter(job_id__in=list(job_ids)).exclude(executor_id="").order_by("job_id", "-number")
    found: dict[UUID, list[Row]] = defaultdict(list)
    for row in tasks.annotate(exit_code=KT("report__exit_code")).values(*columns, "exit_code"):
        found[row["job_id"]].append(row)
    return found


def last_report(job_id: UUID) -> Mapping[str, Any]:
    """The report of the newest attempt that has one: `stdout`, `stderr` and more; empty if none has."""
    tasks = Task.objects.filter(job_id=job_id, report__isnull=False).order_by("-number")
    return tasks.values_list("report", flat=True).first() or {}


def numbers(jobs: QuerySet[Job]) -> list[JobNumber]:
    """The jobs of executors counted by status and priority, in one statement."""
    is_held = ExpressionWrapper(Q(lease_until__isnull=False), output_field=BooleanField())
    counted = jobs.order_by().annotate(is_held=is_held).values_list("status", "is_held", "priority")
    return [
        JobNumber(status_outside(status, runner=external.NAME, is_held=is_held), priority, number)
        for status, is_held, priority, number in counted.annotate(Count("pk"))
    ]
