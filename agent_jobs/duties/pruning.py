"""Deletes ended jobs with their rows, and other old rows, after the retention time of their organisation.

The retention time is the organisation's `retention_days`, else RETENTION_DAYS. It runs from a job's end, by the
database's clock. Jobs that have not ended stay, however old, with the messages of their thread; the audit log always
stays.

A prune may take all night, but must not slow down other work. It deletes in transactions of some hundred rows, with
pauses. It locks only ended rows, with SKIP LOCKED, so it blocks no claim and no POST. It follows the order of indexes
that other queries need anyway.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from axes.models import AccessAttempt, AccessLog
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.db.models.functions import Now

from agent_jobs import duty_rounds
from agent_jobs.budgets.limits import ALL_DAYS
from agent_jobs.lifecycle import queues
from agent_jobs.models import Executor, Job, WorkerProcess
from agent_jobs.models.budgets import Scope
from agent_jobs.states import TERMINAL
from channels_integration import retention as channels
from infra import raw_sql
from infra.quarantine import Quarantine

Step = tuple[str, int]
# The rows that belong to jobs; `{ended}` selects those.
_OF_JOBS = {
    "jobs": "agent_jobs_job WHERE id IN (SELECT id {ended})",
    "tasks": "agent_jobs_task WHERE job_id IN (SELECT id {ended})",
    "messages": "agent_jobs_message WHERE job_id IN (SELECT id {ended})",
    "activities": "agent_jobs_activity WHERE job_id IN (SELECT id {ended})",
    "steps": "agent_jobs_step WHERE job_id IN (SELECT id {ended})",
    "approvals": "agent_jobs_approval WHERE job_id IN (SELECT id {ended})",
    "budgets": "agent_jobs_budget WHERE org_id = %(org_id)s"
    f" AND scope = {Scope.JOB.value} AND key IN (SELECT id::text {{ended}})",
}
KINDS = (
    *_OF_JOBS,
    "usage_days",
    "reservations",
    "webhook_deliveries",
    "announcements",
    "firings",
    *channels.KINDS,
    "idempotency_keys",
    "workers",
    "executors",
    "sessions",
    "logins",
)
BATCH = 500
_SLICE_SECONDS = 10.0
# Pause after each batch, as a multiple of the time that the batch took.
_REST = 1.0
# Longer than for other duties, because the duty pauses between batches; on a slow database the pauses are long.
_SILENT_SECONDS = 60.0
_DEAD_WORKER_DAYS = 7
_LOST_EXECUTOR_DAYS = 7
# Days to keep failed logins, which count for a quarter of an hour, and successful logins.
_LOGINS: dict[type[Any], int] = {AccessAttempt: 1, AccessLog: 90}
_CHANCE = random.SystemRandom()
_failed: Quarantine[str] = Quarantine("prune")
_EVER = datetime.min.replace(tzinfo=UTC)

_WAS_DONE = (
    "SELECT EXISTS (SELECT FROM agent_jobs_dutyrun WHERE duty = 'prune' AND done_at > now() - interval '1 hour')"
)
_CUTOFFS = "SELECT id, now() - make_interval(days => coalesce(%s, retention_days, %s)) FROM agent_jobs_org"
# One status at a time, so that the index on (org, status, created_at) returns the oldest first. A job cannot end before
# its creation, so `created_at` bounds the scan; `floor` skips the index entries of rows that were just deleted.
_ENDED = """
    FROM agent_jobs_job
    WHERE org_id = %(org_id)s AND status = %(status)s AND finished_at < %(before)s
        AND created_at >= %(floor)s AND created_at < %(before)s
"""
_DELETIONS = [
    f"{kind} AS (DELETE FROM {rows.format(ended='FROM ended')} RETURNING 1)" for kind, rows in _OF_JOBS.items()
]
_DELETE_JOBS = f"""
WITH ended AS MATERIALIZED (
    SELECT id, created_at {_ENDED} ORDER BY created_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), {", ".join(_DELETIONS)}
