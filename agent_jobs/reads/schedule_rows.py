"""Reads of schedules, the organisation first. Another organisation's id is NotFound, like a missing one."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery

from agent_jobs.errors import NotFound
from agent_jobs.models import Job, Schedule, ScheduleFiring, ScheduleVersion

Row = Mapping[str, Any]
COLUMNS = (
    *("id", "org_id", "key", "name", "job_type_key", "runner", "tags", "definition", "is_paused", "version"),
    *("next_at", "created_by", "created_at", "updated_at"),
)
FIRING_COLUMNS = ("id", "fire_at", "kind", "outcome", "reason", "job_id", "created_at")
VERSION_COLUMNS = ("number", "definition", "is_paused", "diff", "author", "note", "created_at")
KINDS = tuple(ScheduleFiring.Kind.values)
OUTCOMES = tuple(ScheduleFiring.Outcome.values)
STATUSES = ("active", "paused", "completed")


def schedules(org_id: str) -> QuerySet[Schedule]:
    return Schedule.objects.filter(org_id=org_id)


def schedule(org_id: str, schedule_id: UUID) -> Row:
    row: Row | None = schedules(org_id).filter(pk=schedule_id).values(*COLUMNS).first()
    if row is None:
        raise not_found(str(schedule_id))
    return row


def schedule_of_runner(org_id: str, runner: str, schedule_id: UUID | None, *, shown_id: str) -> Row:
    """The schedule if this runner performs its jobs. Raises NotFound otherwise, which calls it a job as dialects do."""
    found = with_runner(schedules(org_id), runner)
    row: Row | None = found.filter(pk=schedule_id).values(*COLUMNS).first() if schedule_id else None
    if row is None:
        raise not_found(shown_id, word="job")
    return row


def by_key(org_id: str, key: str) -> UUID | None:
    return schedules(org_id).filter(key=key).values_list("pk", flat=True).first()


def not_found(schedule_id: str, *, word: str = "schedule") -> NotFound:
    """The error for a missing schedule and for another organisation's: the same text, and the same audit entry."""
    return NotFound(
        f"there is no {word} {schedule_id[:64]!r}", code="schedule_not_found", denied=("schedule", schedule_id[:64])
    )


def status(row: Row) -> str:
    """The status of a schedule: `paused`, `active`, or or `completed` if it is not paused and no firing is left."""
    if row["is_paused"]:
        return "paused"
    return "active" if row["next_at"] is not None else "completed"


def with_status(rows: QuerySet[Schedule], wanted: str) -> QuerySet[Schedule]:
    if wanted == "paused":
        return rows.filter(is_paused=True)
    return rows.filter(is_paused=False, next_at__isnull=wanted == "completed")


def with_any_tag(rows: QuerySet[Schedule], tags: list[str]) -> QuerySet[Schedule]:
    return rows.filter(tags__overlap=tags)


def with_runner(rows: QuerySet[Schedule], runner: str) -> QuerySet[Schedule]:
    """The schedules whose jobs this runner performs: a dialect shows those of one runner only."""
    return rows.filter(runner=runner)


def with_tag(rows: QuerySet[Schedule], tag: str) -> QuerySet[Schedule]:
    return rows.filter(tags__contains=[tag])


def firings(org_id: str, schedule_id: UUID) -> QuerySet[ScheduleFiring]:
    return ScheduleFiring.objects.filter(org_id=org_id, schedule_id=schedule_id)


def last_firings(org_id: str, schedule_ids: list[UUID]) -> Mapping[UUID, Row]:
    """The newest firing of each schedule, with the status of its job if that is there."""
    newest = ScheduleFiring.objects.filter(schedule=OuterRef("pk")).order_by("-fire_at", "-id").values("pk")[:1]
    ids = (
        schedules(org_id).filter(pk__in=schedule_ids).annotate(newest=Subquery(newest)).values_list("newest", flat=True)
    )
    job_status = Job.objects.filter(pk=OuterRef("job_id")).values("status")[:1]
    found = ScheduleFiring.objects.filter(pk__in=[pk for pk in ids if pk]).annotate(job_status=Subquery(job_status))
    return {row["schedule_id"]: row for row in found.values("schedule_id", "job_status", *FIRING_COLUMNS)}


def versions(org_id: str, schedule_id: UUID) -> QuerySet[ScheduleVersion]:
    return ScheduleVersion.objects.filter(org_id=org_id, schedule_id=schedule_id)


def jobs(org_id: str, schedule_id: UUID) -> QuerySet[Job]:
    """The history of a schedule."""
    return Job.objects.filter(org_id=org_id, schedule_id=schedule_id)
