"""Limits how many threads of a worker process do each kind of work at once.

Without it, one kind of work (long agent turns, say) could take every thread, and deadlines would wait behind it.
"""

import threading
from collections.abc import Callable


class ConcurrencyLimit:
    """Limits concurrent `answer` calls. A doorbell at the limit is not lost: the next thread to finish looks again."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._has_rung = False

    def answer(self, work: Callable[[], int]) -> int:
        """Run `work` if a slot is free; repeat while doorbells arrived meanwhile. Returns the sum of its results."""
        done = 0
        # The order matters: set the flag before asking for a slot, and read it again after releasing one.
        self._has_rung = True
        while self._has_rung and self._places.acquire(blocking=False):
            try:
                self._has_rung = False
                done += work()
            finally:
                self._places.release()
        return done
