"""Registers the model and tool calls that this process waits for, so that another thread can abort them.

The lease keeper checks once a second. It aborts the call of a job that this process no longer holds (canceled, overdue,
taken back). It also aborts the call of a job with the policy `interrupt` when a person has written. One statement
checks all calls; without calls there is none.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection

from infra import raw_sql

_LOOK = """
SELECT held.id, j.inbox_count FROM unnest(%s::uuid[], %s::bigint[]) AS held(id, token)
LEFT JOIN agent_jobs_job j
    ON j.id = held.id AND j.lease_token = held.token AND j.status = 'RUNNING' AND j.lease_until IS NOT NULL
"""


@dataclass(slots=True)
class CallInFlight:
    """A call that a turn waits for. `token` is the turn's fencing token. `give_up` aborts it because the lease is
    lost (`is_lost`) or a message came (`is_interrupted`).

    `heard`: the number of human messages that the turn has seen; None disables interruption.
    """

    token: int
    heard: int | None
    give_up: Callable[[], object] = lambda: None
    is_lost: bool = False
    is_interrupted: bool = False

    def begun(self, give_up: Callable[[], object]) -> None:
        """Take the function that aborts the call, and abort the call if that is wanted already."""
        self.give_up = give_up
        if self.is_lost or self.is_interrupted:
            give_up()


class InFlight:
    def __init__(self) -> None:
        self._calls: dict[UUID, CallInFlight] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, job_id: UUID, token: int, *, heard: int | None = None) -> Iterator[CallInFlight]:
        """Register a call for the block. The caller tells it when it has `begun`."""
        call = CallInFlight(token, heard)
        with self._lock:
            self._calls[job_id] = call
        try:
            yield call
        finally:
            with self._lock:
                self._calls.pop(job_id, None)

    def look(self) -> int:
        """Abort lost and interrupted calls. Returns how many. Raises database errors."""
        with self._lock:
            calls = dict(self._calls)
        if not calls:
            return 0
        found: dict[UUID, int | None] = dict(
            raw_sql.all_rows(_LOOK, [list(calls), [call.token for call in calls.values()]])
        )
        given_up = 0
        for job_id, call in calls.items():
            inbox_count = found.get(job_id)
            call.is_lost = inbox_count is None
            call.is_interrupted = inbox_count is not None and call.heard is not None and inbox_count > call.heard
            if call.is_lost or call.is_interrupted:
                call.give_up()
                given_up += 1
        return given_up


CALLS = InFlight()


def give_back() -> None:
    """Return this thread's connection to the pool (AGENT_JOBS_DATABASE_POOL). Without a pool, each thread keeps one."""
    if "pool" in settings.DATABASES["default"].get("OPTIONS", {}):
        connection.close()
