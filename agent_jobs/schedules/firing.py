"""Fires schedules: makes the jobs of the times that are due, and records what became of each.

`fire_due` is the duty. It locks due schedules with SKIP LOCKED, so any number of processes may call it. A schedule that
makes a batch fail is fired alone; if it fails again it is set aside, and the others go on.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from agent_jobs import duty_rounds, jobs, recurrence, runners, sealed_work, webhooks, work
from agent_jobs.errors import AgentJobsError, IllegalMove
from agent_jobs.jobs import creation
from agent_jobs.models import Job, JobType, Schedule, ScheduleFiring
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import planning
from agent_jobs.schedules.definition import Overlap
from agent_jobs.schedules.planning import Planned
from agent_jobs.specs import Actor, JobSpec
from agent_jobs.states import TERMINAL, JobStatus
from infra import bulk_rows, database, prepared_sql
from infra.quarantine import Quarantine

BATCH = 500
_MOVE_ON = """
UPDATE agent_jobs_schedule s SET next_at = moved.next_at, tz_version = %(tz_version)s
FROM unnest(%(ids)s::uuid[], %(times)s::timestamptz[]) AS moved (id, next_at) WHERE s.id = moved.id
"""
_ACTIVE = [str(status) for status in JobStatus if status not in TERMINAL]
_TIMER = Actor("system", "schedules")
_failed: Quarantine[UUID] = Quarantine("fire_schedules")
# Skipped is also said of a job that could not be made.
_EVENTS: Mapping[str, str] = {
    ScheduleFiring.Outcome.SKIPPED: "schedule.skipped",
    ScheduleFiring.Outcome.FAILED: "schedule.skipped",
    ScheduleFiring.Outcome.MISFIRED: "schedule.misfired",
}
_MOST_TOLD = 100
_OUTCOMES = {"run": ScheduleFiring.Outcome.STARTED, "replace": ScheduleFiring.Outcome.STARTED}


@dataclass(slots=True)
class _Due:
    """A locked schedule with the outcome of each of its due times."""

    schedule: Schedule
    plan: planning.Plan


def serve_second(*, seconds: float = 1.0) -> int:
    """The duty: fire schedules at the moment they fall due (`duty_rounds.serve_second`). Returns how many fired."""
    return duty_rounds.serve_second("fire", fire_all, seconds_to_next_due, seconds=seconds)


def fire_all() -> int:
    """Fire all due schedules, in batches of one transaction each."""
    fired = 0
    while batch := fire_due():
        fired += batch
    return fired


def fire_due(*, batch: int = BATCH) -> int:
    """Fire up to `batch` due schedules in one transaction. Returns how many. Safe to run concurrently."""
    return _without_failing_rows(_waiting().filter(next_at__lte=Now()), fire, batch)


def seconds_to_next_due() -> float:
    """Seconds until the next schedule is due, negative if one is; LONGEST_WAIT if none is active."""
    next_at = _waiting().values_list("next_at", flat=True).first()
    return (next_at - database.now()).total_seconds() if next_at else duty_rounds.LONGEST_WAIT


def _waiting() -> QuerySet[Schedule]:
    """The active schedules, the next one to fire first. Those of closed organisations wait until it is reopened."""
    active = Schedule.objects.filter(next_at__isnull=False, org__closed_at__isnull=True)
    return active.exclude(pk__in=_failed.rows()).order_by("next_at")


def release_queued(*, batch: int = BATCH) -> int:
    """Make the jobs of queued firings whose schedules have no unfinished job any more. Returns how many."""
    active = Job.objects.filter(schedule_id=OuterRef("schedule_id"), status__in=_ACTIVE, replay_of__isnull=True)
    waiting = ScheduleFiring.objects.filter(
        ~Exists(active), outcome=ScheduleFiring.Outcome.QUEUED, org__closed_at__isnull=True
    )
    ids = list(waiting.exclude(schedule_id__in=_failed.rows()).values_list("schedule_id", flat=True)[:batch])
    return _without_failing_rows(Schedule.objects.filter(pk__in=ids), _release, batch) if ids else 0


def refresh_zones(*, batch: int = 500) -> int:
    """Compute next times again that an older release of the time zone database computed. Returns how many."""
    now, release = database.now(), recurrence.tz_version()
    with transaction.atomic():
        stale = Schedule.objects.filter(next_at__gt=now).exclude(tz_version=release)
        found = list(stale.select_for_update(skip_locked=True, no_key=True)[:batch])
        for schedule in found:
            timing = definitions.timing(schedule.definition, anchor=schedule.created_at)
            next_at = planning.next_time(timing, after=now)
            Schedule.objects.filter(pk=schedule.pk).update(next_at=next_at, tz_version=release)
    return len(found)


def fire_locked(schedule: Schedule) -> None:
    """Fire what is due of one schedule whose row the caller has locked, and set its `next_at`."""
    if schedule.next_at is not None and schedule.next_at <= database.now():
        fire([schedule])


def fire(locked: Sequence[Schedule]) -> int:
    """Fire the due times of schedules whose rows are locked."""
    now = database.now()
    timings = [definitions.timing(schedule.definition, anchor=schedule.created_at) for schedule in locked]
    restrained = [one for one, timing in zip(locked, timings, strict=True) if timing.overlap != Overlap.ALLOW]
    active, queued = _active_jobs(restrained), _queued(restrained)
    found = []
    for schedule, timing in zip(locked, timings, strict=True):
        assert schedule.next_at is not None
        plan = planning.plan(
            timing, next_at=schedule.next_at, now=now, active=active[schedule.pk], queued=queued[schedule.pk]
        )
        found.append(_Due(schedule, plan))
    record(
        [(one.schedule, planned) for one in found for planned in one.plan.planned],
        kind=ScheduleFiring.Kind.TIMER,
        actor=_TIMER,
    )
    for one in found:
        one.schedule.next_at = one.plan.next_at
        one.schedule.tz_version = recurrence.tz_version()
    moved = {"ids": [one.schedule.pk for one in found], "times": [one.plan.next_at for one in found]}
    prepared_sql.run(_MOVE_ON, {**moved, "tz_version": recurrence.tz_version()})
    return len(found)


def record(
    planned: Sequence[tuple[Schedule, Planned]],
    *,
    kind: ScheduleFiring.Kind,
    actor: Actor,
    overrides: Mapping[str, Any] | None = None,
    is_due_now: bool = False,
    raises: bool = False,
) -> list[ScheduleFiring]:
    """Make the jobs of planned firings and record all of them. A time that is recorded already is left out.

    `overrides` are laid over the job's definition, and a queued firing keeps them. `is_due_now`: the jobs start now and
    not at the firing's time. `raises`: the error of a job that cannot be made is raised and not recorded.
    """
    if kind != ScheduleFiring.Kind.MANUAL:
        planned = _unrecorded(planned)
    firings, now = [], database.now()
    by_org: dict[str, list[tuple[ScheduleFiring, JobSpec]]] = defaultdict(list)
    for schedule, one in planned:
        firing = ScheduleFiring(
            org_id=schedule.org_id,
            schedule=schedule,
            fire_at=one.fire_at,
            kind=kind,
            outcome=_OUTCOMES.get(one.outcome, one.outcome),
            reason=one.reason,
            created_at=now,
        )
        firings.append(firing)
        if one.outcome == "replace":
            cancel_active(
                schedule, spares_replays=True, reason=f"replaced by the firing at {one.fire_at:%Y-%m-%dT%H:%M:%SZ}"
            )
        if one.makes_job:
            by_org[schedule.org_id].append((firing, _spec(schedule, one.fire_at, overrides or {}, is_due_now)))
        elif overrides and one.outcome == "queued":
            creation.check(schedule.org_id, _spec(schedule, one.fire_at, overrides, is_due_now))
            firing.overrides = dict(overrides)
    for org_id, made in by_org.items():
        for (firing, _), job in zip(
            made, jobs.create_many(org_id, [spec for _, spec in made], actor=actor), strict=True
        ):
            if raises and isinstance(job, AgentJobsError):
                raise job
            _note_job(firing, job)
    bulk_rows.insert(firings)
    _announce(firings)
    return firings


def _note_job(firing: ScheduleFiring, job: Job | AgentJobsError) -> None:
    if isinstance(job, AgentJobsError):
        firing.outcome, firing.reason = ScheduleFiring.Outcome.FAILED, f"{job.code}: {job.message}"[:1_000]
    else:
        firing.outcome, firing.job_id = ScheduleFiring.Outcome.STARTED, job.pk


def _announce(firings: Sequence[ScheduleFiring]) -> None:
    """Tell the organisation's webhooks of firings that made no job: once for each schedule and outcome."""
    silent: dict[tuple[Schedule, str], list[ScheduleFiring]] = defaultdict(list)
    for firing in firings:
        if firing.outcome in _EVENTS:
            silent[firing.schedule, firing.outcome].append(firing)
    wanted = {
        whose: webhooks.is_wanted(*whose) for whose in {(one.org_id, _EVENTS[outcome]) for one, outcome in silent}
    }
    for (schedule, outcome), found in silent.items():
        if not wanted[schedule.org_id, _EVENTS[outcome]]:
            continue
        payload = {
            "schedule_id": str(schedule.pk),
            "name": schedule.name,
            "key": schedule.key,
            "outcome": outcome,
            "reason": found[-1].reason,
            "count": len(found),
            "fire_at": [f"{one.fire_at:%Y-%m-%dT%H:%M:%SZ}" for one in found[-_MOST_TOLD:]],
        }
        webhooks.announce(schedule.org_id, _EVENTS[outcome], str(schedule.pk), payload)


