"""E18 to E20: schedules with webhook, command and external jobs under the faults of E1 and E5, of E4 and of E13."""

import time

from tests.chaos.checker import Rules
from tests.chaos.experiments import beats, clients, postgres, processes
from tests.chaos.stage import Experiment, Scene

# The faults of E5 take this share of the time. Those of E1 follow, because their backlog would make E5's jobs late.
_BEATS_SHARE = 0.6
# The base's jobs only keep the processes busy.
_CALM = {"rate": 2.0, "delayed": 0.0}


def _kill_beats_and_workers(scene: Scene) -> None:
    part = scene.act(scene.seconds * _BEATS_SHARE)
    beats.harm_beats(part)
    scene.rules = part.rules
    processes.kill_processes(scene)


def _drop_requests(scene: Scene) -> None:
    began = time.time()
    clients.watch_drops(scene)
    beats.is_punctual(scene, began, time.time())


E18 = Experiment(
    "E18",
    "schedules: beats killed as in E5, then workers, webs and beats as in E1",
    "I1 I2 I5 I9 I10 I12",
    _kill_beats_and_workers,
    rules=Rules(start_slack=None),
    rig={"beats": 4},
    load={**_CALM, "scheduled": 0.3},
    recurring={},
)
E19 = Experiment(
    "E19",
    "schedules: PostgreSQL restarted, sessions terminated, black hole, as in E4",
    "I1 I2 I5 I9 I12",
    postgres.harm_database,
    rules=Rules(start_slack=None),
    load=_CALM,
    recurring={},
    latest_firing=5.0,
)
E20 = Experiment(
    "E20",
    "schedules: clients and executors drop their connections as in E13, executors die and report twice",
    "I1 I2 I3 I5 I9 I12",
    _drop_requests,
    make_load=clients.RudeLoad,
    load={**_CALM, "dropped": 0.5, "scheduled": 0.0, "rate": 4.0},
    verify=clients.verify_drops,
    recurring={"dropped": 0.4},
)
