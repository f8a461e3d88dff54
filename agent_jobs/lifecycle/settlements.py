"""The plain values that a worker and the database exchange: claims, settlements and answers. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agent_jobs.runners.base import Wake
from agent_jobs.states import JobStatus, TaskStatus, WaitingFor


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process holds for one turn, as the row was at the claim.

    `token` is the fencing token. `seconds_late` is how long after its due time the job first began. `seconds_left` is
    the time until its deadline, counted from the claim.
    """

    id: UUID
    org_id: str
    job_type_key: str
    task_id: UUID
    token: int
    runner: str
    prompt: str
    params: Mapping[str, Any]
    config: Mapping[str, Any]
    agent: Mapping[str, Any]
    platform: str
    channel_code: str
    channel_type: str
    channel_data: dict[str, Any]
    waiting_for: str
    resume: str
    inbox_count: int
    inbox_seen: int
    follow_ups_sent: int
    follow_ups_total: int
    failed_attempts: int
    crash_count: int
    attempt: int
    result: str | None
    life: int
    turn: int
    is_replay: bool
    has_hours: bool
    trace: str
    seconds_late: float
    seconds_left: float

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Claim:
        """From the JSON of the claim statement, whose keys are these fields."""
        return cls(**{**record, "id": UUID(record["id"]), "task_id": UUID(record["task_id"])})

    @property
    def wake(self) -> Wake:
        """Why this turn is taken."""
        if self.inbox_count > self.inbox_seen:
            return Wake.REPLY
        if self.resume:
            return Wake(self.resume)
        return Wake.SILENCE if self.waiting_for == WaitingFor.REPLY else Wake.START


@dataclass(frozen=True, slots=True)
class Line:
    """Something the agent says: a line of the transcript, under the id of its row in the outbox.

    `heard`: how many messages of people the agent had seen when it wrote this.
    """

    key: str
    text: str
    is_delivered: bool
    heard: int


@dataclass(frozen=True, slots=True)
class Note:
    """An activity other than a move. `id` is given where something else shares it. What costs money is told when it
    is paid (`budgets.call_activity`)."""

    code: str
    status: str
    note: str = ""
    id: str | None = None
    input: Any = None
    output: Any = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a turn ends. `status` is RUNNING where the job goes on; durations are in seconds from the database's now.

    A job that waits for a reply goes back into the queue at once if a message came in that the turn has not seen.
    `rests_on` is an earlier message that was still pending when this was decided; if it is delivered by the time of the
    write, `if_delivered` is written instead.
    """

    id: UUID
    token: int
    task_id: UUID
    status: JobStatus
    task_status: TaskStatus
    task_result: str | None = None
    waiting_for: str = ""
    wake_seconds: float | None = None
    timer_message_id: str | None = None
    timer_seconds: float | None = None
    resume: str = ""
    inbox_seen: int = 0
    follow_ups_sent: int = 0
    follow_ups_total: int = 0
    failed_attempts: int = 0
    result: str | None = None
    result_data: Any = None
    error_code: str = ""
    error_message: str = ""
    note: str = ""
    outgoing: Sequence[dict[str, Any]] = ()
    lines: Sequence[Line] = ()
    notes: Sequence[Note] = ()
    rests_on: UUID | None = None
    if_delivered: Settlement | None = None


@dataclass(slots=True)
class Turn:
    """Whose turn it was last in a lane, as one worker process remembers it: the fairness between organisations."""

    org_id: str = ""
    left: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`settled`: the jobs whose settlement was taken; one that is missing had lost its lease. `org_id`: whose turn it
    was, None where the lane is empty; it may have had nothing that another worker was not just taking. `has_more`: the
    lane holds more than was claimed, some of it perhaps only since this very statement. `is_full`: the organisation has
    caps, and none of what it has ready may run now."""

    settled: frozenset[UUID]
    org_id: str | None
    claimed: Sequence[Claim] = ()
    has_more: bool = False
    is_full: bool = False
