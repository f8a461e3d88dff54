"""How many turns of agents a process begins at the same time: two.

What a turn does before it waits for its model, or for anybody outside, is a short piece of work: reading, a few round
trips, Python. Twenty of them begun at once take as long as all of them, each; begun in twos, each is quick, one at its
round trips while the other has the interpreter. Who waits here has not claimed yet, so another process may take the
job meanwhile. What has come back from outside never waits here.
"""

import threading

MOST = 2
_PATIENCE_SECONDS = 1.0


class Pace:
    """A thread has a place from before its claim until it waits for somebody outside, or its turn is over."""

    def __init__(self, most: int = MOST) -> None:
        self._places = threading.BoundedSemaphore(most)
        self._mine = threading.local()

    def enter(self, *, waits: bool) -> bool:
        """Take a place. False if there is none now, or, where it `waits`, within a second."""
        if self._has_place:
            return True
        is_in = self._places.acquire(timeout=_PATIENCE_SECONDS) if waits else self._places.acquire(blocking=False)
        self._mine.has_place = is_in
        return is_in

    def leave(self) -> None:
        """Give the thread's place to the next one. Without one it does nothing, so it may be said twice."""
        if self._has_place:
            self._mine.has_place = False
            self._places.release()

    @property
    def _has_place(self) -> bool:
        return getattr(self._mine, "has_place", False)


PACE = Pace()
