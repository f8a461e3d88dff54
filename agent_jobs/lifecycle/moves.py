"""Applies one event to one job or to many, and promotes due jobs. `agent_jobs.legal_moves` says which moves are legal.

Triggers of the tables write what follows from a move: its audit entry, its announcement for webhooks, the job's
`time_spent` and its entry in the tallies. docs/architecture.md lists them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from agent_jobs.errors import IllegalMove
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.lifecycle import activities, approval_closing
from agent_jobs.lifecycle.queue_order import HEAD_START, ready_now
from agent_jobs.models import Job
from agent_jobs.specs import Actor
from agent_jobs.states import TERMINAL, TaskStatus
from infra import meters, prepared_sql, raw_sql

# Codes of the activities that moves write.
MOVE_CODES = {
    Event.PROMOTE: "job.promoted",
    Event.START: "job.started",
    Event.TAKE_BACK: "job.taken_back",
    Event.COMPLETE: "job.completed",
    Event.FAIL: "job.failed",
    Event.CANCEL: "job.canceled",
    Event.RETRY: "job.retried",
}
_STATUS = "SELECT status, retry_count FROM agent_jobs_job WHERE id = %(id)s FOR NO KEY UPDATE"
_NO_LEASE = {"lease_until": None, "worker_id": None, "lease_token": F("lease_token") + 1}
_NO_WAIT = {"waiting_for": "", "wake_at": None, "timer_message_id": None, "timer_seconds": None, "resume": ""}


def move_one(
    event: Event, job: Job, *, actor: Actor, note: str = "", left_as: TaskStatus = TaskStatus.FAILED, **columns: Any
) -> Job:
    """Apply `event` to `job` and write its activity; `columns` are written with it. Returns the job as it then is.

    A task that was running is then CANCELED if the job is, or else as `left_as` says.

    Ends, take-backs and retries raise the fencing token, so a lease holder can write nothing more. Raises IllegalMove
    with the job's actual status.
    """
    with transaction.atomic():
        found = prepared_sql.first(_STATUS, {"id": job.pk})
        if found is None or found[0] not in MOVES[event].sources:
            _read_again(job)
            raise _illegal(event, job)
        job.status, job.retry_count = found
        _move(event, [job], actor=actor, note=note, left_as=left_as, columns=columns)
        _read_again(job)
    return job


def fail_one(job: Job, code: str, message: str, *, actor: Actor, **given: Any) -> Job:
    """End a job FAILED from outside of a turn. It keeps its result so far. `given` goes to `move_one`."""
    told = f"{code}: {message}"
    given = {"result": job.result or told, **given}
    return move_one(
        Event.FAIL, job, actor=actor, note=f"FAILED {told}", error_code=code, error_message=message, **given
    )


def lock_many(event: Event, org_id: str, job_ids: Collection[UUID], *columns: str) -> list[Job]:
    """Lock those of the organisation's jobs from whose status the move may start, in the order of their ids.

    Loads `columns`, and what `move_many` needs.
    """
    found = Job.objects.filter(org_id=org_id, pk__in=job_ids, status__in=MOVES[event].sources).order_by("pk")
    return list(found.select_for_update(no_key=True).only("org_id", "status", "lane", "retry_count", *columns))


def move_many(event: Event, jobs: Sequence[Job], *, actor: Actor, note: str = "", **columns: Any) -> None:
    """As `move_one`, in a constant number of statements, for jobs that `lock_many` has locked in this transaction.

    Raises IllegalMove, before it writes anything, if the move starts from none of their statuses. The objects keep the
    old values.
    """
    if wrong := [job for job in jobs if job.status not in MOVES[event].sources]:
        raise _illegal(event, wrong[0])
    if jobs:
        _move(event, jobs, actor=actor, note=note, left_as=TaskStatus.FAILED, columns=columns)


def _move(
    event: Event, jobs: Sequence[Job], *, actor: Actor, note: str, left_as: TaskStatus, columns: Mapping[str, Any]
) -> None:
    """Apply the event to locked jobs of one organisation, whose status and life are those of their rows."""
    target, ids = MOVES[event].target, [job.pk for job in jobs]
    Job.objects.filter(pk__in=ids).update(status=target, updated_at=Now(), **_written(event, columns))
    if target in TERMINAL and event != Event.COMPLETE:
        # Regardless of `waiting_for`: a turn may have asked for an approval without being settled yet.
        approval_closing.withdraw(*jobs)
    if target in TERMINAL or event == Event.TAKE_BACK:
        left = TaskStatus.CANCELED if event == Event.CANCEL else left_as
        prepared_sql.run(_LEAVE_TASKS, {"jobs": ids, "status": left})
    lives = 1 if event == Event.RETRY else 0
    prepared_sql.run(
        _LOG_MOVES,
        {
            "org": jobs[0].org_id,
            "code": MOVE_CODES[event],
            "actor": str(actor)[: activities.MAX_ACTOR],
            "request": actor.request_id,
            "note": note,
            "target": str(target),
            "jobs": ids,
            "statuses": [str(job.status) for job in jobs],
            "lives": [job.retry_count + lives for job in jobs],
        },
    )
    if target in TERMINAL:
        code, number = columns.get("error_code", ""), len(jobs)
        transaction.on_commit(lambda: meters.add("ends", number, status=str(target), code=code), robust=True)


def _illegal(event: Event, job: Job) -> IllegalMove:
    message = f"cannot {event.replace('_', ' ')} a {job.status} job"
    return IllegalMove(message, job_id=str(job.pk), status=job.status)


_LEAVE_TASKS = """
UPDATE agent_jobs_task SET status = %(status)s, finished_at = statement_timestamp()
WHERE job_id = ANY(%(jobs)s::uuid[]) AND status = 'RUNNING'
"""
_LOG_MOVES = """
INSERT INTO agent_jobs_activity
    (org_id, job_id, code, note, actor, request_id, moved_from, moved_to, life, processed_at)
