"""The folder that a command works in: made, handed over and removed without following what the command left.

A command can leave symlinks to any file, pipes without a writer, folders without permissions and very deep trees.
"""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.commands import job_user
from infra.commands.job_user import JobUser

log = logging.getLogger(__name__)
_REMOVE_SECONDS = 60.0


class UnusableFolderError(Exception):
    """The command cannot work in this folder. The text says why."""


@contextmanager
def fresh(user: JobUser) -> Iterator[Path]:
    """A temporary folder of `user`, removed afterwards. Raises UnusableFolderError as `handed_over`."""
    folder = Path(tempfile.mkdtemp(prefix="agent-jobs-command-")).resolve()
    try:
        yield handed_over(folder, user)
    finally:
        remove(folder)


def handed_over(folder: Path, user: JobUser) -> Path:
    """The folder's real path, after `user` has become its owner. UnusableFolderError if that fails."""
    try:
        folder = folder.resolve(strict=True)
        if not folder.is_dir():
            raise UnusableFolderError(f"The work folder {folder} is not a folder.")
        if folder.stat().st_uid != user.uid:
            user.own(str(folder))
    except OSError as error:
        raise UnusableFolderError(f"The work folder {folder} cannot be used: {error.strerror}.") from None
    if not job_user.can_reach(folder, user):
        raise UnusableFolderError(f"The user {user.name} may not pass through the folders above {folder}.")
    return folder


def remove(folder: Path) -> None:
    """Remove the folder by the system's own tools, which follow no symlink and have no limit of depth.

    A failure is logged: the folder then stays.
    """
    if os.geteuid() != 0:
        _run("chmod", "-R", "u+rwX", "--", str(folder))
    _run("rm", "-rf", "--one-file-system", "--", str(folder))
    if folder.exists():
        log.warning("could not remove the work folder %s of a command", folder)


def _run(name: str, *arguments: str) -> None:
    try:
        subprocess.run(  # noqa: S603
            [shutil.which(name) or name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_REMOVE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
