"""Polls for work once a second while no doorbells arrive.

Doorbells come from beat through Redis. Without Redis or beat, rows would wait for the whole outage, although a worker
needs neither to find them. So each process asks the database every second when any worker last answered a doorbell.
While that is longer ago than `_QUIET`, it serves duties and queues by polling. The next doorbell ends this. All work
may run in any number of processes at once, so there is no leader election.

A process polls from its start, but logs missing doorbells only later: beat starts with it and needs a while for its
first doorbell. Polling meanwhile does no harm.

Polling is the fallback: doorbells are faster (milliseconds). Polled work does not count as consumed messages, so
`/health/ready` still reports that doorbells are missing.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from django.db import connection
from django.db.models.functions import Now

from agent_jobs.models import DutyRun
from infra import database, threads

log = logging.getLogger(__name__)
_TICK_SECONDS = 1.0
_QUIET = timedelta(seconds=2.5)
FIRST_BELL_SECONDS = 15.0  # beat's start, on a busy machine with the whole service starting beside it


class Poller:
    """The poller of a worker process. `work` holds the functions that doorbells would call; each runs in a thread of
    its own.

    Functions with a `ConcurrencyLimit` return at once when it is reached. `stopping` ends the polling. Logs missing
    doorbells after `first_bell_seconds` from the start, and later as soon as they stop.
    """

    def __init__(
        self,
        work: Sequence[Callable[[], object]],
        *,
        stopping: threading.Event,
        first_bell_seconds: float = FIRST_BELL_SECONDS,
    ) -> None:
        self._work = work
        self._stopping = stopping
        self._first_bell_seconds = first_bell_seconds
        self._expects_bells_from = time.monotonic() + first_bell_seconds
        self._has_complained = False
        self._threads: list[threading.Thread] = []
        self._thread = threads.vital("polling", self._watch)

    def start(self) -> None:
        self._expects_bells_from = time.monotonic() + self._first_bell_seconds
        self._thread.start()

    def close(self) -> None:
        """Stop polling and wait for the threads that it started."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for thread in self._threads:  # only after the join, because the watch thread may have started some until then
            thread.join()

    def tick(self) -> int:
        """Poll once. Returns how many threads it started."""
        is_quiet = not DutyRun.objects.filter(duty=DutyRun.BELL, done_at__gt=Now() - _QUIET).exists()
        self._tell(is_quiet=is_quiet)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if not is_quiet:
            return 0
        started = [threading.Thread(target=self._serve, args=(work,), daemon=True) for work in self._work]
        for thread in started:
            thread.start()
        self._threads += started
        return len(started)

    def _tell(self, *, is_quiet: bool) -> None:
        """Log a change once."""
        if is_quiet == self._has_complained or time.monotonic() < self._expects_bells_from:
            return
        self._has_complained = is_quiet
        log.warning(
            "no Celery messages arrive: polling the database every second"
            if is_quiet
            else "Celery messages arrive again: polling stops"
        )

    def _watch(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            with database.outage_survived(log, "polling"):
                self.tick()
        connection.close()

    def _serve(self, work: Callable[[], object]) -> None:
        try:
            with database.outage_survived(log, "polling"):
                work()
        except Exception:  # as Celery does for a failed entry; the next tick tries again
            log.exception("polling: %s failed", _name(work))
        finally:
            connection.close()


def _name(work: Callable[[], object]) -> str:
    """A function's name, with the arguments of a partial: `serve agents`."""
    if isinstance(work, partial):
        return " ".join((getattr(work.func, "__name__", ""), *map(str, work.args)))
    return getattr(work, "__name__", type(work).__name__)
