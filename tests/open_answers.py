"""Runs answers that stay open in the test's own thread, as the web process does."""

import time
from collections.abc import Callable
from typing import Any

from agent_jobs.api import streams
from agent_jobs.api.base import HAS_WAITED
from tests.waiting import PAUSE


def frames_of(response: Any) -> bytes:
    """All that a stream is told until it ends or its time is over."""
    opened, told = response.opened, b""
    try:
        while True:
            (found,) = streams.look([opened])
            told += b"".join(found.frames)
            if found.end or (not found.has_more and time.monotonic() >= opened.until):
                return told
            PAUSE.wait(0 if found.has_more else 0.05)
    finally:
        opened.place.leave()


def pause() -> None:
    PAUSE.wait(0.05)


def answered(ask: Callable[..., Any]) -> Any:
    """The answer of a request. One that waits is run again when its wait is over."""
    response = ask()
    opened = getattr(response, "opened", None)
    if opened is None or isinstance(opened, streams.OpenStream):
        return response
    wait(response)
    return ask(**{HAS_WAITED: opened})


def wait(response: Any) -> None:
    """Returns when the wait is over."""
    opened = response.opened
    try:
        while not streams.look([opened])[0].end and time.monotonic() < opened.until:
            pause()
    finally:
        opened.place.leave()
