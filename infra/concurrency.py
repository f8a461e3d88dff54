"""How a worker process answers the bell: at most so many of its threads at once in each kind of work.

Without it, one kind of work (long agent turns, say) could take every thread, and deadlines would wait behind it.
"""

import threading
from collections.abc import Callable


class Gate:
    """A bell that finds every place taken is not lost: whoever leaves next sees that it rang, and looks again."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._has_rung = False

    def answer(self, work: Callable[[], int]) -> int:
        """Do `work` if there is a place, until no bell has rung meanwhile. Returns the sum of what it returned."""
        done = 0
        # The order matters: rung before a place is sought, and looked at again after it is given back.
        self._has_rung = True
        while self._has_rung and self._places.acquire(blocking=False):
            try:
                self._has_rung = False
                done += work()
            finally:
                self._places.release()
        return done
