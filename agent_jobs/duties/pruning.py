"""Deletes what has ended and is older than its organisation keeps it: jobs with all that hangs on them, and the rest.

An organisation's `retention_days`, else RETENTION_DAYS, counted by the database's clock from a job's end. What has not
ended stays, however old, with the messages of its thread; the audit stays in any case. Everything goes in transactions
of some hundred rows that lock nothing that a claim or a POST wants (rows that have ended, SKIP LOCKED), in the order of
an index that is there for other reasons, and with pauses: a prune may take all night, it may not be felt.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from axes.models import AccessAttempt, AccessLog
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from agent_jobs import duty_rounds
from agent_jobs.budgets.limits import ALL_DAYS
from agent_jobs.lifecycle import queues
from agent_jobs.models import Job, WorkerProcess
from agent_jobs.models.budgets import Scope
from agent_jobs.states import TERMINAL
from channels_integration import retention as channels
from infra.set_aside import SetAside

Step = tuple[str, int]
_OF_JOBS = ("tasks", "messages", "activities", "steps", "approvals", "budgets")
_OF_BUDGETS = ("usage_days", "reservations")
KINDS = ("jobs", *_OF_JOBS, *_OF_BUDGETS, *channels.KINDS, "idempotency_keys", "workers", "sessions", "logins")
BATCH = 500
_SLICE_SECONDS = 10.0
# Of the time that a batch took: the database is left alone for as long again.
_REST = 1.0
# It rests between its batches, on a database that is slow for as long as these took.
_SILENT_SECONDS = 60.0
_DEAD_WORKER_DAYS = 7
# Attempts to log in, which count for a quarter of an hour, and log-ins.
_LOGINS: dict[type[Any], int] = {AccessAttempt: 1, AccessLog: 90}
_CHANCE = random.SystemRandom()
_failed: SetAside[str] = SetAside("prune")
_EVER = datetime.min.replace(tzinfo=UTC)

_WAS_DONE = (
    "SELECT EXISTS (SELECT FROM agent_jobs_dutyrun WHERE duty = 'prune' AND done_at > now() - interval '1 hour')"
)
_CUTOFFS = "SELECT id, now() - make_interval(days => coalesce(%s, retention_days, %s)) FROM agent_jobs_org"
# One status at a time, for then the index on (org, status, created_at) gives the oldest first. A job cannot end before
# it is made, so `created_at` bounds the walk; `floor` spares it the entries of rows that have just been deleted.
_ENDED = """
    FROM agent_jobs_job
    WHERE org_id = %(org_id)s AND status = %(status)s AND finished_at < %(before)s
        AND created_at >= %(floor)s AND created_at < %(before)s
"""
_OF_ENDED_JOBS = f"org_id = %(org_id)s AND scope = {Scope.JOB.value} AND key IN"
_DELETE_JOBS = f"""
WITH ended AS MATERIALIZED (
    SELECT id, created_at {_ENDED} ORDER BY created_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), tasks AS (
    DELETE FROM agent_jobs_task WHERE job_id IN (SELECT id FROM ended) RETURNING 1
), messages AS (
    DELETE FROM agent_jobs_message WHERE job_id IN (SELECT id FROM ended) RETURNING 1
), activities AS (
    DELETE FROM agent_jobs_activity WHERE job_id IN (SELECT id FROM ended) RETURNING 1
), approvals AS (
    DELETE FROM agent_jobs_approval WHERE job_id IN (SELECT id FROM ended) RETURNING 1
), steps AS (
    DELETE FROM agent_jobs_step WHERE job_id IN (SELECT id FROM ended) RETURNING 1
), budgets AS (
    DELETE FROM agent_jobs_budget WHERE {_OF_ENDED_JOBS} (SELECT id::text FROM ended) RETURNING 1
), jobs AS (
    DELETE FROM agent_jobs_job WHERE id IN (SELECT id FROM ended) RETURNING 1
)
SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM tasks), (SELECT count(*) FROM messages),
    (SELECT count(*) FROM activities), (SELECT count(*) FROM steps), (SELECT count(*) FROM approvals),
    (SELECT count(*) FROM budgets), (SELECT max(created_at) FROM ended)
"""
# What an organisation did, not one of its jobs.
_ORG_ACTIVITIES = """
    FROM agent_jobs_activity
    WHERE org_id = %(org_id)s AND job_id IS NULL AND created_at >= %(floor)s AND created_at < %(before)s
"""
_DELETE_ORG_ACTIVITIES = f"""
WITH old AS MATERIALIZED (
    SELECT id, created_at {_ORG_ACTIVITIES} ORDER BY created_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM agent_jobs_activity WHERE id IN (SELECT id FROM old) RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT max(created_at) FROM old)