SELECT %(org)s, moved.job, %(code)s, %(note)s, %(actor)s, %(request)s, moved.status, %(target)s, moved.life,
    statement_timestamp()
FROM unnest(%(jobs)s::uuid[], %(statuses)s::text[], %(lives)s::int[]) AS moved (job, status, life)
"""


def _written(event: Event, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a move writes beside the status."""
    if MOVES[event].target in TERMINAL:
        return {**_NO_LEASE, **_NO_WAIT, "queue_at": None, "finished_at": Now(), **columns}
    if event in (Event.TAKE_BACK, Event.RETRY):
        return {**_NO_LEASE, "queue_at": ready_now(), **columns}
    return dict(columns)


_LOG_CREATIONS = """
INSERT INTO agent_jobs_activity
    (org_id, job_id, code, note, actor, request_id, moved_to, life, processed_at)
SELECT %(org)s, made.job, 'job.created', made.note, %(actor)s, %(request)s, made.status, 0, statement_timestamp()
FROM unnest(%(jobs)s::uuid[], %(notes)s::text[], %(statuses)s::text[]) AS made (job, note, status)
"""


def record_creations(made: Sequence[tuple[Job, str]], *, actor: Actor) -> None:
    """Write the first activity, with its note, of jobs of one organisation that have just been inserted."""
    prepared_sql.run(
        _LOG_CREATIONS,
        {
            "org": made[0][0].org_id,
            "actor": str(actor),
            "request": actor.request_id,
            "jobs": [job.pk for job, _ in made],
            "notes": [note for _, note in made],
            "statuses": [str(job.status) for job, _ in made],
        },
    )


def _read_again(job: Job) -> None:
    """Does the same as `refresh_from_db`, with a prepared statement."""
    now = prepared_sql.instance(Job, "id = %(id)s", {"id": job.pk})
    if now is None:
        raise Job.DoesNotExist(f"job {job.pk} no longer exists")
    for field in Job._meta.concrete_fields:
        setattr(job, field.attname, getattr(now, field.attname))


_IS_DUE = """status = 'SCHEDULED' AND scheduled_at <= statement_timestamp() AND id <> ALL(%(without)s::uuid[])
    AND (%(only)s::uuid IS NULL OR id = %(only)s)"""
_PROMOTE = f"""
WITH due AS (
    SELECT id FROM agent_jobs_job WHERE {_IS_DUE}
    ORDER BY scheduled_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE agent_jobs_job j SET status = 'WAITING', queue_at = j.scheduled_at - {HEAD_START}, waiting_for = '',
        updated_at = now()
    FROM due WHERE j.id = due.id AND j.status = 'SCHEDULED' RETURNING j.id, j.org_id, j.lane, j.retry_count
), logged AS (
    INSERT INTO agent_jobs_activity (org_id, job_id, code, note, actor, moved_from, moved_to, life, processed_at)
    SELECT org_id, id, 'job.promoted', 'WAITING: its time has come', 'system:promotion', 'SCHEDULED', 'WAITING',
        retry_count, now()
    FROM moved
)
SELECT lane, count(*) FROM moved GROUP BY lane
"""


def promote_due(*, batch: int = 500, without: Sequence[UUID] = (), only: UUID | None = None) -> dict[str, int]:
    """Move due SCHEDULED jobs to WAITING. Returns their number per queue (column `lane`). Safe to run concurrently."""
    return dict(raw_sql.all_rows(_PROMOTE, {"batch": batch, "without": list(without), "only": only}))


def due_to_promote(*, without: Sequence[UUID], batch: int = 500) -> list[UUID]:
    """The jobs that `promote_due` would take, without locking them."""
    statement = f"SELECT id FROM agent_jobs_job WHERE {_IS_DUE} ORDER BY scheduled_at LIMIT %(batch)s"
    return [row[0] for row in raw_sql.all_rows(statement, {"batch": batch, "without": list(without), "only": None})]
