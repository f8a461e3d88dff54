"""E5: beats that die, are all gone for half a minute, and are two and four."""

import time
from dataclasses import replace

from tests.chaos.checker import Rules, Window
from tests.chaos.stage import Experiment, Scene
from tests.waiting import wait_for

_NONE_SECONDS = 30.0
_TICK_SECONDS = 1.0
_UP_SECONDS = 15.0


def harm_beats(scene: Scene) -> None:
    """Four phases: killed all the time but for one; none at all; two; four. What falls due is late only in the second.

    Which beat is spared changes, but never to one that has only just been started.
    """
    beats, supervisor = scene.rig.beats, scene.rig.supervisor
    part = (scene.seconds - _NONE_SECONDS) / 3
    began = time.time()
    spared, spared_at = beats[0], time.monotonic()
    hunted: set[str] = set(beats[1:])
    while time.time() < began + part and scene.pause(0.4):
        if time.monotonic() > spared_at + _UP_SECONDS:
            # The next one is left in peace for a while before the old one loses its protection.
            spared, spared_at = _next_spared(scene, spared), time.monotonic()
            hunted = set(beats) - {spared}
        if supervisor.kill(scene.rng.choice(sorted(hunted))):
            scene.did("beat killed")
    # What falls due in a beat's last second waits for the bell that it will not ring any more.
    gone_at = time.time() - _TICK_SECONDS
    is_punctual(scene, began, gone_at)

    for beat in beats:
        supervisor.hold(beat)
        supervisor.kill(beat)
    scene.did("no beat for 30 s")
    scene.pause(_NONE_SECONDS)
    supervisor.release(beats[0])
    supervisor.release(beats[1])
    _wait_promoted(scene)
    back_at = time.time()
    windows = (*scene.rules.due_by, Window(gone_at, back_at, by=back_at + 2))
    scene.rules = replace(scene.rules, due_by=windows)
    scene.did("two beats at once")
    scene.pause(part)
    is_punctual(scene, back_at, time.time())

    four_at = time.time()
    for beat in beats:
        supervisor.release(beat)
    scene.did("four beats at once")
    while scene.pause(1):
        pass
    is_punctual(scene, four_at, time.time())


def _next_spared(scene: Scene, spared: str) -> str:
    chosen = scene.rng.choice([beat for beat in scene.rig.beats if beat != spared])
    pid = scene.rig.supervisor.pid(chosen)
    calm_until = time.monotonic() + 5
    while (time.monotonic() < calm_until or scene.rig.supervisor.pid(chosen) != pid) and scene.pause(0.4):
        pid = scene.rig.supervisor.pid(chosen)
        others = [beat for beat in scene.rig.beats if beat not in (spared, chosen)]
        if scene.rig.supervisor.kill(scene.rng.choice(others)):
            scene.did("beat killed")
    return chosen


def is_punctual(scene: Scene, since: float, until: float) -> None:
    """Jobs that fell due meanwhile must have started at once, because a beat was alive."""
    scene.rules = replace(scene.rules, punctual=(*scene.rules.punctual, Window(since, until)))


def _wait_promoted(scene: Scene) -> None:
    """Until the first bell of a beat was answered."""
    since = time.time()
    with scene.rig.database() as connection:

        def is_promoted() -> bool:
            done = connection.execute(
                "SELECT 1 FROM agent_jobs_dutyrun WHERE duty = 'promote' AND extract(epoch FROM done_at) > %s", [since]
            )
            return done.fetchone() is not None

        wait_for(is_promoted, what="a beat rings again")


E5 = Experiment(
    "E5",
    "beats killed every 0.4 s; none for 30 s; two; four",
    "I9 I10",
    harm_beats,
    # Without a beat nothing starts: how late each window may be is told by the phases.
    rules=Rules(start_slack=None),
    rig={"beats": 4},
    load={"rate": 6.0, "scheduled": 0.75, "delayed": 0.15},
)
