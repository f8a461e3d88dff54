"""Reads the jobs of a schedule as its executions: when they ran, and what their last attempt did."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from agent_jobs.models import Job, ScheduleFiring
from agent_jobs.reads import schedule_rows
from agent_jobs.reads.schedule_rows import Row
from agent_jobs.states import JobStatus
from infra import raw_sql

COLUMNS = (
    *("id", "schedule_id", "status", "created_at", "scheduled_at", "fire_at", "started_at", "finished_at"),
    *("error_code", "error_message", "replay_of"),
)
MOST_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """The newest attempt of a job, and how many there were. Texts are cut to MOST_CHARACTERS: of outputs the end is
    kept, of an HTTP answer the beginning.

    The first four fields after the count are for commands, the others for webhooks. They are None while it runs.
    """

    count: int = 0
    exit_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    message: str | None = None
    status_code: int | None = None
    body: str | None = None
    error: str | None = None


def jobs(org_id: str, schedule_id: UUID, statuses: Iterable[JobStatus] = tuple(JobStatus)) -> QuerySet[Job]:
    """The jobs of the schedule, newest first."""
    found = schedule_rows.jobs(org_id, schedule_id).filter(status__in=[str(status) for status in statuses])
    return found.order_by("-created_at", "-id")


def silent_firings(org_id: str, schedule_id: UUID) -> QuerySet[ScheduleFiring]:
    """The firings that made no job, because of the overlap policy or an error. Newest first."""
    silent = (ScheduleFiring.Outcome.SKIPPED, ScheduleFiring.Outcome.FAILED)
    return schedule_rows.firings(org_id, schedule_id).filter(outcome__in=silent).order_by("-created_at", "-id")


def newest(org_id: str, schedule_id: UUID, limit: int) -> tuple[list[Row], int]:
    """Jobs (with COLUMNS) and silent firings (with FIRING_COLUMNS) together, newest first, and the number of all."""
    made, silent = jobs(org_id, schedule_id), silent_firings(org_id, schedule_id)
    rows = [*made.values(*COLUMNS)[:limit], *silent.values(*schedule_rows.FIRING_COLUMNS)[:limit]]
    rows.sort(key=lambda row: row["created_at"], reverse=True)
    return rows[:limit], made.count() + silent.count()


def execution(org_id: str, schedule_id: UUID, execution_id: UUID) -> Row | None:
    """The job with this id, with COLUMNS, or the silent firing with this `firing_id`, with FIRING_COLUMNS."""
    row: Row | None = jobs(org_id, schedule_id).filter(pk=execution_id).values(*COLUMNS).first()
    if row is None and (number := _firing_number(schedule_id, execution_id)):
        row = silent_firings(org_id, schedule_id).filter(pk=number).values(*schedule_rows.FIRING_COLUMNS).first()
    return row


def silent_firing(org_id: str, schedule_id: UUID, fire_at: datetime) -> Row:
    """The firing of this time, which must be there."""
    row: Row = silent_firings(org_id, schedule_id).filter(fire_at=fire_at).values(*schedule_rows.FIRING_COLUMNS)[0]
    return row


def firing_id(schedule_id: UUID, number: int) -> UUID:
    """An id for a firing that has no job. Its first half differs from that of its neighbours, its second half holds the
    number.
    """
    head = hashlib.blake2b(f"{schedule_id}:{number}".encode(), digest_size=8).digest()
    return UUID(bytes=head[:6] + bytes([0x80 | head[6] & 0x0F, head[7]]) + (1 << 63 | number).to_bytes(8, "big"))


def _firing_number(schedule_id: UUID, execution_id: UUID) -> int:
    """The number of the firing that has this `firing_id`; 0 if the id is none."""
    number = int.from_bytes(execution_id.bytes[8:], "big") & ~(1 << 63)
    return number if number < 2**62 and firing_id(schedule_id, number) == execution_id else 0


def running(org_id: str, runner: str) -> int:
    """How many jobs of schedules this runner performs now."""
    return Job.objects.filter(org_id=org_id, runner=runner, schedule_id__isnull=False, status=JobStatus.RUNNING).count()


_LAST = """
SELECT DISTINCT ON (t.job_id) t.job_id, count(*) OVER (PARTITION BY t.job_id), (t.report ->> 'exit_code')::int,
    right(t.report ->> 'stdout', %(most)s), right(t.report ->> 'stderr', %(most)s), t.report ->> 'message',
    (t.report -> 'response' ->> 'status_code')::int, left(t.report -> 'response' ->> 'body', %(most)s),
    t.report ->> 'error'
FROM agent_jobs_task t JOIN agent_jobs_job j ON j.id = t.job_id
WHERE t.job_id = ANY(%(ids)s::uuid[]) AND j.org_id = %(org)s
ORDER BY t.job_id, t.number DESC
"""


def last_attempts(org_id: str, job_ids: Iterable[UUID]) -> Mapping[UUID, LastAttempt]:
    """The last attempt of each job, by the job's id. Jobs that have not begun are absent."""
    found = raw_sql.all_rows(_LAST, {"org": org_id, "ids": list(job_ids), "most": MOST_CHARACTERS})
    return {job_id: LastAttempt(*told) for job_id, *told in found}


_REASONS = """
SELECT DISTINCT ON (job_id) job_id, note FROM agent_jobs_activity
WHERE job_id = ANY(%(ids)s::uuid[]) AND org_id = %(org)s AND moved_to = 'CANCELED'
ORDER BY job_id, number DESC
"""


def cancel_reasons(org_id: str, jobs: Iterable[Row]) -> Mapping[UUID, str]:
    """Why each canceled job was canceled, such as `CANCELED: replaced by the firing at …`."""
    ids: list[Any] = [row["id"] for row in jobs if row["status"] == JobStatus.CANCELED]
    return dict(raw_sql.all_rows(_REASONS, {"org": org_id, "ids": ids})) if ids else {}
