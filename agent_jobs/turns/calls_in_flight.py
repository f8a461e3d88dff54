"""Calls of models and tools that this process waits for, so that they can be given up from outside the waiting thread.

The lease keeper looks once a second: a job that is no longer ours (canceled, overdue, taken back) has its call given
up, and so has one whose policy is `interrupt` when a person has written. That takes one statement for all of them, and
none where no call is under way.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection

_LOOK = """
SELECT held.id, j.inbox_count FROM unnest(%s::uuid[], %s::bigint[]) AS held(id, token)
LEFT JOIN agent_jobs_job j
    ON j.id = held.id AND j.lease_token = held.token AND j.status = 'RUNNING' AND j.lease_until IS NOT NULL
"""


@dataclass(slots=True)
class Call:
    """`heard`: how many messages of people it takes into account; None where a new one is to wait."""

    token: int
    heard: int | None
    give_up: Callable[[], object]
    is_lost: bool = False
    is_interrupted: bool = False


class InFlight:
    def __init__(self) -> None:
        self._calls: dict[UUID, Call] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, job_id: UUID, token: int, *, heard: int | None = None) -> Iterator[Call]:
        """Around a call. Its `give_up` is set as soon as the call has begun."""
        call = Call(token, heard, give_up=lambda: None)
        with self._lock:
            self._calls[job_id] = call
        try:
            yield call
        finally:
            with self._lock:
                self._calls.pop(job_id, None)

    def look(self) -> int:
        """Give up what nobody needs any more. Returns how many calls that were. Raises what the database raises."""
        with self._lock:
            calls = dict(self._calls)
        if not calls:
            return 0
        with connection.cursor() as cursor:
            cursor.execute(_LOOK, [list(calls), [call.token for call in calls.values()]])
            found: dict[UUID, int | None] = dict(cursor.fetchall())
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
    """This thread's connection to the pool (AGENT_JOBS_DATABASE_POOL). Without one each thread keeps its own."""
    if "pool" in settings.DATABASES["default"].get("OPTIONS", {}):
        connection.close()
