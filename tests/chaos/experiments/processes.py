"""E1 and E2: processes that die, and processes that stop in the middle of something and go on later."""

import signal
import threading

from tests.chaos.agents import AgentLoad
from tests.chaos.checker import Rules
from tests.chaos.experiments import places
from tests.chaos.stage import Experiment, Scene

_STOPPED_SECONDS = 4.0
# Here a worker lives for seconds, and the first turn of a hosted model in each life reads packages for two: of more
# agents, a small machine would do nothing else.
_AGENTS = {"agents": 1 / 24}


def kill_processes(scene: Scene) -> None:
    """Every 0.3-0.8 s one that works. The last of them is mostly spared: on few cores a worker takes seconds to start,
    and a service in which nobody ever works would show nothing."""
    supervisor = scene.rig.supervisor

    def killer(fault: str) -> places.Aim:
        def hit(worker: str) -> bool:
            if _is_spared(scene, worker) or not supervisor.kill(worker):
                return False
            scene.did(fault)
            return True

        aim = places.before_mark if fault.endswith("mark") else places.before_send
        return aim(scene, hit)

    aims = [killer("worker killed between send and mark"), killer("worker killed between claim and send")]
    while scene.pause(scene.rng.uniform(0.3, 0.8)):
        kind = scene.rng.random()
        if kind < 0.05:
            _kill_one(scene, "web", scene.rig.webs)
        elif kind < 0.10:
            _kill_one(scene, "beat", scene.rig.beats)
        elif kind < 0.40:
            scene.rng.choice(aims).arm()
        else:
            victims = [worker for worker in places.working(scene) if not _is_spared(scene, worker)]
            if victims:
                _kill_one(scene, "worker", victims)


def _is_spared(scene: Scene, worker: str) -> bool:
    return scene.rng.random() < 0.9 and not set(places.working(scene)) - {worker}


def _kill_one(scene: Scene, kind: str, names: list[str]) -> None:
    if scene.rig.supervisor.kill(scene.rng.choice(names)):
        scene.did(f"{kind} killed")


E1 = Experiment(
    "E1",
    "kill -9 of workers, webs and beats, some between claim, send and mark",
    "I1 I2 I5 I6",
    kill_processes,
    # Whoever starts a killed process again takes some seconds for it: nothing is promised about a start meanwhile.
    make_load=AgentLoad,
    load=_AGENTS,
    rules=Rules(start_slack=None),
)


def _stop(scene: Scene) -> None:
    supervisor = scene.rig.supervisor
    stopped: set[str] = set()

    def stopper(fault: str) -> places.Aim:
        def hit(worker: str) -> bool:
            if len(stopped) > 1 or worker in stopped or not supervisor.send(worker, signal.SIGSTOP):
                return False
            stopped.add(worker)
            scene.did(fault)
            timer = threading.Timer(_STOPPED_SECONDS, go_on, [worker])
            timer.daemon = True
            timer.start()
            return True

        aim = places.before_mark if fault.endswith("mark") else places.before_send
        return aim(scene, hit)

    def go_on(worker: str) -> None:
        stopped.discard(worker)
        supervisor.send(worker, signal.SIGCONT)

    claimed = stopper("worker stopped 4 s between claim and send")
    posted = stopper("worker stopped 4 s between send and mark")
    while scene.pause(scene.rng.uniform(0.5, 1.5)):
        (claimed if scene.rng.random() < 0.75 else posted).arm()


E2 = Experiment(
    "E2",
    "SIGSTOP for 4 s between claim and send, longer than a lease, and SIGCONT",
    "I5 I6",
    _stop,
    make_load=AgentLoad,
    load=_AGENTS,
    rules=Rules(start_slack=None),
    environment={
        # Shorter than the stop, so that whoever goes on has lost what it held.
        "TEST_LEASE_SECONDS": "3",
        # Longer than the stop: the published window is a stop in front of the socket that outlasts the grace.
        "TEST_DELIVERY_GRACE_SECONDS": "8",
    },
)
