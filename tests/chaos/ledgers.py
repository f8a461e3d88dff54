"""The three ledgers of a chaos run, each written by who saw it himself: the client, Slack, and the database.

* `Sent`: what the client posted, and every answer that it got.
* `Posted`: what the tests' Slack accepted, whatever it told the caller.
* `Recorded`: what the rows of a job say when all is quiet again, and what the audit says of it.

A job is known to all three by its `name`: the client posts it as its Idempotency-Key and as the first of its tags, and
the rows have it there. Times are seconds since 1970 by one clock, the machine's own: that of the harness, of the
database and of the tests' Slack. Plain values only, so that a checker of these is a pure function.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Try:
    """One request and its outcome. `status` is None where the client cannot know: no answer, or half of one."""

    at: float
    seconds: float
    status: int | None
    has_retry_after: bool = False

    @property
    def answered_at(self) -> float:
        return self.at + self.seconds


@dataclass(frozen=True, slots=True)
class Said:
    """A person's message to a job in its thread, and how its event was handled.

    `text` is unique in the run. `is_believable` is False for what must be ignored (forged, another team's, our own
    bot's). `heard_at` is when an event was answered with 2xx, None if none was.
    """

    text: str
    at: float
    heard_at: float | None
    is_believable: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """One job as the client knows it.

    `expected`: the agent's texts, in order, that a COMPLETED job has posted exactly once each; other texts (follow-ups)
    may stand between them. `start_from` and `start_until`: the promised window of the start, where the client asked for
    one (`scheduled_at` and the whole delay). `cancels`: every DELETE.
    """

    name: str
    org: str
    channel: str
    tries: tuple[Try, ...]
    job_id: str | None = None
    expected: tuple[str, ...] = ()
    start_from: float | None = None
    start_until: float | None = None
    cancels: tuple[Try, ...] = ()
    said: tuple[Said, ...] = ()

    @property
    def is_created(self) -> bool:
        return self.job_id is not None or any(attempt.status == 201 for attempt in self.tries)

    @property
    def is_refused(self) -> bool:
        """Every answer is known, and none of them can have made a job."""
        known = bool(self.tries) and self.job_id is None
        return known and all(attempt.status is not None and 400 <= attempt.status < 500 for attempt in self.tries)

    @property
    def canceled_at(self) -> float | None:
        return min((attempt.answered_at for attempt in self.cancels if attempt.status == 200), default=None)


@dataclass(frozen=True, slots=True)
class Posted:
    """One message that Slack accepted. `id` is the one in its metadata; `thread` is '' for what opened a thread.

    `asked_at`: the request had arrived; `accepted_at`: it was posted, which may be later.
    """

    id: str
    channel: str
    thread: str
    ts: str
    text: str
    asked_at: float
    accepted_at: float


@dataclass(frozen=True, slots=True)
class Terminal:
    """An activity that says that a job has ended; `life` counts its explicit retries."""

    life: int
    status: str
    at: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the transcript, in the order of the rows. `key` is an agent's line's id in the outbox and in Slack."""

    key: str
    text: str
    is_human: bool
    delivered_at: float | None
    written_at: float


@dataclass(frozen=True, slots=True)
class Moved:
    """A change of status; `left` is '' for the first one of all."""

    left: str
    reached: str

    def __str__(self) -> str:
        return f"{self.left or 'nothing'} to {self.reached}"


@dataclass(frozen=True, slots=True)
class Chain:
    """An organisation's audit, computed anew. `unsealed`: entries in no seal; `problem` is '' where every
    link holds."""

    org: str
    entries: int
    unsealed: int = 0
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.org} {self.entries} entries, {self.unsealed} unsealed, {self.problem or 'ok'}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A job's row and what belongs to it. `moves` are its activities' (in no order), `audited` the audit's in order."""

    id: str
    name: str
    org: str
    status: str
    created_at: float
    due_at: float
    started_at: float | None
    finished_at: float | None
    deadline_at: float | None
    platform: str = "slack"
    error_code: str = ""
    crash_count: int = 0
    life: int = 0
    terminals: tuple[Terminal, ...] = ()
    lines: tuple[Line, ...] = ()
    moves: tuple[Moved, ...] = ()
    audited: tuple[Moved, ...] = ()
