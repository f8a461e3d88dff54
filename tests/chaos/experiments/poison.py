"""E8: jobs that kill, crash, eat, loop, freeze and swell their workers, among others that do not."""

import random
from typing import Any

from tests.chaos.checker import Rules
from tests.chaos.load import Asked, Load
from tests.chaos.rig import TEAM, Rig
from tests.chaos.stage import Experiment, Scene

# What becomes of each; every one is FAILED.
_ENDS = {
    "kill": {"worker_lost"},
    "segfault": {"worker_lost"},
    "memory": {"out_of_memory"},
    "loop": {"deadline_exceeded"},
    "hold": {"deadline_exceeded", "worker_lost", "turn_timeout"},
    "huge": {"result_too_large"},
    "exit": {"runner_error"},
    "circle": {"invalid_result"},
}
_ENDLESS = ("loop", "hold")
_DEADLINE_MINUTES = 0.15
# Three deaths of three workers, each noticed within 5 s, are what a job may at most be held up by others' poison.
_HELD_UP_SECONDS = 15.0


class PoisonedLoad(Load):
    """Every so often one of the jobs is poison; each kind comes once before one comes again."""

    def __init__(self, rig: Rig, *, every: int, **options: Any) -> None:
        super().__init__(rig, **options)
        self.every = every
        self.kinds: dict[str, str] = {}
        self._order = random.Random(self.rng.random())
        self._left: list[str] = []

    def prepare(self) -> None:
        super().prepare()
        body = {"id": "poison", "name": "Poison", "runner": "poison"}
        self.client.ok("POST", f"/services/organizations/{self.org}/agent-jobs-type", body)

    def _new(self) -> Asked:
        asked = super()._new()
        if len(self._asked) % self.every != self.every - 1:
            return asked
        self._left = self._left or self._order.sample(sorted(_ENDS), len(_ENDS))
        kind = self.kinds[asked.name] = self._left.pop()
        body = {
            "job_type_id": "poison",
            "params": {"poison": kind},
            "tags": [asked.name],
            "target_channel": {"org_id": self.org, "platform": "slack", "code": "C0POISON", "data": {"team_id": TEAM}},
        }
        if kind in _ENDLESS:
            body["config"] = {"max_time_to_complete": _DEADLINE_MINUTES}
        return Asked(asked.name, "C0POISON", body)


def _harm(scene: Scene) -> None:
    assert isinstance(scene.load, PoisonedLoad)
    while scene.pause(0.5):
        counted = list(scene.load.kinds.values())
        for kind in set(counted):
            scene.faults[f"poison {kind}"] = counted.count(kind)


def _verify(scene: Scene) -> None:
    load = scene.load
    assert isinstance(load, PoisonedLoad)
    with scene.rig.database() as connection:
        rows = connection.execute("SELECT tags[1], status, error_code, crash_count FROM agent_jobs_job").fetchall()
    for name, status, code, crashes in rows:
        kind = load.kinds.get(name)
        if kind is None:
            if status == "FAILED":
                scene.breaks(f"{name}, which is no poison, FAILED {code} after {crashes} crashes")
        elif status != "FAILED" or code not in _ENDS[kind]:
            scene.breaks(f"{name}: {kind} is {status} {code}, not FAILED {' or '.join(sorted(_ENDS[kind]))}")


E8 = Experiment(
    "E8",
    "poison jobs: kill, segfault, 2 GB, endless loops, 100 MB",
    "I1 I2 I6 I11",
    _harm,
    rules=Rules(start_slack=_HELD_UP_SECONDS, lateness_max={"": _HELD_UP_SECONDS}),
    environment={
        "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
        "AGENT_JOBS_WORKER_MAX_MEMORY_MB": "1024",
        "AGENT_JOBS_STOP_GRACE_SECONDS": "5",
    },
    make_load=PoisonedLoad,
    load={"every": 80},
    verify=_verify,
)
