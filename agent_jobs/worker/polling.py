"""What a worker process does while no bell is heard: it looks by itself, once a second.

Bells come from beat through Redis. With Redis away, or every beat dead, rows would wait for as long as that lasts; but
a worker needs neither to find them. So each process asks the database, every second, when a bell was last answered by
any of them, and while that is longer ago than `_QUIET`, serves duties and lanes by its own clock. The first bell that
is heard again ends it. Every piece of work may run in any number of processes at once, so no one has to be elected.

At its start a process looks at once, but says nothing of what it does not hear: beat, started with it, needs a while
for its first bell, and a worker that began on its own meanwhile did no harm.

It is the second string: bells are sooner (milliseconds), and this is not counted as the work of a consumer, so that
`/health/ready` still tells that nobody rings.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db import connection
from django.db.models.functions import Now

from agent_jobs.models import DutyRun
from infra import database, threads

log = logging.getLogger(__name__)
_TICK_SECONDS = 1.0
_QUIET = timedelta(seconds=2.5)
FIRST_BELL_SECONDS = 15.0  # beat's start, on a busy machine with the whole service starting beside it


class Standby:
    """One a worker process. `work` is what bells would have called, each entry in a thread of its own; entries that
    bound how many of them run at once (gates) return at once when they are full. `stopping` ends it. Who hears no bell
    for `first_bell_seconds` from the start says so in the log, and later as soon as they fail to come."""

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
        self._thread = threads.vital("standby", self._watch)

    def start(self) -> None:
        self._expects_bells_from = time.monotonic() + self._first_bell_seconds
        self._thread.start()

    def close(self) -> None:
        """Waits for what it has begun."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for thread in self._threads:  # only now: the watch may have begun some while it was waited for
            thread.join()

    def tick(self) -> int:
        """One look. Returns how many threads it started."""
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
        """Say in the log what has changed, once."""
        if is_quiet == self._has_complained or time.monotonic() < self._expects_bells_from:
            return
        self._has_complained = is_quiet
        log.warning("no bell is heard: working by the own clock" if is_quiet else "bells are heard again")

    def _watch(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            try:
                self.tick()
            except database.Error as error:
                if not database.is_unavailable(error):
                    raise
                log.warning("standby: database unavailable: %s", database.reason(error))
                database.drop_session()
        connection.close()

    def _serve(self, work: Callable[[], object]) -> None:
        try:
            work()
        except database.Error as error:
            if not database.is_unavailable(error):
                log.exception("standby: work failed")
            else:
                log.warning("standby: database unavailable: %s", database.reason(error))
                database.drop_session()
        except Exception:  # as Celery does for what a bell calls: the next tick tries again
            log.exception("standby: work failed")
        finally:
            connection.close()
