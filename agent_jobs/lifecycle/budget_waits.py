"""Joins the turns in which a job found no room in a budget into one task, so that its attempts show one wait."""

from collections.abc import Sequence
from contextlib import suppress

from agent_jobs.lifecycle.settlements import Settlement
from agent_jobs.states import TaskStatus
from infra import database, prepared_sql

# A turn that recorded a step did work, so it stays an entry of its own.
_JOIN = f"""
WITH joined AS (
    DELETE FROM agent_jobs_task t USING agent_jobs_task earlier
    WHERE t.id = ANY(%(tasks)s) AND t.status = '{TaskStatus.WAITED}'
        AND earlier.job_id = t.job_id AND earlier.number = t.number - 1 AND earlier.status = '{TaskStatus.WAITED}'
        AND NOT EXISTS (SELECT FROM agent_jobs_step s WHERE s.job_id = t.job_id AND s.begun_at > t.created_at)
    RETURNING earlier.id, t.job_id, t.number, t.result, t.finished_at
), uncounted AS (
    UPDATE agent_jobs_job j SET attempt = j.attempt - 1
    FROM joined WHERE j.id = joined.job_id AND j.attempt = joined.number AND j.lease_until IS NULL
)
UPDATE agent_jobs_task t SET result = joined.result, finished_at = joined.finished_at
FROM joined WHERE t.id = joined.id
"""


def join(settled: Sequence[Settlement]) -> None:
    """Join the waits that these settlements wrote to those just before them.

    A statement of its own, because settling must stay fast. If the database fails, the waits stay unjoined.
    """
    if waited := [settlement.task_id for settlement in settled if settlement.task_status == TaskStatus.WAITED]:
        with suppress(database.Error):
            prepared_sql.run(_JOIN, {"tasks": waited})
