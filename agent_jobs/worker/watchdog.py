"""Replaces a worker process that has a turn that will not end, because Python cannot stop a thread. Limits memory.

* The process exits if a turn still computes after its job's deadline, or takes longer than `TURN_SECONDS`. It stops as
  after a SIGTERM, but without the whole grace if no other turn is running; the supervisor starts a new process. The
  turn's job has failed by its deadline, or counts as the job of a dead worker.
* A turn that holds the interpreter itself (a runaway expression in C) blocks every thread, including this one. Then
  `faulthandler` exits the process after LEASE_SECONDS. By then other workers may take its jobs, and it could not write
  anyway.
* If the operator sets a memory limit, the kernel enforces it: only the turn that asks for too much fails.
"""

import contextlib
import faulthandler
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from agent_jobs.worker.lease_keeper import Keeper
from infra import threads

log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
# A turn may end this late without harm.
_GRACE_SECONDS = 2.0
# CPU time after the deadline that marks a turn as stuck; a turn that only waits for a model uses none.
_COMPUTING_SECONDS = 0.5
# Time for running deliveries to finish before the process exits.
_DELIVERY_SECONDS = 5.0


@dataclass(slots=True)
class _WatchedTurn:
    job_id: UUID
    thread: int
    deadline: float
    limit: float
    computed_before: float | None = None  # CPU seconds of its thread at the first look after the deadline

    def will_not_end(self, now: float) -> bool:
        if now > self.limit + _GRACE_SECONDS:
            return True
        if now <= self.deadline:
            return False
        computed = _seconds_computed(self.thread)
        if self.computed_before is None:
            self.computed_before = computed
        return now > self.deadline + _GRACE_SECONDS and computed - self.computed_before > _COMPUTING_SECONDS


class Watchdog:
    """The watchdog of a worker process. Calls `leave`, which ends the process, at most once."""

    def __init__(self, keeper: Keeper, *, leave: Callable[[], None] | None = None) -> None:
        self._keeper = keeper
        self._leave = leave or self._end_process
        self._turns: dict[int, _WatchedTurn] = {}
        self._has_left = False

    def start(self) -> None:
        """Start the watchdog's thread. Call it before there is work: even a turn of the first second may hold the
        interpreter.
        """
        self._put_off()
        threads.start_vital("watchdog", self._watch)

    @contextlib.contextmanager
    def turn(self, job_id: UUID, *, seconds_left: float, limit_seconds: float = 0.0) -> Iterator[None]:
        """Watch a turn of this thread for the block. `seconds_left`: time until its job's deadline. `limit_seconds`:
        the longest time that it may take, TURN_SECONDS if that is longer.
        """
        now, thread = time.monotonic(), threading.get_ident()
        self._turns[thread] = _WatchedTurn(
            job_id, thread, now + seconds_left, now + max(limit_seconds, settings.TURN_SECONDS)
        )
        try:
            yield
        finally:
            del self._turns[thread]

    def look(self) -> None:
        """Leave if there is a turn that will not end."""
        now = time.monotonic()
        stuck = {turn.job_id for turn in list(self._turns.values()) if turn.will_not_end(now)}
        for job_id in stuck:
            # Do not give the job back as if a stop had interrupted it: its lease must lapse, which counts as a crash.
            self._keeper.let_go(job_id)
        if stuck and not self._has_left:
            self._has_left = True
            jobs = ", ".join(sorted(map(str, stuck)))
            log.error("the turn of job %s does not end: this process exits when its other work is done", jobs)
            self._leave()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_SECONDS):
            self._put_off()
            self.look()

    @staticmethod
    def _put_off() -> None:
        """Postpone the exit of the process. The watchdog repeats this while its thread gets the interpreter."""
        faulthandler.dump_traceback_later(settings.LEASE_SECONDS, exit=True, file=sys.__stderr__ or 2)

    def _end_process(self) -> None:
        threads.start_vital("leaving", self._end)

    def _end(self) -> None:
        self._keeper.stop_claims()
        os.kill(os.getpid(), signal.SIGTERM)
        pause = threading.Event()
        pause.wait(_DELIVERY_SECONDS)
        # The keeper ends the process when the grace is over, unless it has no database to give leases back in.
        until = time.monotonic() + settings.STOP_GRACE_SECONDS + _DELIVERY_SECONDS
        while self._keeper.held and time.monotonic() < until:
            pause.wait(0.2)
        os._exit(1)


def limit() -> None:
    """Apply the operator's memory limit (WORKER_MAX_MEMORY_MB). Child processes started later inherit it."""
    if settings.WORKER_MAX_MEMORY_MB:
        limit_memory(settings.WORKER_MAX_MEMORY_MB)


def limit_memory(megabytes: int) -> None:
    """Limit this process and each of its children: an allocation beyond the limit raises MemoryError.

    RLIMIT_DATA counts writable private memory. RLIMIT_AS would also count address space that the C library only
    reserves, 64 MB for each of many threads.
    """
    size = megabytes * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _seconds_computed(thread: int) -> float:
    """CPU seconds of a thread. On platforms without this clock, every thread counts as computing."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic()
    return time.clock_gettime(time.pthread_getcpuclockid(thread))
