"""A program of its own: the parent of one trusted command, which ends with everything that the command started.

The worker starts it as `python -I -S trusted_supervisor.py CONTROL STATUS REQUEST`, three descriptors. REQUEST is JSON
and is read once. CONTROL is a pipe that the worker holds open: the supervisor kills everything as soon as it closes,
so also when the worker is killed. STATUS receives one line of JSON per event: `started`, `failed`, `ended`.

The kernel gives it every orphan among its descendants (PR_SET_CHILD_SUBREAPER), so that a daemon that has left its
session and process group is still found. It imports the standard library only, and nothing of ours.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_OPEN_FILES = 1_024
_OOM_SCORE = "500"
_KILL_SECONDS = 4.0
_ROUND_SECONDS = 0.05
_NOT_FOUND, _NOT_EXECUTABLE, _NOT_STARTED = 127, 126, 125


def main() -> int:
    control, status, source = (int(word) for word in sys.argv[1:4])
    for descriptor in (control, status, source):
        os.set_inheritable(descriptor, False)
    with open(source, "rb") as file:
        request = json.load(file)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # An orphan that a signal would wake: SIGTERM must not end the supervisor before its children.
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stopping.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # The worker's spawner thread lives as long as the worker. It covers a CONTROL that a fork of the worker holds open.
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    supervisor = os.getpid()
    command = os.fork()
    if command == 0:
        _become(request, supervisor, status, libc)
    _say(status, started=command)
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    poll.register(woken, select.POLLIN)
    while not stopping:
        ended = _reap(command)
        if ended is not None:
            _say(status, ended=ended)
            break
        if any(descriptor == control for descriptor, _ in poll.poll()):
            break
        _drain(woken)
    return 0 if _end_all(woken) else 1


def _become(request: dict[str, Any], supervisor: int, status: int, libc: Any) -> NoReturn:
    """Turn this fork into the command. It reports what fails, and by which step."""
    step = "prepare"
    try:
        os.setsid()
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OOM_SCORE)
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        step = "become its user"
        if request["must_switch"]:
            os.setgroups([])
            os.setresgid(*[request["gid"]] * 3)
            os.setresuid(*[request["uid"]] * 3)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(_NOT_STARTED)
        os.umask(0o022)
        step = "enter its working directory"
        os.chdir(request["folder"])
        if request["directory"]:
            os.makedirs(request["directory"], exist_ok=True)
            os.chdir(request["directory"])
        environment = {**request["environment"], "PWD": os.getcwd()}
        step = "set its limits"
        limits = request["limits"]
        _limit(resource.RLIMIT_CPU, limits["cpu_seconds"], limits["cpu_seconds"] + 1)
        _limit(resource.RLIMIT_NPROC, limits["processes"])
        _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
        _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_AS, limits["memory_bytes"])
        step = "execute"
        _execute(request["argv"], environment)
    except OSError as error:
        code = _NOT_STARTED
        if step == "execute":
            code = _NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else _NOT_EXECUTABLE
        _say(status, failed=step, reason=error.strerror or str(error), code=code)
        os._exit(code)
    except BaseException as error:
        _say(status, failed=step, reason=repr(error), code=_NOT_STARTED)
        os._exit(_NOT_STARTED)


def _execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without a first line that names its interpreter, as execvp of the C library does it.
    os.execve("/bin/sh", ["/bin/sh", *argv], environment)  # noqa: S606


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """An ordinary user cannot raise a hard limit, so a lower one that is already set stays."""
    _, present = resource.getrlimit(kind)
    most = present if present != resource.RLIM_INFINITY else (hard or soft)
    resource.setrlimit(kind, (min(soft, most), min(hard or soft, most)))


def _end_all(woken: int) -> bool:
    """Kill all descendants. True if none is left. Each round finds what the last one's victims had started."""
    until = time.monotonic() + _KILL_SECONDS
    while True:
        for process in _descendants():
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue  # it has ended, or has become another user
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        if time.monotonic() > until:
            return False
        select.select([woken], [], [], _ROUND_SECONDS)  # a child that ends wakes it
        _drain(woken)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != b"Z":
                children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _reap(command: int) -> int | None:
    """Reap every child that has ended. The exit code of the command if it is among them, negative for a signal."""
    ended = None
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if process == 0:
            return ended
        if process == command:
            ended = os.waitstatus_to_exitcode(status)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def _say(status: int, **event: object) -> None:
    try:
        os.write(status, json.dumps(event).encode() + b"\n")
    except OSError:
        return  # the worker has gone, which CONTROL says too


if __name__ == "__main__":
    sys.exit(main())
