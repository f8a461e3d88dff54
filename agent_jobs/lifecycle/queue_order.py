"""The queue of each lane: the place of a job in it, and how a job that waited comes back into it.

`queue_at` is the time since when a job is ready, put forward or back by its priority, so that waiting outweighs any
priority in the end. Nothing here changes a status: a job that waits is RUNNING all the while.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import connection
from django.db.models import F, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from agent_jobs.models import Job
from agent_jobs.specs import DEFAULT_PRIORITY
from agent_jobs.timing import PRIORITY_STEP
from infra import prepared_sql

# In statements whose job is `j`: how much sooner than it is ready a job stands in the queue.
HEAD_START = f"(j.priority - {DEFAULT_PRIORITY}) * interval '{PRIORITY_STEP.total_seconds():.0f} seconds'"


def in_seconds(seconds: float) -> Combinable:
    """A moment of the database's clock: `wake_at=in_seconds(90)`."""
    return Now() + Value(timedelta(seconds=seconds))


def ready_now() -> Combinable:
    """The place in the queue of a job that is ready from now on, whatever brings it there."""
    return Now() - (F("priority") - Value(DEFAULT_PRIORITY)) * Value(PRIORITY_STEP)


_READY_AGAIN = f"""
UPDATE agent_jobs_job j SET queue_at = statement_timestamp() - {HEAD_START}, wake_at = NULL, timer_message_id = NULL,
    timer_seconds = NULL, updated_at = statement_timestamp()
WHERE j.id = %(id)s AND j.status = 'RUNNING' AND j.lease_until IS NULL AND j.queue_at IS NULL
"""


def ready_again(job: Job) -> int:
    """Put a RUNNING job that waits, and holds no lease, into its lane's queue. Returns 0 if it is not in that state."""
    return prepared_sql.run(_READY_AGAIN, {"id": job.pk})


_IS_DUE = """wake_at <= statement_timestamp() AND queue_at IS NULL AND id <> ALL(%(without)s::uuid[])
    AND (%(only)s::uuid IS NULL OR id = %(only)s)"""
_WAKE = f"""
WITH due AS (
    SELECT id FROM agent_jobs_job WHERE {_IS_DUE}
    ORDER BY wake_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), woken AS (
    UPDATE agent_jobs_job j SET queue_at = j.wake_at - {HEAD_START}, wake_at = NULL, updated_at = now()
    FROM due WHERE j.id = due.id AND j.status = 'RUNNING' AND j.lease_until IS NULL AND j.wake_at IS NOT NULL
    RETURNING j.lane
)
SELECT lane, count(*) FROM woken GROUP BY lane
"""


def wake_due(*, batch: int = 500, without: Sequence[UUID] = (), only: UUID | None = None) -> dict[str, int]:
    """Jobs whose wait is over go into their lane's queue. Returns how many by lane. Any number may run at once."""
    with connection.cursor() as cursor:
        cursor.execute(_WAKE, {"batch": batch, "without": list(without), "only": only})
        return dict(cursor.fetchall())


def due_to_wake(*, batch: int = 500, without: Sequence[UUID] = ()) -> list[UUID]:
    """The jobs that `wake_due` would take, without locking them."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM agent_jobs_job WHERE {_IS_DUE} ORDER BY wake_at LIMIT %(batch)s",
            {"batch": batch, "without": list(without), "only": None},
        )
        return [row[0] for row in cursor.fetchall()]
