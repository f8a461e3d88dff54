"""Runs the periodic duties that a doorbell calls: one thread per doorbell and process, at most every half second.

`duty_table.DUTIES` lists them. A doorbell may call several duties. If one raises, the error is logged and counted, and
the others still run. After an hour without workers some thousand doorbells wait; the interval turns all but the first
few into no-ops.

Some duties are done by one process at a time (`alone`). This saves work; safety does not need it. The lock belongs to a
session and ends with it. A frozen process keeps its session, so another one that finds the duty neither done nor in
progress terminates that session.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection

from agent_jobs.models import DutyRun, WorkerProcess
from infra import database, meters, raw_sql
from infra.concurrency import ConcurrencyLimit

log = logging.getLogger(__name__)
_SHORTEST_INTERVAL = 0.5
_TRY_AGAIN = 0.02
_SHORTEST_WAIT = 0.01
LONGEST_WAIT = 0.1
_HANDOVER_SECONDS = 0.5
# Advisory lock numbers by duty; worker processes use the positive numbers. `audit` locks within its transaction.
LOCKS = {"promote": -1, "audit": -2, "prune": -3, "erase": -4, "measure": -5, "fire": -6, "tally": -7}
# Idle time after which a session counts as frozen. A duty pauses for less than a second between two statements.
_SILENT_SECONDS = 5.0
_END_SILENT = f"""
SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = %(space)s AND l.objid = %(lock)s::oid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND a.state <> 'active' AND a.state_change < clock_timestamp() - make_interval(secs => %(seconds)s)
    AND NOT EXISTS (
        SELECT FROM {DutyRun._meta.db_table}
        WHERE duty = %(duty)s AND done_at > clock_timestamp() - make_interval(secs => %(seconds)s))
"""  # noqa: S608
# Set when the worker process stops: long duties then end early.
STOPPING = threading.Event()
_limits: dict[str, ConcurrencyLimit] = {}
_begun_at: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Duty:
    """Periodic work. `bell` names the doorbell that calls it, every `every` seconds.

    `notes_itself`: the work itself records when it was done, because a call does nothing if another process is doing
    it. `is_polled`: workers also do it by polling while no doorbells arrive.
    """

    name: str
    work: Callable[[], int]
    bell: str
    every: float = 1.0
    notes_itself: bool = False
    is_polled: bool = True


def serve(bell: str, duties: Sequence[Duty], *, is_rung: bool = False) -> int:
    """Run each of `duties` unless this process did so less than half a second ago. Returns the sum of their results.

    `is_rung`: a doorbell arrived, which is recorded for `worker.polling`. An outage of the database ends the round.
    """

    def once() -> int:
        now = time.monotonic()
        if now - _begun_at.get(bell, float("-inf")) < _SHORTEST_INTERVAL:
            return 0
        _begun_at[bell] = now
        with database.outage_survived(log, f"doorbell {bell}"):
            if is_rung:
                note_done(DutyRun.BELL)
            return each(duties)
        return 0

    return _limits.setdefault(bell, ConcurrencyLimit(1)).answer(once)


def each(duties: Sequence[Duty]) -> int:
    """Run these duties one after the other; a failure does not stop the rest. Raises only if the database is
    unavailable.
    """
    total, done = 0, []
    for duty in duties:
        try:
            total += duty.work()
        except Exception as error:  # one duty must not hide the others
            if database.is_outage(error):
                raise
            meters.add("duty_failures", duty=duty.name)
            log.exception("duty %s failed", duty.name)
        else:
            if not duty.notes_itself:
                done.append(duty.name)
    if done:
        note_done(*done)
    return total


@contextmanager
def alone(duty: str, *, patience_seconds: float = 0.0, silent_seconds: float = _SILENT_SECONDS) -> Iterator[bool]:
    """Hold the lock of `duty` for the block. Yields whether this process got it.

    Yields False if another process still holds it after `patience_seconds`. If that one has sent nothing to the
    database for `silent_seconds`, terminates its session, so that the next doorbell finds the lock free.
    """
    lock = (WorkerProcess.LOCK_SPACE, LOCKS[duty])
    if not _is_locked(lock, patience_seconds):
        whose: dict[str, Any] = {"space": lock[0], "lock": lock[1] % 2**32, "duty": duty}
        if raw_sql.value(_END_SILENT, {**whose, "seconds": silent_seconds}):
            log.warning("duty %s: holder idle for %g s, terminated its database session", duty, silent_seconds)
        yield False
        return
    try:
        yield True
    finally:
        if connection.connection is not None and not connection.connection.closed:
            raw_sql.run("SELECT pg_advisory_unlock(%s, %s)", lock)


def _is_locked(lock: tuple[int, int], patience_seconds: float) -> bool:
    until = time.monotonic() + patience_seconds
    while not raw_sql.value("SELECT pg_try_advisory_lock(%s, %s)", lock):
        if time.monotonic() > until:
            return False
        threading.Event().wait(_TRY_AGAIN)
    return True


def serve_second(
    duty: str, work: Callable[[], int], seconds_to_next_due: Callable[[], float], *, seconds: float = 1.0
) -> int:
    """Do `work` at the moment it falls due, for `seconds`. Returns the sum of its results; 0 if another process serves.

    Beat rings once a second; one pass per second would be half a second late on average. So this sleeps until the next
    due time, and looks again at least every LONGEST_WAIT, because something that is due sooner may be stored meanwhile.
    One process at a time serves. This saves work; safety does not need it.

    The next doorbell arrives while the last call ends, perhaps in another process. That process waits for the lock, at
    most _HANDOVER_SECONDS; otherwise no process would serve that second. The second counts from the doorbell, not from
    the lock: else each call would end a little later after its doorbell than the last one, until a doorbell gives up.
    """
    until = time.monotonic() + seconds
    with alone(duty, patience_seconds=_HANDOVER_SECONDS) as is_alone:
        return _serve(duty, work, seconds_to_next_due, until) if is_alone else 0


def _serve(duty: str, work: Callable[[], int], seconds_to_next_due: Callable[[], float], until: float) -> int:
    total = 0
    while True:
        wait = seconds_to_next_due()
        if wait <= 0:
            total += work()
            wait = _SHORTEST_WAIT
        left = until - time.monotonic()
        if left <= 0:
            break
        threading.Event().wait(min(max(wait, _SHORTEST_WAIT), LONGEST_WAIT, left))
    note_done(duty)
    return total


def note_done(*duties: str) -> None:
    """Record that the duties were done now, for `/health/ready`, the metrics and `worker.polling`."""
    # Sorted, so that two processes cannot deadlock.
    raw_sql.run(
        f"INSERT INTO {DutyRun._meta.db_table} (duty) SELECT unnest(%s::text[]) ORDER BY 1"
        " ON CONFLICT (duty) DO UPDATE SET done_at = now()",
        [list(duties)],
    )
