"""How a worker process answers the bells of periodic duties: one thread a duty, and not twice in half a second.

After an hour without workers some thousand bells wait; all but the first few are then answered with nothing.

Some duties are done by one process at a time (`alone`): thrift, not safety. The lock is its session's, and ends with
it; but a process that is frozen (stopped by its host, or by a turn that holds the interpreter) keeps its session, for
hours if nobody ends it. So whoever finds the duty neither done nor being done ends the session that is in the way.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper

from agent_jobs.models import DutyRun, WorkerProcess
from channels_integration.gate import Gate
from infra import database

log = logging.getLogger(__name__)
_SHORTEST_INTERVAL = 0.5
_TRY_AGAIN = 0.02
# By duty, in the space in which worker processes have the positive numbers. `audit` locks within its transaction.
LOCKS = {"promote": -1, "audit": -2, "prune": -3}
# Of a session between two statements of a duty, which waits for a fraction of a second at most.
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
_gates: dict[str, Gate] = {}
_begun_at: dict[str, float] = {}


def serve_duty(name: str, duty: Callable[[], int], *, is_rung: bool = False) -> int:
    """Do `duty` unless this process began it less than half a second ago. A database that is away is only logged.

    `is_rung`: a bell was heard, which is noted (`services.standby`).
    """

    def once() -> int:
        now = time.monotonic()
        if now - _begun_at.get(name, float("-inf")) < _SHORTEST_INTERVAL:
            return 0
        _begun_at[name] = now
        try:
            if is_rung:
                note_done(DutyRun.BELL)
            return duty()
        except database.Error as error:
            if not database.is_unavailable(error):
                raise
            log.warning("duty %s: database unavailable: %s", name, database.reason(error))
            database.drop_session()
            return 0

    return _gates.setdefault(name, Gate(1)).answer(once)


@contextmanager
def alone(duty: str, *, patience_seconds: float = 0.0, silent_seconds: float = _SILENT_SECONDS) -> Iterator[bool]:
    """Whether, for the block, this process is the one that does `duty`.

    False where another one is at it, and still is after `patience_seconds`. Where that one has said nothing to the
    database for `silent_seconds`, its session is ended, and the next bell finds the lock free.
    """
    lock = (WorkerProcess.LOCK_SPACE, LOCKS[duty])
    with connection.cursor() as cursor:
        if not _is_locked(cursor, lock, patience_seconds):
            whose: dict[str, Any] = {"space": lock[0], "lock": lock[1] % 2**32, "duty": duty}
            cursor.execute(_END_SILENT, {**whose, "seconds": silent_seconds})
            if cursor.fetchone()[0]:
                log.warning("who was at duty %s said nothing for %g s: that session is ended", duty, silent_seconds)
            yield False
            return
        try:
            yield True
        finally:
            if connection.connection is not None and not connection.connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


def _is_locked(cursor: CursorWrapper, lock: tuple[int, int], patience_seconds: float) -> bool:
    until = time.monotonic() + patience_seconds
    while True:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", lock)
        if cursor.fetchone()[0]:
            return True
        if time.monotonic() > until:
            return False
        threading.Event().wait(_TRY_AGAIN)


def note_done(duty: str) -> None:
    """When it was done last: what `/health/ready`, the metrics and the standby go by."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {DutyRun._meta.db_table} (duty) VALUES (%s) ON CONFLICT (duty) DO UPDATE SET done_at = now()",  # noqa: S608
            [duty],
        )
