"""Adds the entries of ended jobs to the tallies that statistics read (`models.tallies`).

Nobody waits for it: statistics read tallies and entries, so they are exact at any time, and only slower with many.
Jobs append entries and touch no counter, so they never wait for each other.
"""

from django.db import transaction

from agent_jobs import duty_rounds
from agent_jobs.reads.job_tallies import KINDS, OF_ENTRIES
from infra import raw_sql

BATCH = 20_000
_BATCHES = 5
_TAKE = f"""
WITH taken AS (
    DELETE FROM agent_jobs_jobtallyentry WHERE id IN (
        SELECT id FROM agent_jobs_jobtallyentry ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
    RETURNING org_id, {OF_ENTRIES}
), added AS (
    INSERT INTO agent_jobs_jobtally AS t (org_id, span, start_at, kind, key, number)
    SELECT org_id, span, date_trunc(span, created_at, 'UTC'), kind, key, sum(count)
    FROM taken CROSS JOIN {KINDS} CROSS JOIN (VALUES ('hour'), ('day')) AS spans (span)
    WHERE key IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5 HAVING sum(count) <> 0
    ORDER BY 1, 2, 3, 4, 5 -- so that two processes cannot deadlock
    ON CONFLICT (org_id, span, start_at, kind, key) DO UPDATE SET number = t.number + excluded.number
    RETURNING id, number
)
SELECT (SELECT count(*) FROM taken), (SELECT array_agg(id) FROM added WHERE number = 0)
"""  # noqa: S608 - constants
_DELETE_ZEROS = "DELETE FROM agent_jobs_jobtally WHERE id = ANY(%s) AND number = 0"


def serve_slice() -> int:
    """The duty: add up to five batches. Returns the number of entries; 0 if another process is doing it."""
    total = 0
    with duty_rounds.alone("tally") as is_alone:
        if not is_alone:
            return 0
        for _ in range(_BATCHES):
            added = add_entries()
            total += added
            if added < BATCH or duty_rounds.STOPPING.is_set():
                break
    duty_rounds.note_done("tally")
    return total


def add_entries() -> int:
    """Add the oldest BATCH entries to the tallies, and delete them. Returns how many. Safe to run concurrently."""
    with transaction.atomic():
        taken, zeros = raw_sql.first(_TAKE)
        if zeros:
            raw_sql.run(_DELETE_ZEROS, [zeros])
    return int(taken)
