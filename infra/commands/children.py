"""Starts a command in its mode and ends it: one class per mode, with the same operations.

Both start from the spawner thread. `running` reads their pipes and decides when to end them.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.commands import bubblewrap, seccomp, spawner
from infra.commands.command_spec import CommandSpec
from infra.commands.job_user import JobUser

log = logging.getLogger(__name__)
_MAX_STATUS_BYTES = 64 * 1024
_SUPERVISOR = Path(__file__).with_name("trusted_supervisor.py")
_WAIT_SECONDS = 1.0
_KILLED_SECONDS = 10.0
_LOOK_SECONDS = 0.05
# The supervisor looks for survivors for up to 4 s.
_SUPERVISOR_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child process ended. `exit_code` is None if the command never ran; `reason` then says why."""

    exit_code: int | None
    reason: str = ""


class CommandChild(ABC):
    """A started command. `stdout`, `stderr` and `status` are descriptors of pipes to read until their end."""

    def __init__(self, spec: CommandSpec, user: JobUser) -> None:
        """Start the command. Raises OSError if the process cannot be started."""
        self._status = bytearray()
        self._kept = ExitStack()
        try:
            with ExitStack() as handed:  # the child's ends, which are closed here once it has them
                self.stdout, out = self._pipe(handed)
                self.stderr, err = self._pipe(handed)
                self.status, status = self._pipe(handed)
                user.own(out)  # so that the command may open /dev/stdout
                user.own(err)
                given = _memory(handed, spec.stdin) if spec.stdin else subprocess.DEVNULL
                line, descriptors, arguments = self._line(spec, user, handed, status)
                self.process = spawner.start(
                    lambda: subprocess.Popen(  # noqa: S603
                        line,
                        stdin=given,
                        stdout=out,
                        stderr=err,
                        pass_fds=(status, *descriptors),
                        cwd="/",
                        start_new_session=True,  # Ctrl-C in a terminal is for the worker, which ends its commands
                        **arguments,
                    )
                )
        except BaseException:
            self._kept.close()
            raise

    def heard(self, chunk: bytes) -> None:
        """Take a piece of what came through `status`."""
        if len(self._status) < _MAX_STATUS_BYTES:
            self._status += chunk

    @property
    @abstractmethod
    def has_ended(self) -> bool:
        """Whether the status says that the command's first process has ended."""

    @abstractmethod
    def kill(self) -> None:
        """Begin to end all processes of the command. It may be called twice."""

    @abstractmethod
    def close(self) -> None:
        """Wait for the end of the child, by force if it does not come, and close all descriptors."""

    @abstractmethod
    def outcome(self, stderr: str) -> Outcome:
        """How the command ended, after `close`."""

    @abstractmethod
    def _line(
        self, spec: CommandSpec, user: JobUser, handed: ExitStack, status: int
    ) -> tuple[list[str], tuple[int, ...], dict[str, Any]]:
        """The command line, the descriptors that it names beside `status`, and further arguments of Popen."""

    def _pipe(self, handed: ExitStack) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._kept.callback(os.close, reading)
        handed.callback(os.close, writing)
        os.set_blocking(reading, False)
        return reading, writing

    def _events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for line in self._status.split(b"\n")[:-1]:
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    events.append(event)
        return events

    def _wait(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            self.process.kill()
        try:
            self.process.wait(_KILLED_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("process %s of a command does not end, although it was killed", self.process.pid)

    def _fallen(self, what: str, stderr: str) -> Outcome:
        code = self.process.returncode
        if code is None:
            return Outcome(None, f"{what} does not end.")
        if code < 0:
            return Outcome(None, f"{what} was ended by {signal_name(-code)} from outside.")
        return Outcome(None, stderr.strip()[:1000] or f"{what} ended with exit code {code} before the command ran.")


class SandboxChild(CommandChild):
    """bwrap, whose namespace dies with its first process."""

    def __init__(self, spec: CommandSpec, *, program: Path, user: JobUser, work_folder: Path | None) -> None:
        self._program = program
        self._work_folder = work_folder
        self._first: int | None = None
        super().__init__(spec, user)

    def _line(
        self, spec: CommandSpec, user: JobUser, handed: ExitStack, status: int
    ) -> tuple[list[str], tuple[int, ...], dict[str, Any]]:
        options = bubblewrap.arguments(spec, work_folder=self._work_folder)
        secret = _memory(handed, b"".join(os.fsencode(word) + b"\0" for word in options))
        line = [str(self._program), "--args", str(secret), "--json-status-fd", str(status)]
        descriptors = [secret]
        if calls := seccomp.program():
            descriptors.append(_memory(handed, calls))
            line += ["--seccomp", str(descriptors[-1])]
        line += ["--", *bubblewrap.limited(spec)]
        return line, tuple(descriptors), {"env": {}, "umask": 0o022} | user.popen_arguments

    def heard(self, chunk: bytes) -> None:
        is_first = b"\n" not in self._status
        super().heard(chunk)
        if is_first and b"\n" in self._status:
            self._first = self._opened_first()

    @property
    def has_ended(self) -> bool:
        return any("exit-code" in event for event in self._events()[1:])

    def kill(self) -> None:
        """Kill process 1 of the namespace: bwrap then reaps it. A killed bwrap would leave that to the host's init."""
        if self._first is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
                return
        self.process.kill()

    def close(self) -> None:
        self._wait(_WAIT_SECONDS)
        self._kept.close()

    def outcome(self, stderr: str) -> Outcome:
        ended = [event["exit-code"] for event in self._events()[1:] if isinstance(event.get("exit-code"), int)]
        if not ended:
            return self._fallen("bwrap", stderr)
        if ended[-1] == bubblewrap.NOT_STARTED and stderr.rstrip().endswith(bubblewrap.CANNOT_ENTER):
            return Outcome(None, f"The command could not enter its working directory: {stderr.strip()[:500]}")
        return Outcome(ended[-1] & 0xFF)

    def _opened_first(self) -> int | None:
        """A descriptor of the namespace's first process. A root worker must not kill a stranger, so it is checked."""
        try:
            number = self._events()[0]["child-pid"]
            first = os.pidfd_open(number)
        except (LookupError, TypeError, ValueError, OverflowError, OSError):
            return None
        self._kept.callback(os.close, first)
        return first if _parent_of(number) == self.process.pid else None


class TrustedChild(CommandChild):
    """`trusted_supervisor.py`, which ends all descendants of the command."""

    def __init__(self, spec: CommandSpec, *, user: JobUser, work_folder: Path) -> None:
        self._work_folder = work_folder
        self._uid = user.uid
        self._control = ExitStack()
        super().__init__(spec, user)

    def _line(
        self, spec: CommandSpec, user: JobUser, handed: ExitStack, status: int
    ) -> tuple[list[str], tuple[int, ...], dict[str, Any]]:
        folder = str(self._work_folder)
        request = {
            "argv": spec.arguments,
            "environment": {"PATH": bubblewrap.PATH, "HOME": folder, "LANG": "C.UTF-8"} | dict(spec.environment),
            "folder": folder,
            "directory": spec.working_directory,
            "must_switch": user.must_switch,
            "uid": user.uid,
            "gid": user.gid,
            # The kernel counts all processes of the user, on the whole machine.
            "limits": asdict(spec.limits) | {"processes": spec.limits.processes + _tasks_of(user.uid)},
        }
        source = _memory(handed, json.dumps(request).encode())
        control, held = os.pipe()
        handed.callback(os.close, control)
        self._control.callback(os.close, held)
        self._kept.push(self._control)
        line = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(control), str(status), str(source)]
        # The command's own variables must not reach the supervisor, which may run as root.
        return line, (control, source), {"env": {"PATH": bubblewrap.PATH, "LANG": "C.UTF-8"}}

    @property
    def has_ended(self) -> bool:
        return any("started" not in event for event in self._events())

    def kill(self) -> None:
        self._control.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_LOOK_SECONDS)
        if self.process.returncode:
            self._kill_session()

    def close(self) -> None:
        self.kill()
        self._wait(_SUPERVISOR_SECONDS)
        self._kept.close()
        if self.process.returncode != 0:
            log.warning("the supervisor of a trusted command ended with %s", self.process.returncode)
            self._kill_session()

    def outcome(self, stderr: str) -> Outcome:
        for event in self._events():
            match event:
                case {"failed": "execute", "code": int(code)}:
                    return Outcome(code)
                case {"failed": str(step), "reason": str(reason)}:
                    return Outcome(None, f"The command could not {step}: {reason}.")
                case {"ended": int(code)}:
                    return Outcome(code if code >= 0 else 128 - code)
        return self._fallen("The command's supervisor", stderr)

    def _kill_session(self) -> None:
        """Somebody killed the supervisor, or it gave up. What has kept the session of the command is still found."""
        sessions = {event["started"] for event in self._events() if isinstance(event.get("started"), int)}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and _stat_of(folder, 3) in sessions:
                with suppress(OSError):
                    if folder.stat().st_uid == self._uid:
                        os.kill(int(folder.name), signal.SIGKILL)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory(handed: ExitStack, content: bytes) -> int:
    """A file in memory at its beginning: secrets leave no trace on a disk, and no pipe has to be fed."""
    descriptor = os.memfd_create("command", os.MFD_CLOEXEC)
    handed.callback(os.close, descriptor)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _parent_of(process: int) -> int | None:
    return _stat_of(Path("/proc", str(process)), 1)


def _stat_of(folder: Path, field: int) -> int | None:
    """A field of a process's `stat` after its name: 1 is the parent, 3 the session."""
    try:
        return int((folder / "stat").read_bytes().rpartition(b")")[2].split()[field])
    except (OSError, ValueError, IndexError):
        return None


def _tasks_of(uid: int) -> int:
    """How many processes and threads the user has now."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if folder.stat().st_uid == uid:
                    total += len(os.listdir(folder / "task"))
    return total
