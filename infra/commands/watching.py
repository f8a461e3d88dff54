"""Follows a started command to its end: reads its output, and ends it at its limits or when it is told to."""

import os
import selectors
import signal
import time
from collections.abc import Callable

from infra.commands import children, memory_use
from infra.commands.capped_output import CappedOutput
from infra.commands.command_spec import CommandResult, CommandSpec, EndedBy

# A command may write this many times what is kept of a stream, before it is ended.
OUTPUT_FACTOR = 100
_POLL_SECONDS = 0.2
_CHUNK_BYTES = 64 * 1024
# How long pipes may stay open after the command has ended or has been killed.
_CLOSE_SECONDS = 5.0
_SIGNAL_MESSAGES = {
    "SIGXCPU": "The command used more CPU time than its limit.",
    "SIGXFSZ": "The command wrote a file larger than its limit.",
}
_EXIT_MESSAGES = {
    126: "Exit code 126: the program was found but could not be executed.",
    127: "Exit code 127: the program was not found.",
}

ShouldStop = Callable[[], str | None]


class CommandWatch:
    """One run of one command."""

    def __init__(self, child: children.CommandChild, spec: CommandSpec, should_stop: ShouldStop) -> None:
        self._child = child
        self._spec = spec
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._give_up: float | None = None
        self._next_poll = self._started
        self._ended_by: EndedBy = "exit"
        self._message = ""
        self._outputs = {descriptor: CappedOutput(spec.max_output_bytes) for descriptor in (child.stdout, child.stderr)}

    def follow(self) -> CommandResult:
        """Return when no process of the command is left. If `should_stop` raises, ends the command and passes the error
        on.
        """
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in (*self._outputs, self._child.status):
                    selector.register(descriptor, selectors.EVENT_READ)
                while selector.get_map():
                    remaining = self._decide()
                    if remaining < 0:
                        break
                    for key, _ in selector.select(remaining):
                        self._read(key.fd, selector)
        finally:
            self._child.kill()
            self._child.close()
        return self._result()

    def _decide(self) -> float:
        """Seconds until the next decision; negative if the pipes are to be left."""
        now = time.monotonic()
        if self._give_up is not None:
            return self._give_up - now
        deadline = self._started + self._spec.timeout.total_seconds()
        if now >= deadline:
            self._end("timeout", f"The command ran longer than its time-out of {self._spec.timeout}.")
            return 0
        if now >= self._next_poll:
            reason = self._should_stop()
            if reason is not None:
                self._end("canceled", reason)
                return 0
            most = self._spec.limits.memory_bytes
            if memory_use.of_descendants(self._child.process.pid, most=most) > most:
                self._end("memory_limit", f"The command's processes used more than {most} bytes of memory together.")
                return 0
            self._next_poll = time.monotonic() + _POLL_SECONDS
        return max(0.0, min(deadline, self._next_poll) - now)

    def _read(self, descriptor: int, selector: selectors.BaseSelector) -> None:
        try:
            chunk = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            selector.unregister(descriptor)
            if descriptor == self._child.status and self._give_up is None:
                self._child.kill()
                self._give_up = time.monotonic() + _CLOSE_SECONDS
            return
        if descriptor == self._child.status:
            self._child.heard(chunk)
            if self._child.has_ended and self._give_up is None:
                self._give_up = time.monotonic() + _CLOSE_SECONDS
            return
        output = self._outputs[descriptor]
        output.add(chunk)
        most = OUTPUT_FACTOR * self._spec.max_output_bytes
        if output.total_bytes > most and self._ended_by == "exit":
            self._end("output_limit", f"The command wrote more than {most} bytes to one stream.")

    def _end(self, ended_by: EndedBy, message: str) -> None:
        self._ended_by, self._message = ended_by, message
        self._give_up = time.monotonic() + _CLOSE_SECONDS
        self._child.kill()

    def _result(self) -> CommandResult:
        stdout, stderr = (output.result() for output in self._outputs.values())
        ended_by, message, code, name = self._ended_by, self._message, None, "SIGKILL"
        if ended_by == "exit":
            outcome = self._child.outcome(stderr.text)
            code, name = outcome.exit_code, _signal_of(outcome.exit_code)
            if code is None:
                ended_by, message = "setup_error", outcome.reason
            else:
                message = _SIGNAL_MESSAGES.get(name) or _EXIT_MESSAGES.get(code, "")
        return CommandResult(
            ended_by=ended_by,
            exit_code=code,
            signal=name,
            stdout=stdout.text,
            stderr=stderr.text,
            stdout_bytes_total=stdout.total_bytes,
            stderr_bytes_total=stderr.total_bytes,
            is_stdout_truncated=stdout.is_truncated,
            is_stderr_truncated=stderr.is_truncated,
            duration_seconds=time.monotonic() - self._started,
            message=message,
        )


def _signal_of(exit_code: int | None) -> str:
    number = (exit_code or 0) - 128
    return children.signal_name(number) if number in set(signal.Signals) else ""
