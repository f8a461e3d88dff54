"""Reads the rows of recurring jobs, and watches in the database how many jobs of a schedule are alive at once."""

from collections import defaultdict
from typing import Any

import psycopg
import psycopg.rows

from tests.chaos.recurring_ledgers import Attempted, Fired, MadeJob

# A trigger counts, because times of rows are those of their transactions' starts: jobs that follow each other overlap
# by them. The firing has locked its schedule, so of the others some may end meanwhile, but none can begin.
_WATCH = """
CREATE TABLE chaos_made (job_id uuid PRIMARY KEY, others_alive int NOT NULL, made_at timestamptz NOT NULL);
CREATE FUNCTION chaos_note_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_made SELECT NEW.id, count(*), clock_timestamp() FROM agent_jobs_job
    WHERE schedule_id = NEW.schedule_id AND id <> NEW.id AND status IN ('SCHEDULED', 'WAITING', 'RUNNING');
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_made AFTER INSERT ON agent_jobs_job
FOR EACH ROW WHEN (NEW.schedule_id IS NOT NULL) EXECUTE FUNCTION chaos_note_made();
"""
_FIRED = """
SELECT schedule_id::text, extract(epoch FROM fire_at)::float8 AS fire_at, outcome, job_id::text,
    extract(epoch FROM created_at)::float8 AS made_at, reason
FROM agent_jobs_schedulefiring WHERE org_id = %s ORDER BY id
"""
_JOBS = """
SELECT id::text, schedule_id::text, extract(epoch FROM fire_at)::float8 AS fire_at,
    extract(epoch FROM scheduled_at)::float8 AS due_at, extract(epoch FROM made.made_at)::float8 AS made_at, status,
    extract(epoch FROM started_at)::float8 AS started_at, (
        SELECT extract(epoch FROM pg_xact_commit_timestamp(a.xmin))::float8 FROM agent_jobs_activity a
        WHERE a.job_id = j.id AND a.moved_to = j.status AND a.life = j.retry_count
            AND j.status IN ('COMPLETED', 'FAILED', 'CANCELED')) AS ended_at,
    made.others_alive, error_code, result_data
FROM agent_jobs_job j JOIN chaos_made made ON made.job_id = j.id WHERE org_id = %s ORDER BY j.created_at
"""
_TASKS = """
SELECT t.job_id::text, t.id::text, t.lease_token, t.status, t.executor_id
FROM agent_jobs_task t JOIN agent_jobs_job j ON j.id = t.job_id WHERE j.org_id = %s ORDER BY t.job_id, t.number
"""


def watch(connection: psycopg.Connection[Any]) -> None:
    connection.execute(_WATCH)


def fired(connection: psycopg.Connection[Any], org: str) -> list[Fired]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return [Fired(**row) for row in cursor.execute(_FIRED, [org])]


def made_jobs(connection: psycopg.Connection[Any], org: str) -> list[MadeJob]:
    tasks: defaultdict[str, list[Attempted]] = defaultdict(list)
    for job_id, *task in connection.execute(_TASKS, [org]):
        tasks[job_id].append(Attempted(*task))
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return [MadeJob(**row, tasks=tuple(tasks[row["id"]])) for row in cursor.execute(_JOBS, [org])]
