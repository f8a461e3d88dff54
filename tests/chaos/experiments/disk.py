"""E10: the disk of PostgreSQL is full for 20 s, again and again."""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.checker import Rules
from tests.chaos.stage import Experiment, Scene

_FULL_SECONDS = 20.0
_FREE_SECONDS = 25.0


def _fill(scene: Scene) -> None:
    """Kept full: what PostgreSQL gives back meanwhile is taken as well."""
    ballast = scene.rig.disk / "ballast"
    while scene.pause(_FREE_SECONDS / 2):
        until = time.monotonic() + _FULL_SECONDS
        while time.monotonic() < until:
            _take_all(ballast)
            if not scene.pause(0.2):
                break
        ballast.unlink()
        scene.did("disk full for 20 s")
        scene.pause(_FREE_SECONDS / 2)


def _take_all(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(_Full):
                while True:
                    _write(file.fileno(), bytes(size))


class _Full(Exception):
    pass


def _write(file: int, content: bytes) -> None:
    try:
        if os.write(file, content) < len(content):
            raise _Full
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from None


def _verify(scene: Scene) -> None:
    """Refused politely while it was full: the checker looks at how; here, that it was refused at all."""
    answers = scene.load.answers
    if not answers["POST 503"]:
        scene.breaks(f"no POST was refused: the disk was never full ({dict(answers)})")


E10 = Experiment(
    "E10",
    "the database's disk full for 20 s, and freed",
    "I1 I2 I14",
    _fill,
    # Nothing starts that cannot be written down.
    rules=Rules(start_slack=None),
    rig={"disk_megabytes": 300},
    verify=_verify,
)
