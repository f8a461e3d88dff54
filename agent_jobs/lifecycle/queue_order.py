"""The order of jobs in a queue (column `lane`), and the return of waiting jobs into it.

`queue_at` is the time at which a job became ready, shifted by its priority. So a job that waits long enough overtakes
any priority. Nothing here changes a status: a job that waits for a reply or a retry stays RUNNING.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import F, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from agent_jobs.models import Job
from agent_jobs.specs import DEFAULT_PRIORITY
from infra import prepared_sql, raw_sql

# One step of priority counts as much as this long in the queue, so that low-priority jobs also start in time.
PRIORITY_STEP = timedelta(minutes=1)
# SQL for a job `j`: the interval by which its priority puts it forward in the queue. `place` and `ready_now` say the
# same.
HEAD_START = f"(j.priority - {DEFAULT_PRIORITY}) * interval '{PRIORITY_STEP.total_seconds():.0f} seconds'"


def in_seconds(seconds: float) -> Combinable:
    """A moment of the database's clock: `wake_at=in_seconds(90)`."""
    return Now() + Value(timedelta(seconds=seconds))


def place(since: datetime, priority: int) -> datetime:
    """`queue_at` for a new job that is ready since then."""
    return since - (priority - DEFAULT_PRIORITY) * PRIORITY_STEP


def ready_now() -> Combinable:
    """`queue_at` for a job that becomes ready now."""
    return Now() - (F("priority") - Value(DEFAULT_PRIORITY)) * Value(PRIORITY_STEP)


_READY_AGAIN = f"""
UPDATE agent_jobs_job j SET queue_at = statement_timestamp() - {HEAD_START}, wake_at = NULL, timer_message_id = NULL,
    timer_seconds = NULL, updated_at = statement_timestamp()
WHERE j.id = %(id)s AND j.status = 'RUNNING' AND j.lease_until IS NULL AND j.queue_at IS NULL
"""


def ready_again(job: Job) -> int:
    """Put a RUNNING job that waits without a lease back into its queue. Returns 0 if it is not in that state."""
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
    """Queue the jobs whose wait is over. Returns their number per queue. Safe to run concurrently."""
    return dict(raw_sql.all_rows(_WAKE, {"batch": batch, "without": list(without), "only": only}))


def due_to_wake(*, without: Sequence[UUID], batch: int = 500) -> list[UUID]:
    """The jobs that `wake_due` would take, without locking them."""
    statement = f"SELECT id FROM agent_jobs_job WHERE {_IS_DUE} ORDER BY wake_at LIMIT %(batch)s"
    return [row[0] for row in raw_sql.all_rows(statement, {"batch": batch, "without": list(without), "only": None})]
