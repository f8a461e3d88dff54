"""Clients and people: jobs at a steady rate, each a question, a person's answer by Slack, and the agent's thanks.

Every POST carries an Idempotency-Key and is repeated, with it, until it is answered; so is every DELETE, and every
event of Slack's. What was sent and answered is kept as the client's ledger. The load is open: jobs come at their times,
however slow the service is. Nothing here blocks a thread but a request; what comes later waits in one agenda.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from tests.chaos.client import Answer
from tests.chaos.ledgers import Said, Sent, Try
from tests.chaos.rig import ORG, TEAM, Rig
from tests.fakes.slack import Post

AGAIN_SECONDS = 0.5
_THINK_SECONDS = 1.5
_PERSON = "U0ANN"


class Agenda:
    """Calls at their times, in a pool of threads. What they raise is kept in `failures`."""

    def __init__(self, threads: int = 48) -> None:
        self.failures: list[BaseException] = []
        self._pool = ThreadPoolExecutor(threads, "load")
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        threading.Thread(target=self._serve, name="agenda", daemon=True).start()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), call))
            self._changed.notify()

    def close(self) -> None:
        """Stop. Actions that are not due yet are dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._pool.shutdown(cancel_futures=True)

    def _serve(self) -> None:
        with self._changed:
            while not self._is_closed:
                if not self._heap:
                    self._changed.wait(1)
                elif (left := self._heap[0][0] - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    self._pool.submit(self._do, heapq.heappop(self._heap)[2])

    def _do(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            self.failures.append(error)


@dataclass
class Asked:
    """One job, as the client keeps it while it goes on."""

    name: str
    channel: str
    body: Mapping[str, Any]
    path: str = "/services/agent-jobs"
    delay_minutes: int = 0
    start_from: float | None = None
    cancel_after: float | None = None
    expected: tuple[str, ...] = ()
    job_id: str | None = None
    is_answered: bool = False
    is_thanked: bool = False
    tries: list[Try] = field(default_factory=list)
    cancels: list[Try] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    # Nobody waits for an answer to these, and the job may no longer listen.
    overheard: list[Said] = field(default_factory=list)

    def sent(self, org: str) -> Sent:
        created_at = next((attempt.answered_at for attempt in self.tries if attempt.status == 201), None)
        start_from, start_until = self.start_from, None
        if start_from is None and self.delay_minutes:
            start_from = self.tries[0].at if self.tries else None
        if start_from is not None and created_at is not None:
            start_until = max(start_from, created_at) + 60 * self.delay_minutes
        return Sent(
            name=self.name,
            org=org,
            channel=self.channel,
            tries=tuple(self.tries),
            job_id=self.job_id,
            expected=self.expected,
            start_from=start_from,
            start_until=start_until,
            cancels=tuple(self.cancels),
            said=(*self.said, *(replace(said, heard_at=None) for said in self.overheard)),
        )


class Load:
    """One organisation's jobs, `rate` a second. Shares: canceled soon after; due in some seconds; with a delay.

    `delays_until` (of the run) is when the last job with a minute's delay may be posted, so that a run can end.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        rng: random.Random,
        rate: float = 15.0,
        org: str = ORG,
        channels: int = 120,
        canceled: float = 0.04,
        scheduled: float = 0.08,
        delayed: float = 0.04,
        delays_until: float = 0.0,
        threads: int = 48,
    ) -> None:
        self.rig = rig
        self.rng = rng
        self._people = random.Random(rng.random())
        self.rate = rate
        self.org = org
        self.channels = channels
        self.shares = {"canceled": canceled, "scheduled": scheduled, "delayed": delayed}
        self.delays_until = delays_until
        self.client = rig.client(org)
        self.agenda = Agenda(threads)
        self.refused: list[Answer] = []
        self.answers: Counter[str] = Counter()
        self._asked: dict[str, Asked] = {}
        self._by_question: dict[str, Asked] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._began = 0.0
        self._is_arriving = threading.Event()
        self._is_over = threading.Event()

    # --- Life --------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """The job type. Its follow-ups are far away, so that what stands still is seen to stand still."""
        talk = {"start_prompt": "Question {{ n }}?", "max_follow_ups": 1, "follow_up_interval": 120}
        body = {"id": "ask", "name": "Ask", "runner": "conversation", "default_config": talk}
        self.client.ok("POST", f"/services/organizations/{self.org}/agent-jobs-type", body)

    def start(self) -> None:
        self._began = time.monotonic()
        self._is_arriving.set()
        threading.Thread(target=self._listen, name="people", daemon=True).start()
        self.agenda.after(0, self._arrive)

    def stop(self) -> None:
        """No new jobs; what has begun goes on to its end."""
        self._is_arriving.clear()

    def close(self) -> None:
        self._is_over.set()
        self.agenda.close()

    @property
    def posted(self) -> int:
        return len(self._asked)

    @property
    def unanswered(self) -> int:
        """Jobs whose POST, and DELETE where one is due, has no final answer; and answers of people not yet heard."""
        with self._lock:
            asked = list(self._asked.values())
        return sum(_is_open(job) for job in asked)

    def ledger(self) -> list[Sent]:
        with self._lock:
            return [asked.sent(self.org) for asked in self._asked.values()]

    def broken(self) -> list[str]:
        """Broken promises that this load's people and servers saw, and that no ledger shows."""
        return []

    # --- Jobs --------------------------------------------------------------------------------------------------
    def _arrive(self) -> None:
        if not self._is_arriving.is_set():
            return
        self.agenda.after(self.rng.expovariate(self.rate), self._arrive)
        asked = self._new()
        with self._lock:
            self._asked[asked.name] = asked
            if asked.expected:
                self._by_question[asked.expected[0]] = asked
        self._post(asked)

    def _new(self) -> Asked:
        """Only called by one thread at a time, so that a seed makes the same jobs."""
        number = next(self._numbers)
        name = f"{self.org}-{number:06d}"
        channel = f"C0{number % self.channels:03d}{self.org.upper()[:8]}"
        asked = Asked(name, channel, {})
        kind = self.rng.random()
        left = self.delays_until - (time.monotonic() - self._began)
        body: dict[str, Any] = {
            "job_type_id": "ask",
            "params": {"n": name},
            "tags": [name],
            "target_channel": {"org_id": self.org, "platform": "slack", "code": channel, "data": {"team_id": TEAM}},
        }
        if kind < self.shares["scheduled"]:
            asked.start_from = round(time.time() + self.rng.uniform(0.5, 6), 3)
            body["scheduled_at"] = datetime.fromtimestamp(asked.start_from, UTC).isoformat(timespec="milliseconds")
        elif kind < self.shares["scheduled"] + self.shares["delayed"] and left > 0:
            asked.delay_minutes = 1
            asked.path += "?delay=1"
        elif kind > 1 - self.shares["canceled"]:
            asked.cancel_after = self.rng.uniform(0, 2.5)
        asked.body = body
        asked.expected = (f"Question {name}?", f"Thank you, {_PERSON}. I have noted your answer.")
        return asked

    def _post(self, asked: Asked) -> None:
        answer = self.client.request("POST", asked.path, asked.body, Idempotency_Key=asked.name)
        with self._lock:
            asked.tries.append(answer.as_try)
            self.answers[f"POST {answer.status}"] += 1
        if not answer.is_final:
            self.agenda.after(AGAIN_SECONDS, lambda: self._post(asked))
        elif answer.status != 201:
            asked.is_answered = True
            self.refused.append(answer)
        else:
            asked.job_id = str(answer.body["data"]["job_id"])
            asked.is_answered = True
            if asked.cancel_after is not None:
                self.agenda.after(asked.cancel_after, lambda: self._cancel(asked))

    def _cancel(self, asked: Asked) -> None:
        answer = self.client.request("DELETE", f"/services/agent-jobs/{asked.job_id}")
        with self._lock:
            asked.cancels.append(answer.as_try)
            self.answers[f"DELETE {answer.status}"] += 1
        if not answer.is_final:
            self.agenda.after(AGAIN_SECONDS, lambda: self._cancel(asked))

    # --- People ------------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        seen = 0
        while not self._is_over.wait(0.05):
            posts = self.rig.slack.posts
            for post in posts[seen:]:
                self._heard(post)
                asked = self._by_question.get(post.text)
                # What is to be canceled is left to be: an answer to it might or might not be heard any more.
                if asked is not None and not asked.is_thanked and asked.cancel_after is None:
                    asked.is_thanked = True
                    self.agenda.after(self._people.uniform(0, _THINK_SECONDS), self._answer_of(asked, post))
            seen = len(posts)

    def _heard(self, post: Post) -> None:
        """For what people do about other posts than questions."""

    def _answer_of(self, asked: Asked, post: Post) -> Callable[[], None]:
        def say() -> None:
            slack = self.rig.slack
            thread = post.thread_ts or post.ts
            message = slack.person_writes(post.channel, f"answer to {asked.name}", thread_ts=thread, user=_PERSON)
            event = {**message, "channel": post.channel, "event_ts": message["ts"], "channel_type": "channel"}
            with self._lock:
                asked.said.append(Said(text=message["text"], at=time.time(), heard_at=None))
            self._tell(asked, slack.envelope(event), retry=0)

        return say

    def _tell(self, asked: Asked, envelope: Mapping[str, Any], *, retry: int) -> None:
        """Slack's own three retries are not enough for a minute's outage: it is told until it is taken."""
        url = f"http://127.0.0.1:{self.client.next_port()}/channels/slack/events"
        try:
            status = self.rig.slack.send_event(envelope, retry=retry, url=url)
        except (OSError, ValueError, HTTPException) as error:
            status, said = None, type(error).__name__
        else:
            said = str(status)
        with self._lock:
            self.answers[f"event {said}"] += 1
            if status is not None and 200 <= status < 300:
                first = asked.said[0]
                asked.said[0] = Said(first.text, first.at, time.time(), first.is_believable)
                return
        self.agenda.after(AGAIN_SECONDS, lambda: self._tell(asked, envelope, retry=retry + 1))


def _is_open(job: Asked) -> bool:
    if not job.is_answered:
        return True
    if job.cancel_after is not None and job.job_id is not None:
        return not any(attempt.status in (200, 409) for attempt in job.cancels)
    return any(said.heard_at is None for said in job.said)
