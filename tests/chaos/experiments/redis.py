"""E3: the doorbell is emptied, killed, and full. Nothing but a second may be lost."""

import time
from dataclasses import replace

import redis

from tests.chaos.checker import Window
from tests.chaos.stage import Experiment, Scene
from tests.live.stack import wait_for

_FLUSH_SECONDS = 10.0
_OUTAGE_SECONDS = 20.0
# Promise I14: what was posted meanwhile starts this soon after Redis is back.
_START_SECONDS = 2.0


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
    began = time.time()
    supervisor.hold("redis")
    supervisor.kill("redis")
    scene.did(f"Redis killed for {seconds:.0f} s")
    scene.pause(seconds)
    supervisor.release("redis")
    wait_for(scene.rig.redis_server.is_ready, seconds=30, what="Redis answers")
    _promise(scene, began)


def _fill(scene: Scene, seconds: float) -> None:
    began = time.time()
    with scene.rig.redis() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        scene.did(f"Redis full for {seconds:.0f} s")
        until = time.monotonic() + seconds
        while time.monotonic() < until and scene.pause(_FLUSH_SECONDS / 4):
            pass
        try:
            client.set("chaos", "x")
            scene.breaks("Redis was not full: it took a write")
        except redis.ResponseError:
            pass
        client.config_set("maxmemory", "0")
    _promise(scene, began)


def _promise(scene: Scene, began: float) -> None:
    """201 in under 500 ms meanwhile, and what was posted meanwhile has started 2 s after."""
    now = time.time()
    window = Window(began, now, by=now + _START_SECONDS)
    rules = scene.rules
    scene.rules = replace(rules, quick=(*rules.quick, window), started=(*rules.started, window))


E3 = Experiment("E3", "Redis: FLUSHALL every 10 s, killed for 20 s, full for 20 s", "I1 I14", _harm)
