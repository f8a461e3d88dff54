"""Runs that somebody asks for: one now, or those of a range of past times."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from agent_jobs import recurrence
from agent_jobs.audit import audit_log
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.models import ScheduleFiring
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing, firing, planning
from agent_jobs.schedules.definition import Overlap
from agent_jobs.specs import Actor
from infra import database

MOST_BACKFILLED = 1_000


def run_now(
    org_id: str,
    schedule_id: UUID,
    *,
    actor: Actor,
    overrides: Mapping[str, Any] | None = None,
    overlap: Overlap | None = Overlap.ALLOW,
) -> ScheduleFiring:
    """Make a job now, also while the schedule is paused or completed. The next firing stays as it is.

    `overrides` are laid over `params`, `config` and `work` key by key, and replace the other fields of the job.
    `overlap` is the policy for this run; None means that of the schedule, which is otherwise for its timer only. It may
    skip the run, or queue it with its overrides. Raises NotFound, the errors of creating the job, and Invalid for
    `work` with `queue_one`: work can hold secrets, and a queued run does not store them.
    """
    with transaction.atomic():
        schedule = editing.locked(org_id, schedule_id)
        policy = overlap or Overlap(schedule.definition["overlap"])
        if policy == Overlap.QUEUE_ONE and (overrides or {}).get("work"):
            message = "cannot be changed for a run with the overlap queue_one: change the schedule's work"
            raise Invalid(FieldError("work", "invalid", message))
        now = database.now()
        (planned,) = planning.by_overlap(
            policy,
            [now],
            active=firing.active_jobs(schedule),
            queued=firing.queued_firings(schedule),
        )
        (made,) = firing.record(
            [(schedule, planned)],
            kind=ScheduleFiring.Kind.MANUAL,
            actor=actor,
            overrides=overrides,
            is_due_now=True,
            raises=True,
        )
        told = {"outcome": made.outcome, "job_id": str(made.job_id or "")}
        audit_log.record(org_id, "schedule.run", schedule.pk, actor=actor, after=told)
    return made


@dataclass(frozen=True, slots=True)
class Backfill:
    """The times of a range, oldest first, and the firings made for them: none in a dry run.

    `skipped` counts the times that have a firing already.
    """

    times: tuple[datetime, ...]
    skipped: int
    firings: tuple[ScheduleFiring, ...] = ()


def backfill(
    org_id: str,
    schedule_id: UUID,
    *,
    start: datetime,
    end: datetime,
    actor: Actor,
    overlap: Overlap = Overlap.ALLOW,
    is_dry_run: bool = False,
) -> Backfill:
    """Make the jobs of the times from `start` to `end`, both included, that have no firing. All of them start now.

    `starts_at`, `ends_at` and pauses of the schedule hold. Raises NotFound, and Invalid for an end in the future or for
    more than MOST_BACKFILLED times.
    """
    with transaction.atomic():
        schedule = editing.locked(org_id, schedule_id)
        now = database.now()
        if end < start:
            raise Invalid(FieldError("end", "invalid", "is before start"))
        if end > now:
            raise Invalid(FieldError("end", "invalid", "is in the future: a schedule fires by itself then"))
        firing.fire_locked(schedule)
        timing = definitions.timing(schedule.definition, anchor=schedule.created_at)
        before = start - planning.MICROSECOND
        found = recurrence.within(timing.rule, timing.bounds, after=before, limit=MOST_BACKFILLED + 1)
        times = [one.at for one in found if one.at <= end]
        if len(times) > MOST_BACKFILLED:
            message = f"the range has more than {MOST_BACKFILLED:,} firings, which is the limit of one request"
            raise Invalid(FieldError("end", "too_many", message))
        known = set(
            ScheduleFiring.objects.filter(schedule=schedule, fire_at__in=times)
            .exclude(kind=ScheduleFiring.Kind.MANUAL)
            .values_list("fire_at", flat=True)
        )
        missing = tuple(at for at in times if at not in known)
        if is_dry_run:
            return Backfill(missing, len(known))
        planned = planning.by_overlap(
            overlap, missing, active=firing.active_jobs(schedule), queued=firing.queued_firings(schedule)
        )
        made = firing.record(
            [(schedule, one) for one in planned], kind=ScheduleFiring.Kind.BACKFILL, actor=actor, is_due_now=True
        )
        schedule.save(update_fields=["next_at", "tz_version"])
        told = {"start": start.isoformat(), "end": end.isoformat(), "firings": len(made)}
        audit_log.record(org_id, "schedule.backfilled", schedule.pk, actor=actor, after=told)
        return Backfill(missing, len(known), tuple(made))