"""
_OLD_USAGE = "FROM agent_jobs_usageday WHERE org_id = %(org_id)s AND day < (%(before)s AT TIME ZONE 'UTC')::date"
_DELETE_USAGE = f"DELETE FROM agent_jobs_usageday WHERE id IN (SELECT id {_OLD_USAGE} LIMIT {BATCH})"
# A call that is still out after so long has been given up; counters of days are of no use once calls of the day are.
_OLD_RESERVATIONS = "FROM agent_jobs_reservation WHERE status <> 'open' AND closed_at < now() - interval '1 day'"
_DELETE_RESERVATIONS = f"""
DELETE FROM agent_jobs_reservation WHERE id IN (
    SELECT id {_OLD_RESERVATIONS} ORDER BY closed_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
"""
_OLD_BUDGETS = f"""
    FROM agent_jobs_budget
    WHERE scope <> {Scope.JOB.value} AND day < (now() AT TIME ZONE 'UTC')::date - 7 AND day > '{ALL_DAYS}'
"""
_DELETE_BUDGETS = f"""
DELETE FROM agent_jobs_budget WHERE id IN (
    SELECT id {_OLD_BUDGETS} ORDER BY day LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
"""
_OLD_KEYS = "FROM agent_jobs_idempotencykey WHERE created_at < now() - make_interval(hours => %s)"
_DELETE_KEYS = f"""
DELETE FROM agent_jobs_idempotencykey WHERE id IN (
    SELECT id {_OLD_KEYS} ORDER BY created_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
"""


def serve_slice(*, seconds: float = _SLICE_SECONDS, stop: threading.Event | None = None) -> int:
    """The duty: prune for some seconds and, where work is left, ring for the next ones. Returns how many rows went.

    0 at once where everything was pruned within the hour, or another process is at it (`duties.alone`). Beat rings more
    often than that: one that is started anew every half hour forgets the hour.
    """
    with duty_rounds.alone("prune", silent_seconds=_SILENT_SECONDS) as is_alone:
        if not is_alone or _was_done():
            return 0
        gone, is_done = prune(seconds=seconds, rest=_REST, stop=stop)
    if is_done:
        duty_rounds.note_done("prune")
    else:
        queues.ring_duty("prune")
    return sum(gone.values())


def _was_done() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_WAS_DONE)
        return bool(cursor.fetchone()[0])


def prune(
    *,
    org_id: str | None = None,
    older_than_days: int | None = None,
    seconds: float | None = None,
    rest: float = 0.0,
    stop: threading.Event | None = None,
    rng: random.Random = _CHANCE,
) -> tuple[Counter[str], bool]:
    """Delete what is too old, by kind; whether nothing was left. Any number may run at once.

    `older_than_days` in place of the organisations' own policies. After each batch it rests for `rest` times as long.
    """
    cutoffs = cutoffs_of(org_id, older_than_days)
    until = None if seconds is None else time.monotonic() + seconds
    gone: Counter[str] = Counter()
    pause = stop or threading.Event()
    began = time.monotonic()
    for kind, count in _steps(cutoffs, is_everybody=org_id is None, rng=rng):
        gone[kind] += count
        pause.wait(rest * (time.monotonic() - began))
        if pause.is_set() or (until is not None and time.monotonic() > until):
            return gone, False
        began = time.monotonic()
    return gone, True


def count(*, org_id: str | None = None, older_than_days: int | None = None) -> Counter[str]:
    """What `prune` would delete, by kind."""
    cutoffs = cutoffs_of(org_id, older_than_days)
    found: Counter[str] = Counter()
    for one_id, before in cutoffs.items():
        with connection.cursor() as cursor:
            floor: dict[str, str | datetime] = {"org_id": one_id, "before": before, "floor": _EVER}
            for status in TERMINAL:
                cursor.execute(f"SELECT count(*) {_ENDED}", {**floor, "status": status})
                found["jobs"] += cursor.fetchone()[0]
                ended = f"(SELECT id {_ENDED})"
                for kind in ("task", "message", "activity", "step", "approval"):
                    cursor.execute(
                        f"SELECT count(*) FROM agent_jobs_{kind} WHERE job_id IN {ended}",
                        {**floor, "status": status},
                    )
                    found["activities" if kind == "activity" else f"{kind}s"] += cursor.fetchone()[0]
                cursor.execute(
                    f"SELECT count(*) FROM agent_jobs_budget WHERE {_OF_ENDED_JOBS} (SELECT id::text {_ENDED})",
                    {**floor, "status": status},
                )
                found["budgets"] += cursor.fetchone()[0]
            cursor.execute(f"SELECT count(*) {_ORG_ACTIVITIES}", floor)
            found["activities"] += cursor.fetchone()[0]
            cursor.execute(f"SELECT count(*) {_OLD_USAGE}", floor)
            found["usage_days"] += cursor.fetchone()[0]
    for kind, number in channels.counts(cutoffs, kept=lambda owners: _kept(owners, cutoffs)):
        found[kind] += number
    if org_id is None:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) {_OLD_KEYS}", [settings.IDEMPOTENCY_KEY_HOURS])
            found["idempotency_keys"] = cursor.fetchone()[0]
            cursor.execute(f"SELECT count(*) {_OLD_RESERVATIONS}")
            found["reservations"] = cursor.fetchone()[0]
            cursor.execute(f"SELECT count(*) {_OLD_BUDGETS}")
            found["budgets"] += cursor.fetchone()[0]
        found["workers"] = _dead_workers().count()
        found["sessions"] = Session.objects.filter(expire_date__lt=Now()).count()
        for model, days in _LOGINS.items():
            found["logins"] += model.objects.filter(attempt_time__lt=Now() - timedelta(days=days)).count()
    return found


def cutoffs_of(org_id: str | None = None, older_than_days: int | None = None) -> dict[str, datetime]:
    """The moment of each organisation before which what has ended is too old."""
    with connection.cursor() as cursor:
        parameters: list[str | int | None] = [older_than_days, settings.RETENTION_DAYS]
        where = "" if org_id is None else " WHERE id = %s"
        cursor.execute(_CUTOFFS + where, parameters if org_id is None else [*parameters, org_id])
        return dict(cursor.fetchall())


def _steps(cutoffs: dict[str, datetime], *, is_everybody: bool, rng: random.Random) -> Iterator[Step]:
    if is_everybody:
        # First, for they grow fastest; what one run has no time for, the next one has.
        with _failed.row("everybody's"):
            yield from _until_short("idempotency_keys", _DELETE_KEYS, [settings.IDEMPOTENCY_KEY_HOURS])
            yield from _until_short("reservations", _DELETE_RESERVATIONS, [])
            yield from _until_short("budgets", _DELETE_BUDGETS, [])
            yield "workers", _dead_workers().delete()[0]
            yield "sessions", Session.objects.filter(expire_date__lt=Now()).delete()[0]
            for model, days in _LOGINS.items():
                yield "logins", model.objects.filter(attempt_time__lt=Now() - timedelta(days=days)).delete()[0]
    org_ids = list(cutoffs)
    rng.shuffle(org_ids)  # so that a run that is cut short does not always leave the same ones
    for org_id in org_ids:
        with _failed.row(org_id):
            for status in sorted(TERMINAL):
                yield from _jobs_of(org_id, cutoffs[org_id], status)
            yield from _activities_of(org_id, cutoffs[org_id])
            yield from _until_short("usage_days", _DELETE_USAGE, {"org_id": org_id, "before": cutoffs[org_id]})
    yield from channels.steps(cutoffs, kept=lambda owners: _kept(owners, cutoffs))


def _jobs_of(org_id: str, before: datetime, status: str) -> Iterator[Step]:
    parameters: dict[str, str | datetime] = {"org_id": org_id, "before": before, "status": status, "floor": _EVER}
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_DELETE_JOBS, parameters)
            *gone, parameters["floor"] = cursor.fetchone()
        yield from zip(_OF_JOBS, gone[1:], strict=True)
        yield "jobs", gone[0]
        if gone[0] < BATCH:
            return


def _activities_of(org_id: str, before: datetime) -> Iterator[Step]:
    parameters: dict[str, str | datetime] = {"org_id": org_id, "before": before, "floor": _EVER}
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_DELETE_ORG_ACTIVITIES, parameters)
            gone, parameters["floor"] = cursor.fetchone()
        yield "activities", gone
        if gone < BATCH:
            return


def _until_short(kind: str, statement: str, parameters: Sequence[int] | Mapping[str, str | datetime]) -> Iterator[Step]:
    while True:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            gone = cursor.rowcount
        yield kind, gone
        if gone < BATCH:
            return


def _dead_workers() -> "QuerySet[WorkerProcess]":
    return WorkerProcess.objects.filter(seen_at__lt=Now() - timedelta(days=_DEAD_WORKER_DAYS))


def _kept(owners: Collection[str], cutoffs: dict[str, datetime]) -> set[str]:
    """Of these owners of messages, the jobs that stay: their messages do, too."""
    ids = [owner for owner in owners if _is_uuid(owner)]
    if not ids:
        return set()
    rows = Job.objects.filter(pk__in=ids).values_list("id", "org_id", "status", "finished_at")
    return {
        str(job_id)
        for job_id, org_id, status, finished_at in rows
        if status not in TERMINAL or org_id not in cutoffs or (finished_at or _EVER) >= cutoffs[org_id]
    }


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
