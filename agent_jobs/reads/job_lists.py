"""The columns of job lists for people, in a constant number of statements, however many activities there are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db.models import Case, CharField, Count, F, QuerySet, Value, When
from django.db.models.functions import Left, Lower

from agent_jobs.models import Job, JobType
from agent_jobs.reads import pages
from agent_jobs.reads.pages import Order, Window
from agent_jobs.states import JobStatus
from infra import raw_sql

Row = Mapping[str, Any]
MOST_COUNTED = 10_000
COLUMNS = (
    *("id", "status", "job_type_key", "platform", "channel_code", "channel_data", "tags", "priority", "runner"),
    *("created_at", "updated_at", "scheduled_at", "started_at", "finished_at", "delay_minutes", "delay_seconds"),
    *("queue_at", "waiting_for", "wake_at", "lease_until", "attempt", "failed_attempts", "inbox_count"),
    *("follow_ups_sent", "follow_ups_total", "error_code", "replay_of", "retry_count", "time_spent", "state_since"),
    *("few_params", "few_config", "short_result", "short_error"),
)
_MOST_JSON = 4_000
_MOST_TEXT = 300
_MOST_CALLS = 500
_MORE = f"""
SELECT asked.id, step.number, step.name, approval.tool,
    CASE WHEN approval.timer_seconds IS NULL THEN approval.expires_at END, note.note, note.actor, (
        SELECT left(result, 200) FROM agent_jobs_task WHERE job_id = asked.id ORDER BY number DESC LIMIT 1), (
        SELECT sum(consumed_credits) FROM (
            SELECT consumed_credits FROM agent_jobs_activity WHERE job_id = asked.id ORDER BY number DESC
            LIMIT {_MOST_CALLS}) calls)
FROM unnest(%s::uuid[]) AS asked (id)
LEFT JOIN LATERAL (
    SELECT number, name FROM agent_jobs_step WHERE job_id = asked.id ORDER BY life DESC, number DESC LIMIT 1
) step ON true
LEFT JOIN LATERAL (
    SELECT tool, expires_at, timer_seconds FROM agent_jobs_approval
    WHERE org_id = %s AND job_id = asked.id AND status = 'pending' ORDER BY created_at DESC LIMIT 1
) approval ON true
LEFT JOIN LATERAL (
    SELECT note, actor FROM agent_jobs_activity WHERE job_id = asked.id AND moved_to = 'CANCELED'
    ORDER BY number DESC LIMIT 1
) note ON true
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class JobExtras:
    """A job's facts from other tables: its last step, its open approval, who canceled it and why, how its last claim
    ended, and its cost."""

    step_number: int | None = None
    step_name: str | None = None
    approval: str | None = None
    approval_expires_at: datetime | None = None
    cancel_note: str | None = None
    canceled_by: str | None = None
    last_result: str | None = None
    cost: Decimal | None = None


def rows(jobs: QuerySet[Job], window: Window) -> tuple[list[Row], bool]:
    """One page with COLUMNS, and whether there are more after it. Long values are left out or cut."""
    ids = pages.ordered(jobs, window).values("pk")[: window.limit + 1]
    found = _shortened(Job.objects.filter(pk__in=ids)).order_by(*pages.order_by(window.order)).values(*COLUMNS)
    shown = list(found)
    return shown[: window.limit], len(shown) > window.limit


def rows_by_id(jobs: QuerySet[Job], ids: Sequence[UUID]) -> list[Row]:
    """The rows of the jobs with these ids that are among `jobs`, in no order."""
    return list(_shortened(jobs.filter(pk__in=ids)).values(*COLUMNS))


def reversed_order(order: Iterable[Order]) -> tuple[Order, ...]:
    return tuple(Order(by.column, not by.is_descending) for by in order)


def counts(jobs: QuerySet[Job], *, are_few: bool = False) -> dict[str, int]:
    """Jobs by status, as `exact_counts`, but counts to MOST_COUNTED + 1 of each unless `are_few`."""
    if are_few:
        return exact_counts(jobs)
    found = numbers([jobs.filter(status=status) for status in JobStatus])
    return {status.lower(): number for status, number in zip(JobStatus, found, strict=True)}


def exact_counts(jobs: QuerySet[Job]) -> dict[str, int]:
    """`{"scheduled": 0, "waiting": 3, "running": 1, "completed": 12, "failed": 0, "canceled": 0}`: every status."""
    by_status = dict(jobs.order_by().values_list("status").annotate(Count("pk")))
    return {status.lower(): by_status.get(str(status), 0) for status in JobStatus}


def numbers(lists: Sequence[QuerySet[Job]]) -> list[int]:
    """How many jobs each list has, each counted up to MOST_COUNTED + 1, in one statement."""
    parts: list[str] = []
    parameters: list[Any] = []
    for number, jobs in enumerate(lists):
        try:
            sql, given = jobs.order_by().values("pk")[: MOST_COUNTED + 1].query.sql_with_params()
        except EmptyResultSet:
            parts.append("0")
            continue
        parts.append(f"(SELECT count(*) FROM ({sql}) list_{number})")  # noqa: S608 - the ORM's own text
        parameters += given
    return list(raw_sql.first(f"SELECT {', '.join(parts) or '0'}", parameters))[: len(lists)]


def ids(jobs: QuerySet[Job], *, most: int) -> list[UUID]:
    """The ids of these jobs, oldest first."""
    return list(jobs.order_by("created_at", "id").values_list("pk", flat=True)[:most])


def places(jobs: QuerySet[Job], *, most: int) -> list[tuple[datetime, UUID]]:
    """Time of creation and id of these jobs, oldest first."""
    return list(jobs.order_by("created_at", "id").values_list("created_at", "pk")[:most])


def wait_counts(jobs: QuerySet[Job]) -> list[tuple[str, int]]:
    """The number of jobs by present state: a wait, `worker`, `queue`, or a status in small letters."""
    does = Case(
        When(lease_until__isnull=False, then=Value("worker")),
        When(queue_at__isnull=False, then=Value("queue")),
        When(status=JobStatus.RUNNING, then=F("waiting_for")),
        default=Lower("status"),
        output_field=CharField(),
    )
    found = jobs.order_by().values(does=does).annotate(number=Count("pk")).order_by("-number", "does")
    return list(found.values_list("does", "number"))


def more(org_id: str, job_ids: Sequence[UUID]) -> Mapping[UUID, JobExtras]:
    found = raw_sql.all_rows(_MORE, [list(job_ids), org_id]) if job_ids else []
    return {job_id: JobExtras(*extras) for job_id, *extras in found}


def type_names(org_id: str) -> Mapping[str, str]:
    """The names of the organisation's job types by key."""
    return dict(JobType.objects.filter(org_id=org_id).order_by("name").values_list("key", "name")[:1_000])


def _shortened(jobs: QuerySet[Job]) -> QuerySet[Job]:
    return jobs.annotate(
        params_bytes=pages.text_bytes("params"),
        config_bytes=pages.text_bytes("config"),
        few_params=Case(When(params_bytes__lte=_MOST_JSON, then=F("params")), default=None),
        few_config=Case(When(config_bytes__lte=_MOST_JSON, then=F("config")), default=None),
        short_result=Left("result", _MOST_TEXT),
        short_error=Left("error_message", _MOST_TEXT),
    )
