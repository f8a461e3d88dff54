"""When a process begins the next turn of an agent: one after the other, and after those that have come back.

What a turn does before it waits for its model, or for anybody outside, is a short piece of work, and so is what it does
when that is back: reading, a few round trips, Python. Twenty such pieces at once take as long as all of them, each; one
after the other, each is quick. What has come back never waits here, so it is the beginnings that make room: a turn is
begun when nobody else is at such a piece. Who waits for that has not claimed yet, so another process may take the job
meanwhile. Sixty-four turns that began within half a second come back within half a second, and then find the process
at their own work, not at the beginning of the next sixty-four.

Nobody is waited for who takes longer than a twentieth of a second: over a slow line to the database, or on a machine at
its limit, turns are begun beside each other, twenty a second. (With a fiftieth, or two at once, the first turns of a
burst were slower; with one at once, workers that are stopped most of the time, as in E2, begin jobs later.) And nobody
makes room for longer than a second for those that come back. A turn that asks nobody outside has the place while it is
claimed, and no longer.
"""

import threading
import time

SLOW_SECONDS = 0.05
_PATIENCE_SECONDS = 1.0


class Pace:
    """A thread has the place from before its claim until it waits for somebody outside, or its turn is over."""

    def __init__(self, slow_seconds: float = SLOW_SECONDS) -> None:
        self._slow_seconds = slow_seconds
        self._begun: dict[int, float] = {}
        self._back: dict[int, float] = {}
        self._changed = threading.Condition()

    def enter(self, *, waits: bool) -> bool:
        """Take the place. False if it is not free, where this thread does not wait for it."""
        me, asked_at = threading.get_ident(), time.monotonic()
        with self._changed:
            while me not in self._begun:
                seconds = self._seconds_to_wait(me, asked_at)
                if seconds <= 0:
                    self._begun[me] = time.monotonic()
                    self._back.pop(me, None)
                elif waits:
                    self._make_room(me)
                    self._changed.wait(seconds)
                else:
                    return False
        return True

    def come_back(self) -> None:
        """This thread goes on with its turn. It waits for nobody, and whoever is to begin one waits for it."""
        with self._changed:
            self._back[threading.get_ident()] = time.monotonic()

    def leave(self) -> None:
        """Make room for the next one. Without a place this does nothing, so it may be said twice."""
        with self._changed:
            self._make_room(threading.get_ident())

    def _make_room(self, thread: int) -> None:
        if (self._begun.pop(thread, None), self._back.pop(thread, None)) != (None, None):
            self._changed.notify()

    def _seconds_to_wait(self, me: int, asked_at: float) -> float:
        now = time.monotonic()
        others = [*self._begun.values()]
        if now < asked_at + _PATIENCE_SECONDS:
            others += [at for thread, at in self._back.items() if thread != me]
        return max(others) + self._slow_seconds - now if others else 0.0


PACE = Pace()
