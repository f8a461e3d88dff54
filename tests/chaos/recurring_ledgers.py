"""The ledgers of recurring jobs: what was planned, what the rows say, and what the other side of each job saw.

* `Timetable`: the due times of a schedule, as the harness planned them.
* `Fired`, `MadeJob` and `Attempted`: the rows of the firings, of their jobs and of the jobs' tasks.
* `Arrival`: a request that reached the receiver of webhooks. `Sign`: a line that a running command sent.
* `Claimed` and `Told`: what executors asked and were answered. `Withdrawn`: a DELETE of a job.

Times are seconds since 1970 by the clock of the machine. All values are plain, so the checker is a pure function.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.chaos.ledgers import Try


@dataclass(frozen=True, slots=True)
class Timetable:
    """`kind` is the runner: webhook, command or external."""

    schedule_id: str
    name: str
    kind: str
    overlap: str
    times: tuple[float, ...]
    jitter_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Fired:
    schedule_id: str
    fire_at: float
    outcome: str
    job_id: str | None
    made_at: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attempted:
    """A task. `token` is the fencing token of its lease."""

    id: str
    token: int
    status: str
    executor_id: str = ""


@dataclass(frozen=True, slots=True)
class MadeJob:
    """A job of a schedule. `others_alive`: how many unfinished jobs its schedule had when it was stored.

    `ended_at`: when its ending was committed, which others can only know after that.
    """

    id: str
    schedule_id: str
    fire_at: float
    due_at: float
    made_at: float
    status: str
    started_at: float | None
    ended_at: float | None
    others_alive: int
    error_code: str = ""
    result_data: Any = None
    tasks: tuple[Attempted, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """`status` is the receiver's answer, None if it dropped the connection instead."""

    job_id: str
    task_id: str
    at: float
    status: int | None


@dataclass(frozen=True, slots=True)
class Sign:
    """Line number `number` of a running command, from 0."""

    job_id: str
    task_id: str
    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that an executor was given. `answered_at`: when it had the answer."""

    job_id: str
    token: int
    executor_id: str
    answered_at: float


@dataclass(frozen=True, slots=True)
class Told:
    """One call of an executor about its attempt. `status` is None if the answer is unknown. `mark`: what it reported as
    its result."""

    job_id: str
    token: int
    executor_id: str
    verb: str
    at: float
    status: int | None
    code: str = ""
    is_canceled: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    job_id: str
    tries: tuple[Try, ...]

    @property
    def accepted_at(self) -> float | None:
        return min((attempt.answered_at for attempt in self.tries if attempt.status == 200), default=None)


@dataclass(frozen=True, slots=True)
class RecurringLedger:
    timetables: tuple[Timetable, ...] = ()
    fired: tuple[Fired, ...] = ()
    jobs: tuple[MadeJob, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    signs: tuple[Sign, ...] = ()
    claims: tuple[Claimed, ...] = ()
    told: tuple[Told, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = field(default=())
