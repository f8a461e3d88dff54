"""The parent's side of the child processes: starts them on demand, keeps them, and replaces killed ones.

Thread-safe. A process has at most two children, and a caller waits for a free one. A web process limits how many
threads wait (`limit_callers`), so that one tenant's expensive programs cannot hold all of its threads.
"""

import atexit
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent_jobs.errors import RetryableError
from agent_jobs.sandbox.child import receive, send

log = logging.getLogger(__name__)
MAX_CHILDREN = 2
_WAIT_SECONDS = 10.0
# Real time, for work that has CPU_SECONDS of CPU: the machine may be busy, and children run at low priority.
_ANSWER_SECONDS = 5.0
_START_SECONDS = 30.0
_NICENESS = 5
_MANY = 10_000
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")  # no secrets
_ROOT = Path(__file__).resolve().parents[2]


class TooComplexError(Exception):
    """The child was killed for its CPU time or memory. `so_far`: its answers until then."""

    def __init__(self, so_far: list[Any]) -> None:
        super().__init__("takes too much time or memory")
        self.so_far = so_far


def run(do: str, **request: Any) -> Any:
    """The child's last answer. Raises TooComplexError, and RetryableError (`busy`) if no child becomes free."""
    with _turn():
        child = _child()
        answers: list[Any] = []
        is_worn = True
        try:
            for frame in child.answers({"do": do, **request}):
                if not frame["is_last"]:
                    answers.append(frame["answer"])
                is_worn = frame.get("is_worn", True)
        except TimeoutError:
            raise _busy() from None
        except (EOFError, ConnectionError):
            log.warning("sandbox process killed during: %s", do)
            raise TooComplexError(answers) from None
        finally:
            if is_worn:
                child.close()
            else:
                _idle.append(child)
    return answers[-1]


def _child() -> "_Child":
    while _idle:
        try:
            child = _idle.pop()
        except IndexError:  # another thread took it
            break
        if child.is_alive:
            return child
        child.close()
    return _Child()


def limit_callers(most: int) -> None:
    """From now on, refuse callers beyond `most` at once (`busy`) instead of letting them wait."""
    global _callers
    _callers = threading.BoundedSemaphore(most)


@atexit.register
def close() -> None:
    """Stop the idle children; the next request starts new ones."""
    while _idle:
        _idle.pop().close()


class _Child:
    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent_jobs.sandbox.child"],
                cwd=_ROOT,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
        try:
            self._connection.settimeout(_START_SECONDS)
            receive(self._connection)
        except (OSError, EOFError) as error:
            self.close()
            raise RuntimeError("the sandbox process does not start") from error

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def answers(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        until = time.monotonic() + _ANSWER_SECONDS
        self._connection.settimeout(_ANSWER_SECONDS)
        send(self._connection, request)
        while True:
            self._connection.settimeout(max(until - time.monotonic(), 0.001))
            frame: dict[str, Any] = receive(self._connection)
            yield frame
            if frame["is_last"]:
                return

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Child] = []
_callers = threading.BoundedSemaphore(_MANY)
_children = threading.BoundedSemaphore(MAX_CHILDREN)


@contextmanager
def _turn() -> Iterator[None]:
    callers = _callers
    if not callers.acquire(blocking=False):
        raise _busy()
    try:
        if not _children.acquire(timeout=_WAIT_SECONDS):
            raise _busy()
        try:
            yield
        finally:
            _children.release()
    finally:
        callers.release()


def _busy() -> RetryableError:
    return RetryableError("too many costly schemas or templates are being processed", code="busy", retry_after=1.0)
