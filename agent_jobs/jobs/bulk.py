"""Cancels or retries many jobs at once: one transaction, in a constant number of statements for most jobs.

The caller may say how many jobs it expects. If another number can be changed, nothing is: somebody who has seen 50 jobs
never cancels 52. A job that refuses for a reason of its own (its channel is gone, its `unique_key` is taken) stops none
of the others.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db import OperationalError, transaction

from agent_jobs import lifecycle
from agent_jobs.errors import AgentJobsError, Conflict, CountChanged, IllegalMove, NotFound
from agent_jobs.jobs import cancellation, repeats
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.models import Job
from agent_jobs.specs import Actor

MOST = 1_000
SOURCES = {"cancel": MOVES[Event.CANCEL].sources, "retry": MOVES[Event.RETRY].sources}
_CHANNEL = ("platform", "channel_code", "channel_type", "channel_data")
_DEADLOCK = "40P01"
_MOST_TRIES = 3


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """The result of a bulk cancel or retry. `changed`: the ids of changed jobs. `refused`: why the others were not
    changed.
    """

    changed: Sequence[UUID] = ()
    refused: Mapping[UUID, AgentJobsError] = field(default_factory=dict)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Each reason with how often it was given, the most frequent first."""
        return Counter(error.message for error in self.refused.values()).most_common()


def cancel(
    org_id: str, job_ids: Collection[UUID], *, expected: int | None, actor: Actor, reason: str = "", by: str = ""
) -> BulkOutcome:
    """Cancel those of the jobs that have not ended; `jobs.cancel` says what that means.

    Raises CountChanged if they are not `expected` many, Conflict (`too_many_at_once`), and NotFound if one of them is
    not the organisation's.
    """

    def change() -> BulkOutcome:
        jobs, refused = _movable(Event.CANCEL, org_id, job_ids, expected, "config", "trace", *_CHANNEL)
        cancellation.cancel_locked(jobs, actor=actor, reason=reason, by=by)
        return BulkOutcome([job.pk for job in jobs], refused)

    return _patiently(change)


def retry(
    org_id: str, job_ids: Collection[UUID], *, expected: int | None, actor: Actor, reason: str = ""
) -> BulkOutcome:
    """Reopen those of the jobs that are FAILED or CANCELED; `jobs.retry` says what that means. Raises as `cancel`."""

    def change() -> BulkOutcome:
        columns = ("config", "job_type_key", "unique_key", "unique_scope", "created_at", *_CHANNEL)
        jobs, refused = _movable(Event.RETRY, org_id, job_ids, expected, *columns)
        refused |= repeats.reopen(org_id, jobs, actor=actor, reason=reason)
        return BulkOutcome([job.pk for job in jobs if job.pk not in refused], refused)

    return _patiently(change)


def _patiently(change: Callable[[], BulkOutcome]) -> BulkOutcome:
    """Run the change in a transaction, again if it met a worker's statement that had locked the same rows in another
    order.
    """
    for tries_left in reversed(range(_MOST_TRIES)):
        try:
            with transaction.atomic():
                return change()
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != _DEADLOCK or not tries_left:
                raise
    raise AssertionError("unreachable")


def _movable(
    event: Event, org_id: str, job_ids: Collection[UUID], expected: int | None, *columns: str
) -> tuple[list[Job], dict[UUID, AgentJobsError]]:
    """The jobs from whose status the move may start, locked, and why the others are refused."""
    if len(job_ids) > MOST:
        raise Conflict(f"at most {MOST:,} jobs can be changed at once", code="too_many_at_once")
    movable = lifecycle.lock_many(event, org_id, job_ids, *columns)
    if expected is not None and len(movable) != expected:
        message = f"{len(movable):,} jobs match now; {expected:,} did when you looked"
        raise CountChanged(message, count=len(movable))
    others = set(job_ids) - {job.pk for job in movable}
    statuses = dict(Job.objects.filter(org_id=org_id, pk__in=others).values_list("pk", "status"))
    if missing := sorted(others - statuses.keys()):
        job_id = str(missing[0])
        raise NotFound(f"there is no job {job_id!r}", code="job_not_found", denied=("job", job_id))
    return movable, {
        job_id: IllegalMove(f"cannot {event} a {status} job", job_id=str(job_id), status=status)
        for job_id, status in statuses.items()
    }