SELECT {", ".join(f"(SELECT count(*) FROM {kind})" for kind in _OF_JOBS)}, (SELECT max(created_at) FROM ended)
"""
# Activities of the organisation itself, without a job.
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
# Events of outgoing webhooks go with their deliveries: they quote jobs, so they are not kept longer than those.
WEBHOOK_DAYS = 30
_OLD_ANNOUNCEMENTS = f"""
    FROM agent_jobs_announcement
    WHERE org_id = %(org_id)s AND created_at < greatest(%(before)s, now() - interval '{WEBHOOK_DAYS} days')
"""
_DELETE_ANNOUNCEMENTS = f"""
WITH old AS MATERIALIZED (
    SELECT id {_OLD_ANNOUNCEMENTS} ORDER BY created_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), deliveries AS (
    DELETE FROM agent_jobs_webhookdelivery WHERE announcement_id IN (SELECT id FROM old) RETURNING 1
), gone AS (
    DELETE FROM agent_jobs_announcement WHERE id IN (SELECT id FROM old) RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM deliveries), NULL
"""
# Reservations go a day after they were closed. Daily counters go after seven days: the calls of their day have ended or
# were given up by then.
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
_OLD_FIRINGS = """
    FROM agent_jobs_schedulefiring WHERE org_id = %(org_id)s AND created_at < %(before)s AND outcome <> 'queued'
"""
_DELETE_FIRINGS = f"DELETE FROM agent_jobs_schedulefiring WHERE id IN (SELECT id {_OLD_FIRINGS} LIMIT {BATCH})"
# For `count`: the rows of an organisation that belong to no job.
_OF_ORG = {
    "activities": _ORG_ACTIVITIES,
    "usage_days": _OLD_USAGE,
    "firings": _OLD_FIRINGS,
    "announcements": _OLD_ANNOUNCEMENTS,
    "webhook_deliveries": f"FROM agent_jobs_webhookdelivery WHERE announcement_id IN (SELECT id {_OLD_ANNOUNCEMENTS})",
}


def serve_slice(*, seconds: float = _SLICE_SECONDS, stop: threading.Event | None = None) -> int:
    """The duty: prune for `seconds`, and ring again if work is left. Returns the number of deleted rows.

    Returns 0 at once if everything was pruned within the last hour, or if another process is doing it
    (`duty_rounds.alone`). Beat rings every minute, because a beat that restarts every half hour would never come to an
    hourly ring.
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
    return bool(raw_sql.value(_WAS_DONE))


