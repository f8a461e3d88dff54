"""Starts child processes from one thread that lives as long as its process.

The kernel ends a child with a parent-death signal when the *thread* that started it ends, not the process. Callers of
this module may be short-lived threads, so none of them may start such a child itself.
"""

import os
import queue
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future

_Start = Callable[[], "subprocess.Popen[bytes]"]


class Spawner:
    """The thread that starts children, with its queue. A start takes about a millisecond, so one thread is enough."""

    def __init__(self) -> None:
        self._starts: queue.SimpleQueue[tuple[_Start, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="command-spawner", daemon=True).start()

    def start(self, start: _Start) -> "subprocess.Popen[bytes]":
        """Call `start` in the thread, and return its result. Its error passes through."""
        started: Future[subprocess.Popen[bytes]] = Future()
        try:
            self._starts.put((start, started))
            return started.result()
        except BaseException:
            started.add_done_callback(_kill_unwanted)  # a signal's exception came first: nobody would know the child
            raise

    def _work(self) -> None:
        while True:
            start, started = self._starts.get()
            try:
                started.set_result(start())
            except BaseException as error:
                started.set_exception(error)


def _kill_unwanted(started: "Future[subprocess.Popen[bytes]]") -> None:
    if not started.exception():
        child = started.result()
        child.kill()
        child.wait()


_lock = threading.Lock()
_of_process: Spawner | None = None


def start(start: _Start) -> "subprocess.Popen[bytes]":
    """Start a child from this process's spawner thread, which is made at the first call."""
    global _of_process
    with _lock:
        if _of_process is None:
            _of_process = Spawner()
        spawner = _of_process
    return spawner.start(start)


def _forget() -> None:
    """A fork copies no thread: the child makes its own."""
    global _lock, _of_process
    _lock, _of_process = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
