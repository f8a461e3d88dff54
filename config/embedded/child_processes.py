"""Server processes as our children: wait for them, stop them, tie them to us, and find those of a killed supervisor.

Knows nothing of particular servers.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

STOP_SECONDS = 30.0
Output = int | IO[bytes] | None


class CannotStart(Exception):
    """A server cannot be set up or started; the message is for the person at the terminal."""


class Server(Protocol):
    def is_ready(self) -> bool: ...


def wait_ready(server: Server, process: "subprocess.Popen[bytes]", *, seconds: float = 120) -> None:
    """Wait until a spawned server answers. Raises CannotStart if it ends or does not answer in time."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if server.is_ready():
            return
        if process.poll() is not None:
            raise CannotStart(f"{type(server).__name__} ended with {process.returncode} while starting")
        pause.wait(0.02)
    raise CannotStart(f"{type(server).__name__} did not answer within {seconds:g} s")


def stop(process: "subprocess.Popen[bytes]", stop_signal: signal.Signals) -> None:
    """Stop a child: by the signal, and after half a minute by SIGKILL."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def stop_stranger(pid: int, stop_signal: signal.Signals) -> None:
    """Stop a process that is not our child: by the signal, and after half a minute by SIGKILL."""
    try:
        os.kill(pid, stop_signal)
    except ProcessLookupError:
        return
    except PermissionError:
        raise CannotStart(f"process {pid} of a former start is still running and belongs to another user") from None
    pause = threading.Event()
    for _ in range(int(STOP_SECONDS / 0.05)):
        if not is_alive(pid):
            return
        pause.wait(0.05)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a zombie counts as ended
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def command_line(pid: int) -> str:
    """The command line of any process, "" if it is invisible: from /proc, or from `ps` without one (macOS)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        pass
    try:
        shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
    except OSError:
        return ""
    return shown.stdout


def tied_to_parent(last_signal: signal.Signals, *, parent: int | None = None) -> Callable[[], None] | None:
    """A `preexec_fn` after which Linux sends the child `last_signal` when its parent ends, even by kill -9.

    macOS has no such feature: there the next start finds leftovers by their pid files. The parent must start children
    from a thread that lives as long as the process, because the kernel watches the thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    expected = os.getpid() if parent is None else parent

    def tie() -> None:
        prctl(1, int(last_signal), 0, 0, 0)  # 1 = PR_SET_PDEATHSIG
        if os.getppid() != expected:
            os._exit(1)  # the parent died before prctl took effect

    return tie


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    unfinished.rename(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
