"""E11: a rolling deploy: every process in turn is asked to stop, ends, and is started anew, under load."""

import os
import signal
import time
from contextlib import suppress
from typing import Any

from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.chaos.stage import Experiment, Scene
from tests.waiting import wait_for

_STOP_SECONDS = 20.0


class BalancedLoad(Load):
    """Its requests go to the webs themselves: where one takes no connection, to the next, as behind any balancer."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        super().__init__(rig, **options)
        self.client.ports = rig.web_ports


def _roll(scene: Scene) -> None:
    """One after the other, each only when the one before is up again; the order is drawn anew each round."""
    rig = scene.rig
    while True:
        names = [*rig.webs, *rig.workers, *rig.beats]
        scene.rng.shuffle(names)
        for name in names:
            if not scene.pause(1.0):
                return
            _restart(scene, name)


def _restart(scene: Scene, name: str) -> None:
    supervisor = scene.rig.supervisor
    pid = supervisor.pid(name)
    if pid is None:
        return
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)  # to the process itself, which sees to its own
    try:
        supervisor.wait_ended(name, pid, seconds=_STOP_SECONDS)
    except AssertionError:
        scene.breaks(f"{name} did not end within {_STOP_SECONDS:g} s after a TERM")
        supervisor.kill(name)
        supervisor.wait_ended(name, pid)
    ended_at = time.time()
    scene.did(f"restart of a {name.rstrip('0123456789')}")
    took = time.monotonic() - began
    if took > 15:
        scene.did("restart that took more than 15 s")
    wait_for(lambda: supervisor.pid(name), seconds=10, what=f"{name} is started")
    if name in scene.rig.webs:
        wait_for(lambda: scene.rig.answers(name), seconds=60, what=f"{name} answers")
    elif name in scene.rig.workers:
        wait_for(lambda: _is_registered(scene, name), seconds=60, what=f"{name} takes work")
    else:
        # The first thing that a beat does is to write down what it rings for.
        wait_for(lambda: _written_at(scene, name) > ended_at, seconds=60, what=f"{name} rings")


def _written_at(scene: Scene, beat: str) -> float:
    times = []
    for file in scene.rig.home.glob(f"{beat}-schedule*"):
        with suppress(FileNotFoundError):  # it is being replaced
            times.append(file.stat().st_mtime)
    return max(times, default=0.0)


def _is_registered(scene: Scene, worker: str) -> bool:
    pid = scene.rig.supervisor.pid(worker)
    with scene.rig.database() as connection:
        found = connection.execute(
            "SELECT 1 FROM agent_jobs_workerprocess WHERE name LIKE %s AND lost_at IS NULL", [f"{worker}@%:{pid}"]
        )
        return found.fetchone() is not None


def _verify(scene: Scene) -> None:
    """Nobody is refused, and nobody left without an answer."""
    refused = [
        f"{job.name}: {attempt.status} after {attempt.seconds:.3f} s"
        for job in scene.load.ledger()
        for attempt in (*job.tries, *job.cancels)
        if attempt.status is None or attempt.status >= 429
    ]
    for refusal in refused[:5]:
        scene.breaks(f"a request was refused: {refusal}")
    with scene.rig.database() as connection:
        crashed = connection.execute(
            "SELECT count(DISTINCT job_id) FROM agent_jobs_activity"
            " WHERE code = 'job.taken_back' AND note LIKE '%its worker was lost%'"
        ).fetchone()
    if crashed and crashed[0]:
        scene.breaks(f"{crashed[0]} jobs were taken for crashed, though every worker was asked to stop")


E11 = Experiment(
    "E11",
    "rolling restarts by TERM of webs, workers and beats, under load",
    "I1 I2 I6 I16",
    _roll,
    make_load=BalancedLoad,
    environment={"AGENT_JOBS_STOP_GRACE_SECONDS": "8"},
    verify=_verify,
)
