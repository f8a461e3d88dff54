"""E9: clocks that are an hour wrong, on one worker, one web and one beat (Debian's `faketime`)."""

from pathlib import Path

from tests.chaos.checker import Rules
from tests.chaos.stage import Experiment, Scene

_LIBRARY = "/usr/lib/{}/faketime/libfaketimeMT.so.1"
_PLACES = [Path(_LIBRARY.format(triplet)) for triplet in ("x86_64-linux-gnu", "aarch64-linux-gnu")]
_HOUR = 3600


def _library() -> str:
    return next((str(place) for place in _PLACES if place.exists()), "")


def _missing() -> str:
    return "" if _library() else "Debian's package libfaketime"


def _harm(scene: Scene) -> None:
    """First one of each is an hour ahead, then they are an hour behind, then one of each way among them."""
    library = _library()
    assert library, "the experiment is not begun without it"
    part = scene.seconds / 3
    for worker, web, beat in ((_HOUR, _HOUR, _HOUR), (-_HOUR, -_HOUR, -_HOUR), (_HOUR, -_HOUR, _HOUR)):
        for name, skew in (("worker1", worker), ("web1", web), ("beat1", beat)):
            _restart(scene, name, library, skew)
            scene.did(f"{name} {'an hour ahead' if skew > 0 else 'an hour behind'}")
        if not scene.pause(part - 1):
            return


def _restart(scene: Scene, name: str, library: str, skew: int) -> None:
    """A clock that is wrong, not one that jumps: what measures durations is left alone."""
    environment = {"LD_PRELOAD": library, "FAKETIME": f"{skew:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    supervisor = scene.rig.supervisor
    supervisor.replace(name, lambda: scene.rig.spawn(name, **environment))
    supervisor.kill(name)


def _verify(scene: Scene) -> None:
    """No time in any row is an hour off: all of them are the database's."""
    with scene.rig.database() as connection:
        row = connection.execute(
            """SELECT count(*) FROM agent_jobs_job WHERE abs(extract(epoch FROM updated_at - now())) > 1800
               OR started_at > now() OR finished_at > now() OR created_at > now() OR lease_until > now() + '1 min'"""
        ).fetchone()
        skewed = connection.execute(
            "SELECT count(*) FROM agent_jobs_workerprocess WHERE name LIKE 'worker1@%' AND worked_at IS NOT NULL"
        ).fetchone()
    if row and row[0]:
        scene.breaks(f"{row[0]} jobs have a time of a wrong clock")
    if not skewed or skewed[0] < 2:
        scene.breaks("the worker with the wrong clock did not work: the run was too short to show anything")


E9 = Experiment(
    "E9",
    "clocks an hour wrong on one worker, one web and one beat",
    "I1 I10 I17",
    _harm,
    # The three are killed to be started with another clock, and start slowly.
    rules=Rules(start_slack=10.0),
    verify=_verify,
    missing=_missing,
)
