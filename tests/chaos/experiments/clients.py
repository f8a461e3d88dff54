"""E13: clients that drop their connection at a random byte of request or answer, and repeat with their key."""

import random
from typing import Any

from tests.chaos.load import Asked, Load
from tests.chaos.rig import Rig
from tests.chaos.rude_client import RudeClient
from tests.chaos.stage import Experiment, Scene


class RudeLoad(Load):
    """Half of the requests that make a job are dropped, some more than once, before one is waited for."""

    def __init__(self, rig: Rig, *, dropped: float, **options: Any) -> None:
        super().__init__(rig, **options)
        self.dropped = dropped
        self._rudeness = random.Random(self.rng.random())
        self._rude = RudeClient(self.client, random.Random(self.rng.random()))
        self.refused_keys = 0

    def _post(self, asked: Asked) -> None:
        with self._lock:
            is_dropped = self._rudeness.random() < self.dropped and len(asked.tries) < 5
            again_after = self._rudeness.choice([0.0, 0.01, 0.3])
        if not is_dropped:
            super()._post(asked)
            return
        what, answer = self._rude.drop(asked.path, asked.body, key=asked.name)
        with self._lock:
            asked.tries.append(answer.as_try)
            self.answers[what] += 1
        self.agenda.after(again_after, lambda: self._post(asked))


def watch_drops(scene: Scene) -> None:
    while scene.pause(0.5):
        dropped = {name: times for name, times in list(scene.load.answers.items()) if name.startswith("dropped")}
        scene.faults["request dropped"] = sum(dropped.values())


def verify_drops(scene: Scene) -> None:
    """Besides the ledgers: every kind of drop has happened."""
    for where in ("the answer", "the body", "the head"):
        if not any(name.startswith(f"dropped in {where}") for name in scene.load.answers):
            scene.breaks(f"nothing was dropped in {where}: the run was too short to show anything")


E13 = Experiment(
    "E13",
    "the client drops its connection at a random byte and repeats with its key",
    "I3 I4",
    watch_drops,
    make_load=RudeLoad,
    load={"dropped": 0.5, "scheduled": 0.0, "delayed": 0.0},
    verify=verify_drops,
)
