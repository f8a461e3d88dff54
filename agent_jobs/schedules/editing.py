"""Creates and changes schedules. Every change of the configuration makes a version, numbered from 1.

Each function runs in one transaction that holds the schedule's row, and writes an audit entry. It answers the schedule
as it then is.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction

from agent_jobs import recurrence, runners, sealed_work, work
from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound
from agent_jobs.jobs import creation
from agent_jobs.models import JobType, Schedule, ScheduleVersion
from agent_jobs.reads import schedule_rows
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import firing, planning
from agent_jobs.specs import Actor
from agent_jobs.tenants import row_limits
from infra import database

MOST_SCHEDULES = 20_000
_NEVER = "never fires from now on"


def create(
    org_id: str, stated: Mapping[str, Any], *, key: str | None = None, is_paused: bool = False, actor: Actor
) -> Schedule:
    """Create a schedule. Raises Invalid with the wrong fields, NotFound for an unknown job type or profile, Conflict
    for a taken key.
    """
    with transaction.atomic():
        row_limits.require(
            org_id, Schedule.objects.filter(org_id=org_id), MOST_SCHEDULES, what="schedules", code="too_many_schedules"
        )
        schedule = Schedule(id=uuid4(), org_id=org_id, key=key, is_paused=is_paused, created_by=str(actor), version=0)
        schedule.created_at = database.now()
        try:
            with transaction.atomic():
                _write(schedule, definitions.completed(stated), {}, actor=actor, is_new=True)
        except IntegrityError:
            raise Conflict(f"there is a schedule with the key {key!r} already", code="schedule_exists") from None
        audit_log.record(org_id, "schedule.created", schedule.pk, actor=actor, after=schedule.definition)
    return schedule


def replace(
    org_id: str,
    schedule_id: UUID,
    stated: Mapping[str, Any],
    *,
    actor: Actor,
    is_paused: bool | None = None,
    if_version: int | None = None,
) -> Schedule:
    """Replace the schedule's definition. Values equal to the mask keep the stored secret."""
    whole = definitions.completed(stated)
    return _changed(org_id, schedule_id, lambda _: whole, actor=actor, is_paused=is_paused, if_version=if_version)


def change(
    org_id: str,
    schedule_id: UUID,
    stated: Mapping[str, Any],
    *,
    actor: Actor,
    is_paused: bool | None = None,
    if_version: int | None = None,
) -> Schedule:
    """Change the fields in `stated`; None removes a field. `job` is merged one level deep, `dst` and `misfire` too.

    One way of timing replaces the other: a new `cron` removes `run_at`.
    """

    def merged(before: Mapping[str, Any]) -> dict[str, Any]:
        kept = dict(before)
        if any(stated.get(timing) is not None for timing in definitions.TIMINGS):
            kept = {key: value for key, value in kept.items() if key not in definitions.TIMINGS}
        for name in ("job", "dst", "misfire"):
            if isinstance(stated.get(name), Mapping) and isinstance(before.get(name), Mapping):
                kept[name] = _without_none({**before[name], **stated[name]})
        nested = {"job", "dst", "misfire"} & {name for name in stated if isinstance(before.get(name), Mapping)}
        rest = {name: value for name, value in stated.items() if name not in nested or value is None}
        return definitions.completed(_without_none({**kept, **rest}))

    return _changed(org_id, schedule_id, merged, actor=actor, is_paused=is_paused, if_version=if_version)


def rewrite(
    org_id: str,
    schedule_id: UUID,
    rewritten: Callable[[Mapping[str, Any]], dict[str, Any]],
    *,
    actor: Actor,
    is_paused: bool | None = None,
    author_may_redirect: bool = False,
) -> Schedule:
    """Replace the definition by what `rewritten` makes of the present one, while the row is locked.

    With `author_may_redirect`, an actor who alone made all its versions, and so knows its secrets, may let another
    command have the stored environment. Anybody else has to give the variables anew.
    """
    return _changed(
        org_id,
        schedule_id,
        lambda before: definitions.completed(rewritten(before)),
        actor=actor,
        is_paused=is_paused,
        author_may_redirect=author_may_redirect,
    )


