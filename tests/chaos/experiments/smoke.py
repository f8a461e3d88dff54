"""E1, E3, E6 and E8 for a short while each, one after the other on one rig: what every change has to pass."""

from tests.chaos.checker import Rules
from tests.chaos.experiments import poison, processes, redis, slack
from tests.chaos.stage import Experiment, Scene

# Shares of the whole time.
_PARTS = ((processes.E1, 0.25), (redis.E3, 0.35), (slack.E6, 0.2), (poison.E8, 0.2))
_NEVER = 1_000_000_000


def _each_in_turn(scene: Scene) -> None:
    load = scene.load
    assert isinstance(load, poison.PoisonedLoad)
    often, load.every = load.every, _NEVER
    for part, share in _PARTS:
        if part is poison.E8:
            load.every = often
        part.inject(scene.act(scene.seconds * share))
        scene.rig.mend()


SMOKE = Experiment(
    "SMOKE",
    "E1, E3, E6 and E8 in turn, without their promises of time: a machine that builds is busy",
    "I1 I2 I5 I6 I7 I11",
    _each_in_turn,
    rules=Rules(start_slack=None, cancel_seconds=10.0),
    environment=poison.E8.environment,
    make_load=poison.E8.make_load,
    load={"every": 20, "rate": 10.0},
    verify=poison.E8.verify,
    # How long the harness waits, not what is promised.
    quiet_seconds=300,
)