def cancel_active(schedule: Schedule, *, reason: str, actor: Actor = _TIMER, spares_replays: bool = False) -> None:
    """Cancel the schedule's jobs that have not ended. Call it in a transaction."""
    unfinished = Job.objects.filter(schedule_id=schedule.pk, org_id=schedule.org_id, status__in=_ACTIVE)
    if spares_replays:
        unfinished = unfinished.filter(replay_of__isnull=True)
    for job_id in unfinished.values_list("pk", flat=True):
        try:
            jobs.cancel(schedule.org_id, job_id, actor=actor, reason=reason)
        except IllegalMove:  # it ended meanwhile
            continue


def active_jobs(schedule: Schedule) -> int:
    return _active_jobs([schedule])[schedule.pk]


def queued_firings(schedule: Schedule) -> int:
    return _queued([schedule])[schedule.pk]


def _spec(schedule: Schedule, fire_at: datetime, overrides: Mapping[str, Any], is_due_now: bool) -> JobSpec:
    definition = schedule.definition
    secrets = sealed_work.secrets_of(schedule)
    if overrides:
        laid = _laid_over(definition["job"], overrides)
        if overrides.get("work"):
            require_same_recipient(schedule, definition["job"], laid, secrets)
        definition = {**definition, "job": laid}
    jitter = definition["jitter_seconds"]
    due_at = (
        recurrence.jittered(fire_at, key=str(schedule.pk), max_seconds=jitter) if jitter and not is_due_now else None
    )
    return definitions.job_spec(definition, secrets, schedule=schedule, fire_at=fire_at, due_at=due_at)