def pause(org_id: str, schedule_id: UUID, *, actor: Actor, unless_completed: bool = False) -> Schedule:
    """Stop the schedule's firings until `resume`. Pausing twice is no error, and makes no new version.

    With `unless_completed`, raises Conflict (`schedule_completed`) if no firing is left.
    """
    return _changed(
        org_id, schedule_id, dict, actor=actor, is_paused=True, note="paused", unless_completed=unless_completed
    )


def resume(org_id: str, schedule_id: UUID, *, actor: Actor, unless_completed: bool = False) -> Schedule:
    """Let the schedule fire again from now on; times that passed are lost. `unless_completed` as in `pause`."""
    return _changed(
        org_id, schedule_id, dict, actor=actor, is_paused=False, note="resumed", unless_completed=unless_completed
    )


def roll_back(org_id: str, schedule_id: UUID, number: int, *, actor: Actor) -> Schedule:
    """Make a new version with the configuration and secrets of an old one. It stays paused or active as it is.

    Raises NotFound for an unknown version, and Invalid if that configuration is not valid any more.
    """
    with transaction.atomic():
        schedule = locked(org_id, schedule_id)
        version = ScheduleVersion.objects.filter(schedule=schedule, number=number).first()
        if version is None:
            raise version_not_found(number)
        secrets = sealed_work.secrets_of(version)
        firing.fire_locked(schedule)
        before = schedule.definition
        _write(schedule, version.definition, secrets, actor=actor, note=f"rolled back to version {number}", always=True)
        _record(schedule, before, actor)
    return schedule


def delete(org_id: str, schedule_id: UUID, *, actor: Actor, cancels_jobs: bool = False) -> Schedule:
    """Delete the schedule with its versions and firings. Its jobs stay, and those that have not ended go on, unless
    `cancels_jobs`.
    """
    with transaction.atomic():
        schedule = locked(org_id, schedule_id)
        before = schedule.definition
        if cancels_jobs:
            firing.cancel_active(schedule, reason="its schedule was deleted", actor=actor)
        Schedule.objects.filter(pk=schedule.pk).delete()
        audit_log.record(org_id, "schedule.deleted", schedule_id, actor=actor, before=before)
    schedule.pk = schedule_id
    return schedule


def locked(org_id: str, schedule_id: UUID) -> Schedule:
    """The schedule, its row locked; call it in a transaction. Raises NotFound."""
    found = Schedule.objects.select_for_update(no_key=True).filter(org_id=org_id, pk=schedule_id).first()
    if found is None:
        raise schedule_rows.not_found(str(schedule_id))
    return found


def version_not_found(number: object) -> NotFound:
    return NotFound(f"the schedule has no version {str(number)[:20]}", code="version_not_found")


def _changed(
    org_id: str,
    schedule_id: UUID,
    changed: Callable[[Mapping[str, Any]], dict[str, Any]],
    *,
    actor: Actor,
    is_paused: bool | None = None,
    if_version: int | None = None,
    note: str = "",
    unless_completed: bool = False,
    author_may_redirect: bool = False,
) -> Schedule:
    with transaction.atomic():
        schedule = locked(org_id, schedule_id)
        if if_version is not None and if_version != schedule.version:
            raise Conflict(
                f"the schedule is at version {schedule.version} and not at {if_version}: read it again",
                code="version_mismatch",
            )
        firing.fire_locked(schedule)
        before, was_paused = schedule.definition, schedule.is_paused
        if unless_completed and schedule.next_at is None and not was_paused:
            raise Conflict("the schedule is completed: no firing is left", code="schedule_completed")
        if is_paused is not None:
            schedule.is_paused = is_paused
        secrets, wanted = sealed_work.secrets_of(schedule), changed(before)
        try:
            if not (author_may_redirect and _is_sole_author(schedule, actor)):
                firing.require_same_recipient(schedule, before["job"], wanted["job"], secrets)
        except Invalid as error:
            raise Invalid(*(FieldError(f"job.{one.field}", one.code, one.message) for one in error.errors)) from None
        _write(schedule, wanted, secrets, actor=actor, note=note, was_paused=was_paused)
        _record(schedule, before, actor)
    return schedule


