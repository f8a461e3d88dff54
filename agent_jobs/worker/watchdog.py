"""Keeps a worker process fit: threads cannot be stopped, so a process with a turn that will not end is replaced.

* A turn that still computes after its job's deadline, or that takes longer than any turn may (`TURN_SECONDS`), makes
  the process leave: it stops as after a TERM, only sooner where no other turn is under way, and the supervisor starts a
  fresh one. What the turn worked on has failed by its deadline, or counts as the job of a dead worker.
* A turn that holds the interpreter itself (a runaway expression in C) stops every thread, also this one. The C library
  then ends the process after the time of a lease: by then others may take its jobs, and it could write nothing anyway.
* Memory is bounded, where the operator says so, by the kernel: the turn that asks for too much fails, and nobody else.
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

from agent_jobs.worker.leases import Keeper
from infra import threads

log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
# A turn that ends just after its time has harmed nobody.
_GRACE_SECONDS = 2.0
# Of computing after the deadline; a turn that only waits for a model takes none.
_COMPUTING_SECONDS = 0.5
# A leaving process lets the deliveries that it has in its hands end.
_DELIVERY_SECONDS = 5.0


@dataclass(slots=True)
class _Turn:
    job_id: UUID
    thread: int
    deadline: float
    limit: float
    computed_before: float | None = None  # seconds of its thread, when the deadline was first seen to be over

    def will_not_end(self, now: float) -> bool:
        if now > self.limit + _GRACE_SECONDS:
            return True
        if now <= self.deadline:
            return False
        computed = _seconds_computed(self.thread)
        if self.computed_before is None:
            self.computed_before = computed
        return now > self.deadline + _GRACE_SECONDS and computed - self.computed_before > _COMPUTING_SECONDS


class Guard:
    """One a worker process. `leave` ends the process, and is only ever called once."""

    def __init__(self, keeper: Keeper, *, leave: Callable[[], None] | None = None) -> None:
        self._keeper = keeper
        self._leave = leave or self._end_process
        self._turns: dict[int, _Turn] = {}
        self._has_left = False

    def start(self) -> None:
        """From now on, before there is work: a turn of the first second may be the one that holds the interpreter."""
        self._put_off()
        threads.start_vital("guard", self._watch)

    @contextlib.contextmanager
    def turn(self, job_id: UUID, *, seconds_left: float) -> Iterator[None]:
        """Around a turn of this thread, whose job has `seconds_left` until its deadline."""
        now, thread = time.monotonic(), threading.get_ident()
        self._turns[thread] = _Turn(job_id, thread, now + seconds_left, now + settings.TURN_SECONDS)
        try:
            yield
        finally:
            del self._turns[thread]

    def look(self) -> None:
        """Leave if there is a turn that will not end."""
        now = time.monotonic()
        stuck = {turn.job_id for turn in list(self._turns.values()) if turn.will_not_end(now)}
        for job_id in stuck:
            # Not to be given back as if a stop had interrupted it: its lease lapses, and that counts.
            self._keeper.let_go(job_id)
        if stuck and not self._has_left:
            self._has_left = True
            jobs = ", ".join(sorted(map(str, stuck)))
            log.error("the turn of job %s does not end: this process does, when its other work is done", jobs)
            self._leave()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_SECONDS):
            self._put_off()
            self.look()

    @staticmethod
    def _put_off() -> None:
        """The end of the process: again and again, for as long as the guard's thread gets the interpreter."""
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
    """What the operator says, of memory; processes that are started or forked later have the same."""
    if settings.WORKER_MAX_MEMORY_MB:
        limit_memory(settings.WORKER_MAX_MEMORY_MB)


def limit_memory(megabytes: int) -> None:
    """Of this process, and of those that it starts, each for itself: an allocation beyond is a MemoryError.

    RLIMIT_DATA counts what is writable and private. RLIMIT_AS would count address space that the C library only
    reserves, 64 MB for each of many threads.
    """
    size = megabytes * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _seconds_computed(thread: int) -> float:
    """Of a thread's own; where the platform does not tell, every thread counts as one that computes."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic()
    return time.clock_gettime(time.pthread_getcpuclockid(thread))