def require_same_recipient(
    schedule: Schedule, job: Mapping[str, Any], laid: Mapping[str, Any], secrets: work.Secrets
) -> None:
    """Check that the new job sends the schedule's secrets to no other host or command. Raises Invalid if it would."""
    if not secrets or not isinstance(laid.get("work", {}), Mapping):
        return
    job_type = JobType.objects.filter(org_id=schedule.org_id, key=str(laid.get("job_type_id", ""))).first()
    rules = runners.get(job_type.runner).work if job_type and job_type.runner in runners.names() else None
    if rules:
        work.updated(laid.get("work", {}), work.Work(job.get("work", {}), secrets), rules)


def _laid_over(job: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The job with overrides: params, config and work are merged key by key, and None removes a key."""
    laid = dict(job)
    for name, value in overrides.items():
        laid[name] = {**job.get(name, {}), **value} if name in ("params", "config", "work") else value
        if isinstance(laid[name], dict):
            laid[name] = {key: inner for key, inner in laid[name].items() if inner is not None}
    return laid


def _unrecorded(planned: Sequence[tuple[Schedule, Planned]]) -> list[tuple[Schedule, Planned]]:
    """The planned firings that are not recorded yet. The schedules' rows are locked, so nobody adds one meanwhile."""
    if not planned:
        return []
    known = set(
        ScheduleFiring.objects.filter(
            schedule__in={schedule.pk for schedule, _ in planned},
            fire_at__range=(min(one.fire_at for _, one in planned), max(one.fire_at for _, one in planned)),
        )
        .exclude(kind=ScheduleFiring.Kind.MANUAL)
        .values_list("schedule_id", "fire_at")
    )
    return [(schedule, one) for schedule, one in planned if (schedule.pk, one.fire_at) not in known]


def _release(locked: Sequence[Schedule]) -> int:
    released = []
    for schedule in locked:
        queued = ScheduleFiring.objects.filter(schedule=schedule, outcome=ScheduleFiring.Outcome.QUEUED)
        firing = queued.select_related("schedule").order_by("fire_at").first()
        if firing is None or active_jobs(schedule):
            continue
        spec = _spec(schedule, firing.fire_at, firing.overrides, is_due_now=True)
        (job,) = jobs.create_many(schedule.org_id, [spec], actor=_TIMER)
        _note_job(firing, job)
        firing.save(update_fields=["outcome", "reason", "job_id"])
        released.append(firing)
    _announce(released)
    return len(released)


def _active_jobs(schedules: Sequence[Schedule]) -> dict[UUID, int]:
    """Replays do not count: they are no firings."""
    if not schedules:
        return defaultdict(int)
    ids = [one.pk for one in schedules]
    active = Job.objects.filter(schedule_id__in=ids, status__in=_ACTIVE, replay_of__isnull=True)
    return defaultdict(int, active.order_by().values_list("schedule_id").annotate(Count("pk")))


def _queued(schedules: Sequence[Schedule]) -> dict[UUID, int]:
    if not schedules:
        return defaultdict(int)
    queued = ScheduleFiring.objects.filter(
        schedule_id__in=[one.pk for one in schedules], outcome=ScheduleFiring.Outcome.QUEUED
    )
    return defaultdict(int, queued.order_by().values_list("schedule_id").annotate(Count("pk")))


def _without_failing_rows(due: QuerySet[Schedule], work: Callable[[Sequence[Schedule]], int], batch: int) -> int:
    """Work on the locked rows of `due` in one transaction; if that fails, on each in a transaction of its own."""

    def work_on(rows: QuerySet[Schedule]) -> int:
        with transaction.atomic():
            locked = list(rows.select_for_update(of=("self",), skip_locked=True, no_key=True)[:batch])
            return work(locked) if locked else 0

    ids = due.values_list("pk", flat=True)[:batch]
    return sum(_failed.batch(lambda: work_on(due), rows=lambda: ids, one=lambda pk: work_on(due.filter(pk=pk))))
