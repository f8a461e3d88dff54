"""The operating system's account that commands run as. A command never runs as root."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_USER = "nobody"


class NoJobUserError(Exception):
    """No ordinary account can be had for a command. The text says why."""


@dataclass(frozen=True, slots=True)
class JobUser:
    """The account that commands run as. `must_switch`: this process is root and becomes the account before it starts a
    command.
    """

    name: str
    uid: int
    gid: int
    must_switch: bool

    @property
    def popen_arguments(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.must_switch else {}

    def own(self, path: str | int) -> None:
        """Give a file, folder or pipe to the account, so that a command can open it. It follows no symlink."""
        if self.must_switch:
            if isinstance(path, int):
                os.fchown(path, self.uid, self.gid)
            else:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


def resolve(name: str = DEFAULT_USER) -> JobUser:
    """The account `name` if this process is root, else the account of this process.

    Raises NoJobUserError if there is no such account, or if it is root's too.
    """
    if os.geteuid() != 0:
        uid = os.geteuid()
        return JobUser(_name_of(uid), uid, os.getegid(), must_switch=False)
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise NoJobUserError(
            f"This process runs as root, commands must not, and there is no user {name!r} to run them as."
        ) from None
    if account.pw_uid == 0 or account.pw_gid == 0:
        raise NoJobUserError(f"Commands must not run as root, and the user {name!r} is root or in its group.")
    return JobUser(name, account.pw_uid, account.pw_gid, must_switch=True)


def can_reach(path: Path, user: JobUser) -> bool:
    """Whether `user` may pass through all folders above `path`. Access lists beyond the mode are not looked at."""
    if not user.must_switch:
        return True
    for folder in path.resolve().parents:
        found = folder.stat()
        bit = 0o100 if found.st_uid == user.uid else 0o010 if found.st_gid == user.gid else 0o001
        if not found.st_mode & bit:
            return False
    return True


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
