"""Lists of schedules for people: counts by state, the last outcomes of each, and who paused them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet

from agent_jobs.models import Schedule
from agent_jobs.reads import schedule_rows
from agent_jobs.reads.schedule_rows import Row
from infra import raw_sql

STATES = ("all", "active", "paused", "failing")
MOST_COUNTED = 10_000
_FAILED = ("failed", "misfired")
# More schedules than this are not searched for failing ones.
_MOST_LOOKED_AT = 2_000

_OUTCOMES = """
SELECT asked.id, firing.fire_at, firing.kind, firing.outcome, firing.reason, firing.job_id, job.status, job.error_code,
    job.started_at, extract(epoch FROM coalesce(job.finished_at, now()) - job.started_at)::float8
FROM unnest(%s::uuid[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT id, fire_at, kind, outcome, reason, job_id FROM agent_jobs_schedulefiring
    WHERE schedule_id = asked.id AND org_id = %s ORDER BY fire_at DESC, id DESC LIMIT %s OFFSET %s
) firing
LEFT JOIN agent_jobs_job job ON job.id = firing.job_id AND job.org_id = %s
ORDER BY asked.id, firing.fire_at DESC, firing.id DESC
"""
_FAILING = """
SELECT schedule.id FROM (
    SELECT id FROM agent_jobs_schedule WHERE org_id = %s ORDER BY created_at DESC, id DESC LIMIT %s) schedule
CROSS JOIN LATERAL (
    SELECT outcome, job_id FROM agent_jobs_schedulefiring WHERE schedule_id = schedule.id
    ORDER BY fire_at DESC, id DESC LIMIT 1
) firing
LEFT JOIN agent_jobs_job job ON job.id = firing.job_id
WHERE firing.outcome IN ('failed', 'misfired') OR job.status = 'FAILED'
"""


@dataclass(frozen=True, slots=True)
class FiringLine:
    """One firing, and how its job went. `seconds` is how long the job has taken, None if it did not begin."""

    fire_at: datetime
    kind: str
    outcome: str
    reason: str
    job_id: UUID | None
    job_status: str | None
    error_code: str | None
    started_at: datetime | None
    seconds: float | None

    @property
    def result(self) -> str:
        """The job's status in small letters, else the firing's own outcome; `gone` if the job is pruned."""
        if self.job_status:
            return self.job_status.lower()
        return "gone" if self.outcome == "started" else self.outcome

    @property
    def has_failed(self) -> bool:
        return self.result in _FAILED


def failing(org_id: str) -> list[UUID]:
    """The schedules whose newest firing failed."""
    return [schedule_id for (schedule_id,) in raw_sql.all_rows(_FAILING, [org_id, _MOST_LOOKED_AT])]


def matching(org_id: str, *, text: str, state: str, failing_ids: Sequence[UUID]) -> QuerySet[Schedule]:
    """Schedules with this text in their name, job type or tags, the next to fire first."""
    found = schedule_rows.schedules(org_id)
    if text:
        found = found.filter(Q(name__icontains=text) | Q(job_type_key__icontains=text) | Q(tags__contains=[text]))
    if state in ("active", "paused"):
        found = schedule_rows.with_status(found, state)
    elif state == "failing":
        found = found.filter(pk__in=failing_ids)
    return found.order_by(F("next_at").asc(nulls_last=True), "name", "id")


def counts(org_id: str) -> dict[str, int]:
    """How many schedules there are, and how many of them are active and paused. The rest is completed."""
    # No paused schedule has a `next_at`, as a constraint of the table says.
    found: dict[str, int] = schedule_rows.schedules(org_id).aggregate(
        all=Count("pk"), active=Count("next_at"), paused=Count("pk", filter=Q(is_paused=True))
    )
    return found


def outcomes(
    org_id: str, schedule_ids: Sequence[UUID], *, most: int, after: int = 0
) -> Mapping[UUID, list[FiringLine]]:
    """The newest firings of each schedule, newest first, without the first `after`."""
    found: dict[UUID, list[FiringLine]] = {schedule_id: [] for schedule_id in schedule_ids}
    for schedule_id, *line in raw_sql.all_rows(_OUTCOMES, [list(schedule_ids), org_id, most, after, org_id]):
        found[schedule_id].append(FiringLine(*line))
    return found


def firing_count(org_id: str, schedule_id: UUID) -> int:
    """The number of a schedule's firings, counted up to MOST_COUNTED + 1."""
    return schedule_rows.firings(org_id, schedule_id).order_by()[: MOST_COUNTED + 1].count()


def pauses(org_id: str, schedule_ids: Sequence[UUID]) -> Mapping[UUID, Row]:
    """The version that paused each of these schedules: `author`, `created_at`."""
    if not schedule_ids:
        return {}
    versions = schedule_rows.schedules(org_id).filter(pk__in=schedule_ids, versions__is_paused=True)
    rows = versions.order_by("versions__number").values(
        "id", "version", author=F("versions__author"), at=F("versions__created_at"), diff=F("versions__diff")
    )
    return {row["id"]: row for row in rows if _has_paused(row)}


def _has_paused(row: Mapping[str, Any]) -> bool:
    return not row["diff"] or any(one["field"] == "is_paused" for one in row["diff"])