def prune(
    *,
    org_id: str | None = None,
    older_than_days: int | None = None,
    seconds: float | None = None,
    rest: float = 0.0,
    stop: threading.Event | None = None,
    rng: random.Random = _CHANCE,
) -> tuple[Counter[str], bool]:
    """Delete old rows. Returns their number per kind, and whether nothing was left. Safe to run concurrently.

    `older_than_days` replaces the organisations' own retention. After each batch, pauses for `rest` times its duration.
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
    """The number of rows that `prune` would delete, by kind."""
    cutoffs = cutoffs_of(org_id, older_than_days)
    found: Counter[str] = Counter()
    for one_id, before in cutoffs.items():
        floor: dict[str, str | datetime] = {"org_id": one_id, "before": before, "floor": _EVER}
        for status in TERMINAL:
            for kind, rows in _OF_JOBS.items():
                statement = f"SELECT count(*) FROM {rows.format(ended=_ENDED)}"
                found[kind] += raw_sql.value(statement, {**floor, "status": status})
        for kind, rows in _OF_ORG.items():
            found[kind] += raw_sql.value(f"SELECT count(*) {rows}", floor)
    for kind, number in channels.counts(cutoffs, kept=lambda owners: _kept(owners, cutoffs)):
        found[kind] += number
    if org_id is None:
        found["idempotency_keys"] = raw_sql.value(f"SELECT count(*) {_OLD_KEYS}", [settings.IDEMPOTENCY_KEY_HOURS])
        found["reservations"] = raw_sql.value(f"SELECT count(*) {_OLD_RESERVATIONS}")
        found["budgets"] += raw_sql.value(f"SELECT count(*) {_OLD_BUDGETS}")
        for kind, old in _old_rows():
            found[kind] += old.count()
    return found


def cutoffs_of(org_id: str | None = None, older_than_days: int | None = None) -> dict[str, datetime]:
    """For each organisation, the moment before which ended jobs are too old."""
    where, whose = ("", []) if org_id is None else (" WHERE id = %s", [org_id])
    return dict(raw_sql.all_rows(_CUTOFFS + where, [older_than_days, settings.RETENTION_DAYS, *whose]))


def _steps(cutoffs: dict[str, datetime], *, is_everybody: bool, rng: random.Random) -> Iterator[Step]:
    if is_everybody:
        # First, because these tables grow fastest; the next run continues where this one stops.
        with _failed.row("everybody's"):
            yield from _until_short("idempotency_keys", _DELETE_KEYS, [settings.IDEMPOTENCY_KEY_HOURS])
            yield from _until_short("reservations", _DELETE_RESERVATIONS, [])
            yield from _until_short("budgets", _DELETE_BUDGETS, [])
            for kind, old in _old_rows():
                yield kind, old.delete()[0]
    org_ids = list(cutoffs)
    rng.shuffle(org_ids)  # so that short runs do not always skip the same organisations
    for org_id in org_ids:
        with _failed.row(org_id):
            whose: dict[str, str | datetime] = {"org_id": org_id, "before": cutoffs[org_id]}
            for status in sorted(TERMINAL):
                yield from _rounds(_OF_JOBS, _DELETE_JOBS, {**whose, "status": status, "floor": _EVER})
            yield from _rounds(("activities",), _DELETE_ORG_ACTIVITIES, {**whose, "floor": _EVER})
            yield from _until_short("usage_days", _DELETE_USAGE, whose)
            yield from _rounds(("announcements", "webhook_deliveries"), _DELETE_ANNOUNCEMENTS, {**whose})
            yield from _until_short("firings", _DELETE_FIRINGS, whose)
    yield from channels.steps(cutoffs, kept=lambda owners: _kept(owners, cutoffs))


def _rounds(kinds: Iterable[str], statement: str, parameters: dict[str, str | datetime]) -> Iterator[Step]:
    """Delete until a round is short. The statement returns the numbers by kind, and the `floor` of the next round."""
    while True:
        *gone, parameters["floor"] = raw_sql.first(statement, parameters)
        yield from zip(kinds, gone, strict=True)
        if gone[0] < BATCH:
            return


def _until_short(kind: str, statement: str, parameters: Sequence[int] | Mapping[str, str | datetime]) -> Iterator[Step]:
    while True:
        gone = raw_sql.run(statement, parameters)
        yield kind, gone
        if gone < BATCH:
            return


def _old_rows() -> "Iterator[tuple[str, QuerySet[Any]]]":
    yield "workers", WorkerProcess.objects.filter(seen_at__lt=Now() - timedelta(days=_DEAD_WORKER_DAYS))
    yield "executors", Executor.objects.filter(last_seen_at__lt=Now() - timedelta(days=_LOST_EXECUTOR_DAYS))
    yield "sessions", Session.objects.filter(expire_date__lt=Now())
    for model, days in _LOGINS.items():
        yield "logins", model.objects.filter(attempt_time__lt=Now() - timedelta(days=days))


def _kept(owners: Collection[str], cutoffs: dict[str, datetime]) -> set[str]:
    """The owners that are jobs not to be deleted yet: alive, or ended after the cutoff of their organisation."""
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
