"""The plain values that a worker and the database exchange: claims, settlements and answers. Nothing here writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agent_jobs.runners.base import Wake
from agent_jobs.states import JobStatus, TaskStatus, WaitingFor


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process holds for one turn, with the row's values at the claim.

    `token` is the fencing token. `seconds_late`: time from the due time to the first start. `seconds_left`: time from
    the claim to the deadline.
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
    work: Mapping[str, Any]
    sealed_work: str
    schedule_id: str
    scheduled_at: datetime
    fire_at: datetime | None
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
        """Build it from the JSON of the claim statement, whose keys are these fields."""
        fire_at = record["fire_at"]
        read = {
            "id": UUID(record["id"]),
            "task_id": UUID(record["task_id"]),
            "scheduled_at": datetime.fromisoformat(record["scheduled_at"]),
            "fire_at": datetime.fromisoformat(fire_at) if fire_at else None,
        }
        return cls(**{**record, **read})

    @property
    def wake(self) -> Wake:
        """The reason for this turn."""
        if self.inbox_count > self.inbox_seen:
            return Wake.REPLY
        if self.resume:
            return Wake(self.resume)
        return Wake.SILENCE if self.waiting_for == WaitingFor.REPLY else Wake.START


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """A line of the transcript that the agent says. `key` is the id of its outbox row.

    `heard`: the number of human messages that the agent had seen when it wrote this.
    """

    key: str
    text: str
    is_delivered: bool
    heard: int


@dataclass(frozen=True, slots=True)
class Note:
    """An activity other than a move. `id` is set if another row shares it.

    Paid model calls are not among them: `budgets.call_activity` writes theirs when they are paid.
    """

    code: str
    status: str
    note: str = ""
    id: str | None = None
    input: Any = None
    output: Any = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a turn. `status` is RUNNING if the job goes on; durations are seconds from the database's now().

    A job that waits for a reply goes back into the queue at once if a message came in that the turn has not seen.
    `rests_on` is an earlier message that was pending when the turn ended. If it is delivered before the settlement is
    written, `if_delivered` is written instead.
    """

    id: UUID
    token: int
    task_id: UUID
    status: JobStatus
    task_status: TaskStatus
    task_result: str | None = None
    task_report: Mapping[str, Any] | None = None
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
    lines: Sequence[SpokenLine] = ()
    notes: Sequence[Note] = ()
    rests_on: UUID | None = None
    if_delivered: Settlement | None = None
    # The activity that ends the job names these.
    actor: str = "system:worker"
    request_id: str = ""


def as_json(settlements: Sequence[Settlement]) -> str:
    """The array that a statement reads with `json_to_recordset`. Other values than JSON's become texts."""
    return json.dumps(settlements, default=_plain)


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str(value)


@dataclass(slots=True)
class OrgRotation:
    """A worker process's position in the round robin over organisations, for one queue.

    `org_id`: the organisation served last. `left`: further claims that its weight allows.
    """

    org_id: str = ""
    left: int = 0


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The result of `settle_and_claim`.

    `settled`: the jobs whose settlement was written; a missing one had lost its lease. `org_id`: the organisation
    claimed from, None if the queue is empty; `claimed` may be empty because other workers hold its rows. `has_more`:
    the queue holds more jobs, including those that this statement put back. `is_full`: the organisation has caps, and
    none of its ready jobs may start now.
    """

    settled: frozenset[UUID]
    org_id: str | None
    claimed: Sequence[Claim] = ()
    has_more: bool = False
    is_full: bool = False
