"""Waiting for another process, with an end to it."""

import threading
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    pause = threading.Event()
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"not so within {seconds:g} s"
        pause.wait(0.05)