def _is_sole_author(schedule: Schedule, actor: Actor) -> bool:
    return not ScheduleVersion.objects.filter(schedule=schedule).exclude(author=str(actor)).exists()


def _record(schedule: Schedule, before: Mapping[str, Any], actor: Actor) -> None:
    old, new = audit_log.changes(before, {**schedule.definition, "is_paused": schedule.is_paused})
    audit_log.record(schedule.org_id, "schedule.updated", schedule.pk, actor=actor, before=old, after=new)


def _write(
    schedule: Schedule,
    definition: dict[str, Any],
    secrets: work.Secrets,
    *,
    actor: Actor,
    note: str = "",
    is_new: bool = False,
    was_paused: bool = False,
    always: bool = False,
) -> None:
    """Check and store a definition as the next version. Without a difference nothing is written, unless `always`."""
    now = database.now()
    checked = _CheckedSchedule(schedule, definition, secrets, now)
    before = {} if is_new else schedule.definition
    diff = definitions.changes(before, checked.definition)
    if secrets and checked.secrets != secrets:
        diff.append({"field": "job.work", "before": work.MASK, "after": "other secrets"})
    if was_paused != schedule.is_paused:
        diff.append({"field": "is_paused", "before": was_paused, "after": schedule.is_paused})
    if not diff and not is_new and not always:
        return
    changed = {one["field"].split(".")[0] for one in diff}
    next_at = planning.next_time(checked.timing, after=now)
    if next_at is None and (is_new or changed & {*definitions.TIMINGS, "time_zone"}):
        raise Invalid(FieldError(definitions.stated_timing(definition), "invalid_schedule", _NEVER))
    schedule.definition = checked.definition
    schedule.name, schedule.tags = checked.definition["name"], checked.definition["tags"]
    schedule.job_type_key, schedule.runner = checked.job_type.key, checked.job_type.runner
    schedule.sealed_work = sealed_work.seal(schedule, checked.secrets)
    schedule.version += 1
    schedule.updated_at = schedule.created_at if is_new else now
    if schedule.is_paused:
        schedule.next_at = None
    elif is_new or was_paused or changed & definitions.TIMING_KEYS:
        schedule.next_at = next_at
        schedule.tz_version = recurrence.tz_version()
    schedule.save(force_insert=is_new)
    version = ScheduleVersion(
        org_id=schedule.org_id,
        schedule=schedule,
        number=schedule.version,
        definition=schedule.definition,
        is_paused=schedule.is_paused,
        diff=[] if is_new else diff,
        author=str(actor),
        note=note,
    )
    version.sealed_work = sealed_work.seal(version, checked.secrets)
    version.save(force_insert=True)


class _CheckedSchedule:
    """A definition with its masks filled in, checked as a whole, and split into what is shown and its secrets.

    Raises Invalid with fields as `job.config.max_steps`, and NotFound for a job type or a profile.
    """

    def __init__(self, schedule: Schedule, definition: dict[str, Any], stored: work.Secrets, now: datetime) -> None:
        errors = definitions.problems(definition, now=now)
        job = dict(definition["job"])
        whole = work.joined(job.get("work", {}), stored)
        spec = definitions.job_spec(
            {**definition, "job": {**job, "work": whole}}, {}, schedule=schedule, fire_at=now, due_at=None
        )
        try:
            self.job_type: JobType = creation.check(schedule.org_id, spec)
        except Invalid as error:
            errors += [FieldError(f"job.{one.field}", one.code, one.message) for one in error.errors]
        if errors:
            raise Invalid(*errors)
        rules = runners.get(self.job_type.runner).work
        split = work.split(whole, rules) if rules else work.Work({}, {})
        self.secrets = split.secrets
        self.definition = {**definition, "job": {**job, **({"work": dict(split.shown)} if whole else {})}}
        self.timing = definitions.timing(definition, anchor=schedule.created_at)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
