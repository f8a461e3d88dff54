"""How many turns of agents a process begins at the same time: one.

What a turn does before it waits for its model, or for anybody outside, is a short piece of work: reading, a few round
trips, Python. Twenty of them begun at once take as long as all of them, each; begun one after the other, each is quick.
Who waits here has not claimed yet, so another process may take the job meanwhile. What has come back from outside never
waits here. (The slowest of 14 turns begun at once took 190 ms with two places; with one, 59 to 148 where the disk did
not stall. The price: workers that are stopped most of the time, as in E2, begin jobs later.)

Nobody is waited for who takes longer than a twentieth of a second: over a slow line to the database, or on a machine at
its limit, turns are begun beside each other, twenty a second.
"""

import threading
import time

SLOW_SECONDS = 0.05


class Pace:
    """A thread has the place from before its claim until it waits for somebody outside, or its turn is over."""

    def __init__(self, slow_seconds: float = SLOW_SECONDS) -> None:
        self._slow_seconds = slow_seconds
        self._begun: dict[int, float] = {}
        self._changed = threading.Condition()

    def enter(self, *, waits: bool) -> bool:
        """Take the place. False if it is not free, where this thread does not wait for it."""
        me = threading.get_ident()
        with self._changed:
            while me not in self._begun and (seconds := self._seconds_to_wait()) > 0:
                if not waits:
                    return False
                self._changed.wait(seconds)
            self._begun.setdefault(me, time.monotonic())
        return True

    def leave(self) -> None:
        """Give the place to the next one. Without it this does nothing, so it may be said twice."""
        with self._changed:
            if self._begun.pop(threading.get_ident(), None) is not None:
                self._changed.notify()

    def _seconds_to_wait(self) -> float:
        return max(self._begun.values()) + self._slow_seconds - time.monotonic() if self._begun else 0.0


PACE = Pace()
