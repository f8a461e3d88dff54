"""Cancels or retries many jobs at once. Each job is changed in a transaction of its own; one that refuses stops none.

The caller says how many jobs it expects. If another number matches, nothing is changed: somebody who has seen 50 jobs
never cancels 52.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from agent_jobs.errors import AgentJobsError, Conflict
from agent_jobs.jobs import cancellation, repeats
from agent_jobs.models import Job
from agent_jobs.specs import Actor
from agent_jobs.states import MOVES, Event

MOST = 1_000
SOURCES = {"cancel": MOVES[Event.CANCEL].sources, "retry": MOVES[Event.RETRY].sources}


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """`refused`: the first reason of each kind, with how often it was given."""

    changed: int
    refused: Sequence[tuple[str, int]] = ()


def cancel(org_id: str, job_ids: Sequence[UUID], *, expected: int, actor: Actor, reason: str = "") -> BulkOutcome:
    def one(job_id: UUID) -> Job:
        return cancellation.cancel(org_id, job_id, actor=actor, reason=reason)

    return _each(job_ids, one, expected=expected)


def retry(org_id: str, job_ids: Sequence[UUID], *, expected: int, actor: Actor, reason: str = "") -> BulkOutcome:
    def one(job_id: UUID) -> Job:
        return repeats.retry(org_id, job_id, actor=actor, reason=reason)

    return _each(job_ids, one, expected=expected)


def _each(job_ids: Sequence[UUID], one: Callable[[UUID], Job], *, expected: int) -> BulkOutcome:
    if len(job_ids) != expected:
        raise Conflict(f"{len(job_ids):,} jobs match now; {expected:,} did when you looked", code="other_count")
    if len(job_ids) > MOST:
        raise Conflict(f"at most {MOST:,} jobs can be changed at once", code="too_many_at_once")
    changed, refused = 0, dict[str, int]()
    for job_id in job_ids:
        try:
            one(job_id)
            changed += 1
        except AgentJobsError as error:
            refused[error.message] = refused.get(error.message, 0) + 1
    return BulkOutcome(changed, tuple(refused.items()))
