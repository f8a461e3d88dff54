"""Statuses, events and moves as data. `lifecycle` applies them; nothing else writes a status.

    SCHEDULED ──promote──▶ WAITING ──start──▶ RUNNING ──complete──▶ COMPLETED
        │  │                │ │  ▲              │ │ │
        │  └──────fail──────┼─┘  └──take back───┘ │ └──fail──▶ FAILED ──retry──▶ WAITING
        └──────cancel───────┴───────cancel────────┘            CANCELED ──retry──▶ WAITING

A job that waits for something stays RUNNING and says in `waiting_for` what it waits for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class JobStatus(StrEnum):
    SCHEDULED = "SCHEDULED"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class Event(StrEnum):
    PROMOTE = "promote"
    START = "start"
    TAKE_BACK = "take_back"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Move:
    sources: frozenset[JobStatus]
    target: JobStatus


def _move(sources: set[JobStatus], target: JobStatus) -> Move:
    return Move(frozenset(sources), target)


MOVES: Mapping[Event, Move] = MappingProxyType(
    {
        Event.PROMOTE: _move({JobStatus.SCHEDULED}, JobStatus.WAITING),
        Event.START: _move({JobStatus.WAITING}, JobStatus.RUNNING),
        Event.TAKE_BACK: _move({JobStatus.RUNNING}, JobStatus.WAITING),
        Event.COMPLETE: _move({JobStatus.RUNNING}, JobStatus.COMPLETED),
        Event.FAIL: _move({JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING}, JobStatus.FAILED),
        Event.CANCEL: _move({JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING}, JobStatus.CANCELED),
        Event.RETRY: _move({JobStatus.FAILED, JobStatus.CANCELED}, JobStatus.WAITING),
    }
)
TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})


class TaskStatus(StrEnum):
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    # Waited for a budget: no failure, and no attempt that counts.
    WAITED = "WAITED"
    # Only of executors: the lease lapsed, or the executor gave the job back.
    TIMEOUT = "TIMEOUT"
    RELEASED = "RELEASED"


class WaitingFor(StrEnum):
    """The reason for which a job waits without a worker. Empty for a SCHEDULED job, which waits for its time."""

    REPLY = "reply"
    RETRY = "retry"
    DELIVERY = "delivery"
    COOLDOWN = "cooldown"
    APPROVAL = "approval"
    QUIET_HOURS = "quiet_hours"


# The kinds of time in a job's life: its waits, and these. `delay`: until its due time. `failed_work`: attempts that
# came to nothing.
TIME_KINDS = ("delay", "queue", "work", "failed_work", *WaitingFor)


class ActivityStatus(StrEnum):
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody can tell whether the platform received the message


class SourceType(StrEnum):
    """The source of an activity: the service's own dispatching, a runner's work, or a person or client."""

    DISPATCH = "dispatch"
    PROCESS_MODULE = "process_module"
    DIRECT = "direct"
