"""Executors: threads that claim external jobs over HTTP and report them, as outside programs of any quality would.

Most complete what they claim. Some forget a job, some report after their lease has lapsed, some report twice at once,
some fail or release it. With `dropped`, a share of their requests ends at a random byte. A report is repeated until its
answer is final.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.client import Answer, Client
from tests.chaos.recurring_ledgers import Claimed, Told
from tests.chaos.rude_client import RudeClient

# What an executor does with a job that it has claimed, and how often.
MANNERS: Mapping[str, float] = {
    "completes": 0.68,
    "reports twice": 0.1,
    "fails": 0.08,
    "dies": 0.06,
    "reports late": 0.04,
    "releases": 0.04,
}
_CLAIM = "/services/executors/claim"
_HEARTBEAT_SECONDS = 0.5
_AGAIN_SECONDS = 0.5
_WAIT_SECONDS = 2
# A claim whose answer is lost holds a job until its lease lapses, so fewer of them are dropped than of the reports.
_CLAIMS_DROPPED = 0.25


@dataclass(frozen=True)
class _Held:
    job_id: str
    token: int
    executor_id: str
    lease_seconds: float


class ExecutorThreads:
    """`count` executors, each a thread. `mannered` counts what they did; failures of the harness are in `failures`."""

    def __init__(
        self, client: Client, *, count: int, rng: random.Random, dropped: float = 0.0, most_seconds: float = 1.2
    ) -> None:
        self.claims: list[Claimed] = []
        self.told: list[Told] = []
        self.mannered: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._client = client
        self._dropped = dropped
        self._most_seconds = most_seconds
        self._rng = rng
        self._rude = RudeClient(client, random.Random(rng.random()))
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._in_hand = 0
        names = [f"executor-{number + 1}" for number in range(count)]
        self._threads = [threading.Thread(target=self._serve, args=(name,), name=name, daemon=True) for name in names]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(15)

    @property
    def in_hand(self) -> int:
        """Jobs that an executor works on, or about which it waits for an answer."""
        return self._in_hand

    def _serve(self, executor_id: str) -> None:
        try:
            while not self._over.is_set():
                for held in self._claim(executor_id):
                    with self._lock:
                        self._in_hand += 1
                    try:
                        self._perform(held)
                    finally:
                        with self._lock:
                            self._in_hand -= 1
        except BaseException as error:
            self.failures.append(error)

    # --- Claims ------------------------------------------------------------------------------------------------
    def _claim(self, executor_id: str) -> Sequence[_Held]:
        body = {"executor_id": executor_id, "max_jobs": 1 + (self._draw() < 0.2), "wait": _WAIT_SECONDS}
        if self._draw() < self._dropped * _CLAIMS_DROPPED:
            what, _ = self._rude.drop(_CLAIM, body)
            self._count(f"claim {what}")
            return ()
        answer = self._client.request("POST", _CLAIM, body)
        self._count(f"claim {answer.status}")
        if answer.status != 200:
            if answer.status != 204:
                self._over.wait(_AGAIN_SECONDS)
            return ()
        answered_at = time.time()
        found = [_Held(job["job_id"], job["lease_token"], executor_id, job["lease_seconds"]) for job in _jobs(answer)]
        with self._lock:
            self.claims += [Claimed(held.job_id, held.token, executor_id, answered_at) for held in found]
        return found

    # --- Attempts ----------------------------------------------------------------------------------------------
    def _perform(self, held: _Held) -> None:
        with self._lock:
            (manner,) = self._rng.choices(list(MANNERS), list(MANNERS.values()))
            seconds = self._rng.uniform(0, self._most_seconds)
            self.mannered[manner] += 1
        if manner == "dies":
            return
        if manner == "reports late":
            self._over.wait(held.lease_seconds + seconds + 1)
        elif not self._work(held, seconds):
            return
        match manner:
            case "fails":
                self._report(held, "fail", error_message="as the test wants it")
            case "releases":
                self._report(held, "release", reason="as the test wants it")
            case "reports twice":
                second = threading.Thread(target=self._complete, args=(held, "second"), daemon=True)
                second.start()
                self._complete(held, "first")
                second.join()
            case _:
                self._complete(held, "only")

    def _work(self, held: _Held, seconds: float) -> bool:
        """Work with heartbeats. False if the job was canceled or lost meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._over.wait(min(left, _HEARTBEAT_SECONDS)):
            said = self._tell(held, "heartbeat", {"progress_message": "goes on"})
            if said.is_canceled or said.status == 409:
                return False
        return True

    def _complete(self, held: _Held, which: str) -> None:
        mark = f"{held.executor_id}/{held.token}/{which}"
        self._report(held, "complete", result_data={"mark": mark}, mark=mark)

    def _report(self, held: _Held, verb: str, *, mark: str = "", **fields: Any) -> None:
        while not self._tell_is_final(held, verb, fields, mark) and not self._over.wait(_AGAIN_SECONDS):
            pass

    def _tell_is_final(self, held: _Held, verb: str, fields: Mapping[str, Any], mark: str) -> bool:
        said = self._tell(held, verb, fields, mark)
        return said.status is not None and said.status < 500

    def _tell(self, held: _Held, verb: str, fields: Mapping[str, Any], mark: str = "") -> Told:
        path = f"/services/executors/jobs/{held.job_id}/{verb}"
        body = {"executor_id": held.executor_id, "lease_token": held.token, **fields}
        if self._draw() < self._dropped:
            what, answer = self._rude.drop(path, body, method="PUT")
            self._count(f"{verb} {what}")
        else:
            answer = self._client.request("PUT", path, body)
            self._count(f"{verb} {answer.status} {answer.body.get('code', '')}".strip())
        shown = answer.body.get("data") or {}
        told = Told(
            held.job_id,
            held.token,
            held.executor_id,
            verb,
            answer.at,
            answer.status,
            str(answer.body.get("code", "")),
            bool(shown.get("is_canceled")),
            mark,
        )
        with self._lock:
            self.told.append(told)
        return told

    def _draw(self) -> float:
        with self._lock:
            return self._rng.random()

    def _count(self, what: str) -> None:
        with self._lock:
            self.answers[what] += 1


def _jobs(answer: Answer) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = answer.body["data"]
    return found
