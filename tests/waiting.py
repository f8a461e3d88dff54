"""Waiting for other threads and processes. Only what hangs ends it: a machine that is slow or busy is no failure."""

import threading
import time
from collections.abc import Callable
from typing import Any

# Seconds. Nothing that works takes so long, on a machine that has ten other things to do either. A test that means
# "at once" compares with what it would be otherwise: half of a time-out of a minute, say.
PATIENCE = 120.0
PAUSE = threading.Event()


def wait_for(look: Callable[[], Any], *, what: str, seconds: float = PATIENCE, pause: float = 0.05) -> Any:
    """Waits until `look` returns a true value, and returns that."""
    until = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        PAUSE.wait(pause)
