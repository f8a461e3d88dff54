"""E16: bad lines to the database and to Redis: slow, breaking, and then dead without a word."""

from tests.chaos.checker import Rules
from tests.chaos.stage import Experiment, Scene

_SILENT_SECONDS = 60.0


def _harm(scene: Scene) -> None:
    """For the first half 200 ms a round trip and 5 % resets; then all connections of that moment fall silent."""
    links = [scene.rig.links[name] for name in ("postgres", "redis")]
    silent = min(_SILENT_SECONDS, scene.seconds / 2)
    for link in links:
        link.set(latency=0.2, resets=0.05)
    scene.did("200 ms and 5 % resets")
    while scene.elapsed < scene.seconds - silent and scene.pause(0.5):
        pass
    for link in links:
        scene.did("connection reset", link.counts().resets)
        link.set(latency=0.0, resets=0.0)
        scene.did(f"connection silent for {silent:.0f} s", link.half_open())
    while scene.pause(1):
        pass


E16 = Experiment(
    "E16",
    "200 ms and 5 % resets on the links to database and Redis, then half-open connections for 60 s",
    "I1",
    _harm,
    rules=Rules(start_slack=None),
    # A POST is some ten round trips, a delivery as many: this is what such a line can carry.
    load={"rate": 5.0},
)
