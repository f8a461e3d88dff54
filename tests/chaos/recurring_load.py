"""Schedules and the jobs that they make: a second load beside the first, in an organisation of its own.

Twelve schedules with periods of one to three seconds and every overlap policy make webhook, command and external jobs.
The other sides of these jobs note what reaches them (`recurring_targets`, `executor_threads`). Now and then a client
cancels a job. `recurring_checker` holds all of it against the promises.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from infra import commands
from tests.chaos import recurring_rows
from tests.chaos.client import Client
from tests.chaos.executor_threads import ExecutorThreads
from tests.chaos.ledgers import Try
from tests.chaos.recurring_ledgers import RecurringLedger, Timetable, Withdrawn
from tests.chaos.recurring_targets import HookReceiver, SignServer
from tests.chaos.rig import Rig
from tests.waiting import PAUSE

RECURRING_ORG = "clockwork"
_TEAM = "T0CLOCK"
# From the making of the schedules to their first time.
_LEAD_SECONDS = 3
_AGAIN_SECONDS = 0.5
_MOST_TRIES = 200
_RETRIES = {"max_attempts": 10, "initial_interval_seconds": 0.3, "max_interval_seconds": 2, "multiplier": 1.5}
_RUNNERS = ("webhook", "command", "external")


@dataclass(frozen=True)
class _Ticking:
    """One schedule: its timing, overlap policy, and the work of its jobs. `by_cron`: stated as cron expression."""

    name: str
    kind: str
    every: int
    overlap: str
    weight: int = 0
    jitter_seconds: int = 0
    by_cron: bool = False

    def timing(self) -> Mapping[str, Any]:
        return {"cron": f"*/{self.every} * * * * *"} if self.by_cron else {"every_seconds": self.every}

    def times(self, first: int, last: int) -> tuple[float, ...]:
        """Its due times from `first` to `last`, both included; cron counts from the full minute."""
        if self.by_cron:
            return tuple(float(at) for at in range(first, last + 1) if at % 60 % self.every == 0)
        return tuple(float(at) for at in range(first, last + 1, self.every))


# `weight`: for webhooks, whether the receiver is slow; for commands, how many lines they send, four a second.
SCHEDULES = (
    _Ticking("hooks", "webhook", 1, "allow"),
    _Ticking("hooks by cron", "webhook", 2, "allow", by_cron=True),
    _Ticking("hooks with jitter", "webhook", 2, "allow", jitter_seconds=3),
    _Ticking("hooks one at a time", "webhook", 1, "forbid", weight=1),
    _Ticking("hooks one waits", "webhook", 2, "queue_one", weight=1),
    _Ticking("commands", "command", 3, "allow", weight=1),
    _Ticking("commands one at a time", "command", 2, "forbid", weight=10),
    _Ticking("commands replaced", "command", 3, "replace", weight=14, by_cron=True),
    _Ticking("executors", "external", 1, "allow"),
    _Ticking("executors one at a time", "external", 1, "forbid"),
    _Ticking("executors one waits", "external", 2, "queue_one"),
    _Ticking("executors replaced", "external", 2, "replace"),
)


@cache
def command_mode() -> commands.Mode:
    """The sandbox if this machine has one."""
    return commands.Mode.SANDBOX if commands.probe(commands.Mode.SANDBOX).ok else commands.Mode.TRUSTED


def environment() -> Mapping[str, str]:
    """Environment variables for the processes of the rig."""
    return {"COMMAND_RUNNER": str(command_mode())}


class RecurringLoad:
    """`dropped`: the share of the executors' requests that end at a random byte. `cancels`: seconds between two."""

    def __init__(
        self,
        rig: Rig,
        *,
        rng: random.Random,
        seconds: float,
        executors: int = 5,
        dropped: float = 0.0,
        cancels: float = 1.5,
    ) -> None:
        self.rig = rig
        self.seconds = seconds
        self.answers: Counter[str] = Counter()
        self.timetables: list[Timetable] = []
        self.withdrawn: list[Withdrawn] = []
        self._cancels = cancels
        self._rng = rng
        self._canceler = threading.Thread(target=self._cancel_some, name="canceler", daemon=True)
        self._has_stopped = threading.Event()
        self._failures: list[BaseException] = []
        rig.add_org(RECURRING_ORG, team=_TEAM)
        rig.manage("allow_commands", RECURRING_ORG, "--network")
        self.client = rig.client(RECURRING_ORG)
        scope = ("--scope", "SERVICES:EXECUTE", "--name", "chaos-executors")
        token = rig.manage("create_token", "--org", RECURRING_ORG, *scope).strip()
        self.hooks = HookReceiver(random.Random(rng.random()))
        self.signs = SignServer()
        self.executors = ExecutorThreads(
            Client(self.client.ports, token), count=executors, rng=random.Random(rng.random()), dropped=dropped
        )

    # --- Life --------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """The job types and schedules, with equal bounds: a few seconds from now, and the end of the faults."""
        for runner in _RUNNERS:
            config = {"retry_policy": _RETRIES, "attempt_timeout_seconds": 20}
            body = {"id": runner, "name": runner.title(), "runner": runner, "default_config": config}
            self.client.ok("POST", f"/services/organizations/{RECURRING_ORG}/agent-jobs-type", body)
        with self.rig.database() as connection:
            recurring_rows.watch(connection)
        first = math.ceil(time.time()) + _LEAD_SECONDS
        last = first + max(1, math.floor(self.seconds) - _LEAD_SECONDS)
        for ticking in SCHEDULES:
            body = {
                "name": ticking.name,
                **ticking.timing(),
                "starts_at": _stamp(first),
                "ends_at": _stamp(last),
                "overlap": ticking.overlap,
                "jitter_seconds": ticking.jitter_seconds,
                "misfire": {"policy": "run_all"},
                "job": {"job_type_id": ticking.kind, "tags": [ticking.name], "work": self._work(ticking)},
            }
            made = self.client.ok("POST", "/services/agent-schedules", body)["data"]
            times = ticking.times(first, last)
            self.timetables.append(
                Timetable(made["id"], ticking.name, ticking.kind, ticking.overlap, times, ticking.jitter_seconds)
            )
        assert time.time() < first, "the machine took too long to make the schedules"

    def start(self) -> None:
        self.executors.start()
        self._canceler.start()

    def stop(self) -> None:
        """No new cancels. The schedules have ended by themselves; executors go on until all jobs have ended."""
        self._has_stopped.set()

    def close(self) -> None:
        self._has_stopped.set()
        self.executors.close()
        self.hooks.close()
        self.signs.close()

    @property
    def unanswered(self) -> int:
        """Calls of executors and cancels that have no final answer."""
        return self.executors.in_hand + self._canceler.is_alive()

    @property
    def failures(self) -> list[BaseException]:
        return [*self._failures, *self.executors.failures]

    def ledger(self) -> RecurringLedger:
        with self.rig.database() as connection:
            return RecurringLedger(
                timetables=tuple(self.timetables),
                fired=tuple(recurring_rows.fired(connection, RECURRING_ORG)),
                jobs=tuple(recurring_rows.made_jobs(connection, RECURRING_ORG)),
                arrivals=tuple(self.hooks.arrivals),
                signs=tuple(self.signs.signs),
                claims=tuple(self.executors.claims),
                told=tuple(self.executors.told),
                withdrawn=tuple(self.withdrawn),
            )

    def _work(self, ticking: _Ticking) -> Mapping[str, Any]:
        match ticking.kind:
            case "webhook":
                return {"url": f"{self.hooks.address}/{'slow' if ticking.weight else 'quick'}", "body": {"a": "b"}}
            case "command":
                return self.signs.work(lines=ticking.weight)
        return {"arguments": [ticking.name]}

    # --- Cancels -----------------------------------------------------------------------------------------------
    def _cancel_some(self) -> None:
        try:
            while not self._has_stopped.wait(self._rng.expovariate(1 / self._cancels)):
                path = "/services/agent-jobs?status=RUNNING&status=WAITING&limit=100"
                answer = self.client.request("GET", path)
                if answer.status == 200 and answer.body["data"]:
                    self._cancel(str(self._rng.choice(answer.body["data"])["job_id"]))
        except BaseException as error:
            self._failures.append(error)

    def _cancel(self, job_id: str) -> None:
        """Until the answer is final, also after `stop`."""
        tries: list[Try] = []
        while True:
            answer = self.client.request("DELETE", f"/services/agent-jobs/{job_id}")
            tries.append(answer.as_try)
            self.answers[f"DELETE {answer.status}"] += 1
            if answer.is_final or len(tries) >= _MOST_TRIES:
                break
            PAUSE.wait(_AGAIN_SECONDS)
        self.withdrawn.append(Withdrawn(job_id, tuple(tries)))


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
