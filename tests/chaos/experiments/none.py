"""E0: no faults. What the figures of the others are to be compared with."""

from tests.chaos.stage import Experiment, Scene


def _nothing(scene: Scene) -> None:
    while scene.pause(1):
        pass


E0 = Experiment("E0", "no faults", "I1 I2 I6 I7 I8 I10", _nothing)
