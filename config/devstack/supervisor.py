"""Supervises processes: prints their output, restarts those that end, and stops all of them on request.

One thread and one loop (`Supervisor.turn`) do everything, so nothing here needs a lock.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from config.devstack.process_output import Lines, Printer
from config.embedded import CannotStart, child_processes

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
STEADY_SECONDS = 30.0  # a process that ran this long restarts without a pause
START_SECONDS = 120.0


@dataclass
class Process:
    """One of our processes: how to start it, and its state."""

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    stop_signal: signal.Signals = signal.SIGTERM
    is_kept: bool = True  # restarted when it ends
    is_hurried: bool = True  # killed at once on a second stop request
    running: "subprocess.Popen[bytes] | None" = None
    exit_code: int | None = None
    started_at: float = 0.0
    pause: float = FIRST_PAUSE
    restart_at: float | None = None
    lines: Lines = field(default_factory=Lines, repr=False)


class Stopped(Exception):
    """A signal asked us to stop."""


class Supervisor:
    def __init__(self, printer: Printer, *, note_pids: Callable[[Mapping[str, int]], None]) -> None:
        """Supervise processes. `note_pids` gets the running ones by name, whenever one starts."""
        self._printer = printer
        self._note_pids = note_pids
        self._processes: dict[str, Process] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0
        self._is_stopping = False

    def catch_signals(self) -> None:
        """Set handlers outright: a shell's `&` starts us with SIGINT ignored, and Python then sets none of its own."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reading, writing)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._request_stop)
        self._selector.register(reading, selectors.EVENT_READ, lambda: reading.recv(4096))

    def add(self, process: Process) -> Process:
        self._processes[process.name] = process
        self._launch(process)
        return process

    def wait_until(self, condition: Callable[[], bool], complaint: str, *, needs: str | None = None) -> None:
        """Run the loop until the condition holds. Raises CannotStart after a minute, or once `needs` has ended."""
        give_up_at = time.monotonic() + START_SECONDS
        while not condition():
            if needs is not None and self._processes[needs].running is None:
                raise CannotStart(f"{complaint}; see the lines of {needs} above")
            if time.monotonic() > give_up_at:
                raise CannotStart(f"{complaint} within {START_SECONDS:g} s; see above")
            self.turn(seconds=0.05)

    def turn(self, seconds: float = 0.25) -> None:
        """Print output, notice ended processes, restart those that are due. Raises Stopped once."""
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, Process):
                self._read(key.data)
            else:
                key.data()
        for process in list(self._processes.values()):
            if process.running is not None and process.running.poll() is not None:
                self._note_end(process)
            if process.restart_at is not None and time.monotonic() >= process.restart_at and not self._is_stopping:
                self._launch(process)
        if self._stop_requests and not self._is_stopping:
            raise Stopped

    def stop(self, order: Sequence[Sequence[str]]) -> None:
        """Stop the processes group by group, each group after the one before has ended. Kills slow ones."""
        self._is_stopping = True
        for names in order:
            group = [self._processes[name] for name in names if name in self._processes]
            requests = self._stop_requests
            for process in group:
                if process.running is not None:
                    self._printer.say(f"stopping {process.name}")
                    # To this process alone: Celery and granian stop their own children.
                    process.running.send_signal(process.stop_signal)
            give_up_at = time.monotonic() + child_processes.STOP_SECONDS
            while any(process.running for process in group):
                is_asked_again = self._stop_requests > max(requests, 1)
                if time.monotonic() > give_up_at or (is_asked_again and all(process.is_hurried for process in group)):
                    for process in group:
                        if process.running is not None:
                            self._printer.say(f"{process.name} is killed")
                            with contextlib.suppress(ProcessLookupError):
                                os.killpg(process.running.pid, signal.SIGKILL)
                    give_up_at = float("inf")
                self.turn(seconds=0.05)

    def _request_stop(self, *_: object) -> None:
        self._stop_requests += 1

    def _launch(self, process: Process) -> None:
        process.restart_at = None
        process.exit_code = None
        process.started_at = time.monotonic()
        try:
            process.running = process.start()
        except OSError as error:
            raise CannotStart(f"{process.name} cannot be started: {error}") from None
        assert process.running.stdout is not None
        os.set_blocking(process.running.stdout.fileno(), False)
        self._selector.register(process.running.stdout, selectors.EVENT_READ, process)
        self._note_pids({name: each.running.pid for name, each in self._processes.items() if each.running})

    def _read(self, process: Process) -> None:
        """Print what the pipe of a running or just ended process holds."""
        assert process.running is not None
        pipe = process.running.stdout
        assert pipe is not None
        chunk = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(pipe.fileno(), 65536):
                chunk += piece
            with contextlib.suppress(KeyError):  # _note_end reads the same pipe a second time
                self._selector.unregister(pipe)
        for line in process.lines.split(chunk):
            self._printer.pass_on(process.name, line)

    def _note_end(self, process: Process) -> None:
        self._read(process)
        assert process.running is not None
        pipe = process.running.stdout
        assert pipe is not None
        with contextlib.suppress(KeyError):  # a pipe that was read to its end is unregistered already
            self._selector.unregister(pipe)
        pipe.close()
        process.exit_code, process.running = process.running.returncode, None
        if self._is_stopping:
            return
        ending = f"signal {-process.exit_code}" if process.exit_code < 0 else f"exit code {process.exit_code}"
        if process.is_kept:
            if time.monotonic() - process.started_at > STEADY_SECONDS:
                process.pause = FIRST_PAUSE
            process.restart_at = time.monotonic() + process.pause
            self._printer.say(f"{process.name} ended ({ending}); starting it again in {process.pause:g} s")
            process.pause = min(process.pause * 2, LONGEST_PAUSE)
        elif process.name == "demo" and process.exit_code:
            self._printer.say(f"the demo failed ({ending}; see above); the service continues")
