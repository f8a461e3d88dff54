"""Processes by name: started, started again when they end, and killed, stopped or held down at will.

One thread does all the starting, because Linux ends a child (`embedded.tied_to_parent`) with the thread that made it.
"""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.waiting import wait_for

Start = Callable[[], "subprocess.Popen[bytes]"]


@dataclass
class _Kept:
    start: Start
    is_wanted: bool = True
    running: "subprocess.Popen[bytes] | None" = None
    start_at: float = 0.0


class Supervisor:
    """Every process leads a group of its own, and signals go to the group. Safe to use from many threads."""

    def __init__(self, *, respawn_seconds: float = 0.3) -> None:
        self.respawn_seconds = respawn_seconds
        self.ends: Counter[str] = Counter()  # by name, whoever ended them
        self._kept: dict[str, _Kept] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, name: str, start: Start) -> None:
        with self._changed:
            self._kept[name] = _Kept(start)
            self._changed.notify()
        wait_for(lambda: self.pid(name), what=f"{name} is started")

    def names(self, prefix: str = "") -> list[str]:
        with self._changed:
            return [name for name in self._kept if name.startswith(prefix)]

    def pid(self, name: str) -> int | None:
        """None while it is not running."""
        if self._failure:
            raise self._failure
        with self._changed:
            running = self._kept[name].running
            return running.pid if running is not None and running.poll() is None else None

    def send(self, name: str, number: signal.Signals) -> bool:
        """False if it was not running."""
        pid = self.pid(name)
        if pid is None:
            return False
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, name: str) -> bool:
        """kill -9; it is started again `respawn_seconds` after its end, unless it is held down."""
        return self.send(name, signal.SIGKILL)

    def hold(self, name: str) -> None:
        """Do not start it again until `release`."""
        with self._changed:
            self._kept[name].is_wanted = False

    def release(self, name: str) -> None:
        with self._changed:
            self._kept[name].is_wanted = True
            self._changed.notify()

    def replace(self, name: str, start: Start) -> None:
        """From its next start on it is started so."""
        with self._changed:
            self._kept[name].start = start

    def wait_ended(self, name: str, pid: int, *, seconds: float = 30) -> None:
        """Until that process has ended, whether or not another one has taken its place."""
        wait_for(lambda: self.pid(name) != pid, seconds=seconds, what=f"{name} has ended")

    def close(self, polite: Iterable[tuple[str, signal.Signals]] = ()) -> None:
        """End everything, for good: by force, but for `polite` ones, which come last and are given 12 s."""
        last = dict(polite)
        for name in self.names():
            self.hold(name)
        for name in [name for name in self.names() if name not in last]:
            self.kill(name)
        for name, number in last.items():
            pid = self.pid(name)
            if pid is None:
                continue
            self.send(name, signal.SIGCONT)
            os.kill(pid, number)
            try:
                self.wait_ended(name, pid, seconds=12)
            except AssertionError:
                self.kill(name)
        for name in self.names():
            wait_for(lambda name=name: self.pid(name) is None, what=f"{name} has ended")
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(10)

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed:
                for name, kept in self._kept.items():
                    try:
                        self._look_after(name, kept)
                    except Exception as error:
                        self._failure = error
                self._changed.wait(0.02)

    def _look_after(self, name: str, kept: _Kept) -> None:
        if kept.running is not None and kept.running.poll() is not None:
            kept.running = None
            kept.start_at = time.monotonic() + self.respawn_seconds
            self.ends[name] += 1
        if kept.running is None and kept.is_wanted and time.monotonic() >= kept.start_at:
            kept.running = kept.start()
