"""The legal moves of a job: which event leads from which statuses to which. `lifecycle.moves` applies them.

    SCHEDULED ──promote──▶ WAITING ──start──▶ RUNNING ──complete──▶ COMPLETED
        │  │                │ │  ▲              │ │ │
        │  └──────fail──────┼─┘  └──take back───┘ │ └──fail──▶ FAILED ──retry──▶ WAITING
        └───────────────────┴─────────────────────┴──cancel──▶ CANCELED ──retry──▶ WAITING

Only `lifecycle` writes a status. Its SQL statements (claims, promotion, settlements) repeat these rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from agent_jobs.states import JobStatus


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
