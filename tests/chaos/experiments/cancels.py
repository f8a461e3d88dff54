"""E12: twenty DELETEs at once for a job that its worker is just finishing."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.chaos.ledgers import Said
from tests.chaos.load import Asked, Load
from tests.chaos.rig import Rig
from tests.chaos.stage import Experiment, Scene
from tests.fakes.slack import Post

_DELETES = 20


class StormyLoad(Load):
    """Some jobs are deleted by twenty at once, from the moment on at which the person's answer is told."""

    def __init__(self, rig: Rig, *, stormed: float, **options: Any) -> None:
        super().__init__(rig, **options)
        self.stormed = stormed
        self.storms: dict[str, Asked] = {}
        self._when = random.Random(self.rng.random())
        self._clients = ThreadPoolExecutor(_DELETES, "storm")
        self._storming = threading.Lock()

    def _answer_of(self, asked: Asked, post: Post) -> Callable[[], None]:
        answer = super()._answer_of(asked, post)
        if self._when.random() > self.stormed:
            return answer
        wait = self._when.uniform(0, 1.5)

        def say_and_storm() -> None:
            with self._lock:
                self.storms[asked.name] = asked
            self.agenda.after(wait, lambda: self._storm(asked))
            self._say_in_vain(asked, post)

        return say_and_storm

    def _say_in_vain(self, asked: Asked, post: Post) -> None:
        """Whether the answer is still heard is decided by the storm."""
        slack = self.rig.slack
        message = slack.person_writes(post.channel, f"answer to {asked.name}", thread_ts=post.ts, user="U0ANN")
        asked.overheard.append(Said(message["text"], time.time(), None))
        event = {**message, "channel": post.channel, "event_ts": message["ts"], "channel_type": "channel"}
        url = f"http://127.0.0.1:{self.client.next_port()}/channels/slack/events"
        slack.send_event(slack.envelope(event), url=url)

    def _storm(self, asked: Asked) -> None:
        """One storm at a time, so that its DELETEs are at once and not in a queue behind another's."""
        if asked.job_id is None:
            return
        with self._storming:
            barrier = threading.Barrier(_DELETES)

            def delete() -> None:
                barrier.wait(10)
                answer = self.client.request("DELETE", f"/services/agent-jobs/{asked.job_id}")
                with self._lock:
                    asked.cancels.append(answer.as_try)
                    self.answers[f"storm {answer.status}"] += 1

            for done in [self._clients.submit(delete) for _ in range(_DELETES)]:
                done.result(60)

    def close(self) -> None:
        super().close()
        self._clients.shutdown()


def _watch(scene: Scene) -> None:
    assert isinstance(scene.load, StormyLoad)
    while scene.pause(0.5):
        scene.faults["storm of 20 DELETEs"] = len(scene.load.storms)


def _verify(scene: Scene) -> None:
    """One 200 and 409 for the rest; or 409 for all, where the worker was first."""
    load = scene.load
    assert isinstance(load, StormyLoad)
    with scene.rig.database() as connection:
        rows = dict(connection.execute("SELECT tags[1], status FROM agent_jobs_job").fetchall())
    ends: Counter[str] = Counter()
    for name, asked in load.storms.items():
        statuses = Counter(attempt.status for attempt in asked.cancels)
        if not statuses:
            continue  # the run was over before its storm
        wanted = {200: 1, 409: _DELETES - 1} if rows[name] == "CANCELED" else {409: _DELETES}
        if statuses != wanted:
            scene.breaks(f"{name} is {rows[name]}, and its DELETEs were answered {dict(statuses)}")
        ends[rows[name]] += 1
    scene.faults |= Counter({f"storm that ended {status}": count for status, count in ends.items()})


E12 = Experiment(
    "E12",
    "20 DELETEs at once against a worker that finishes",
    "I2 I12",
    _watch,
    make_load=StormyLoad,
    load={"rate": 6.0, "stormed": 0.25, "canceled": 0.0},
    verify=_verify,
)
