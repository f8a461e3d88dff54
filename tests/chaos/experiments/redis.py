"""E3: the doorbell is emptied, killed, and full. Nothing but a second may be lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import redis

from tests.chaos.checker import Rules, Spread, Window
from tests.chaos.stage import Experiment, Scene
from tests.waiting import wait_for

_OUTAGE_SECONDS = 20.0
# Promise I14: what was posted meanwhile starts this soon after Redis is back.
_START_SECONDS = 2.0
_POST_SECONDS = 0.5


def _harm(scene: Scene) -> None:
    """FLUSHALL every 10 s; and in turn: killed for 20 s, full for 20 s. Shorter in a short run."""
    outage = min(_OUTAGE_SECONDS, scene.seconds / 4)
    faults = [_kill, _fill]
    while scene.pause(outage / 2):
        _flush(scene)
        if not scene.pause(outage / 2):
            break
        fault = faults.pop(0)
        faults.append(fault)
        fault(scene, outage)


def _flush(scene: Scene) -> None:
    with scene.rig.redis() as client:
        client.flushall()
    scene.did("FLUSHALL")


def _kill(scene: Scene, seconds: float) -> None:
    supervisor = scene.rig.supervisor
    with _promised(scene):
        supervisor.hold("redis")
        supervisor.kill("redis")
        scene.did(f"Redis killed for {seconds:.0f} s")
        scene.pause(seconds)
        supervisor.release("redis")
        wait_for(scene.rig.redis_server.is_ready, what="Redis answers")


def _fill(scene: Scene, seconds: float) -> None:
    with _promised(scene), scene.rig.redis() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        scene.did(f"Redis full for {seconds:.0f} s")
        scene.pause(seconds)
        try:
            client.set("chaos", "x")
            scene.breaks("Redis was not full: it took a write")
        except redis.ResponseError:
            pass
        client.config_set("maxmemory", "0")


@contextmanager
def _promised(scene: Scene) -> Iterator[None]:
    """201 in under 500 ms meanwhile, and what was posted meanwhile has started 2 s after.

    The 500 ms are counted from what a request that needs neither Redis nor the database takes at the same time: on a
    machine that is busy with something else, that alone can be as much.
    """
    began, is_over = time.time(), threading.Event()
    control: list[float] = []

    def look() -> None:
        while not is_over.wait(0.1):
            control.append(scene.load.client.request("GET", "/health/live").seconds)

    looking = threading.Thread(target=look, name="control", daemon=True)
    looking.start()
    yield
    now = time.time()
    is_over.set()
    looking.join(30)
    busy = Spread.of(control).max
    window = Window(began, now, by=now + _START_SECONDS)
    rules = scene.rules
    scene.rules = replace(
        rules,
        quick=(*rules.quick, window),
        started=(*rules.started, window),
        quick_seconds=max(rules.quick_seconds, _POST_SECONDS + busy),
    )
    scene.faults["(ms that a control request took at most)"] = int(1000 * (scene.rules.quick_seconds - _POST_SECONDS))


E3 = Experiment(
    "E3",
    "Redis: FLUSHALL every 10 s, killed for 20 s, full for 20 s",
    "I1 I14",
    _harm,
    # While nobody can ring, nothing starts: what is promised is how soon afterwards.
    rules=Rules(start_slack=None),
)
