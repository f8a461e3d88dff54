"""Limits how many jobs are RUNNING at once: per organisation, per job type, and per job type in one channel.

A cap counts jobs by their status. A job that waits for a reply is still RUNNING, so resuming it does not count again.
Caps are exact under concurrency: claims from an organisation with caps run one after another, under a lock on its row,
and each one counts anew. Organisations without caps pay nothing for it.

This module selects the jobs that may start; `claims` starts them.
"""

import time
from functools import lru_cache

from agent_jobs.lifecycle import queues
from agent_jobs.models import Job, JobType, Org
from infra import raw_sql

_REMEMBERED_SECONDS = 2.0

# SQL: whether the organisation `o`, or one of its job types, has a cap.
HAS_CAPS = """
(o.max_running_jobs IS NOT NULL OR EXISTS (
    SELECT FROM agent_jobs_jobtype t
    WHERE t.org_id = o.id AND (t.max_running IS NOT NULL OR t.max_running_per_channel IS NOT NULL)))"""

# SQL: jobs that this process can run. It knows their runner and their values of `waiting_for` and `resume`.
# A CASE, for the planner takes the three conditions for rare, though nearly every job meets them: it then prefers to
# read a whole queue, or all jobs of an organisation, and to sort them.
UNDERSTOOD = """
CASE WHEN runner = ANY(%(runners)s) AND waiting_for = ANY(%(waits)s) AND resume = ANY(%(wakes)s)
THEN true ELSE false END"""

# Up to {batch} jobs that may be RUNNING now. Resumed jobs count already; starting jobs must fit under the caps. The
# first queued job whose type and channel are not full always fits; the others also count those before them here.
CANDIDATES = f"""
capped_types AS MATERIALIZED (
    SELECT key, max_running, max_running_per_channel FROM agent_jobs_jobtype
    WHERE org_id = %(org_id)s AND (max_running IS NOT NULL OR max_running_per_channel IS NOT NULL)
), running AS MATERIALIZED (
    SELECT job_type_key, platform, channel_code, count(*) AS jobs FROM agent_jobs_job
    WHERE org_id = %(org_id)s AND status = 'RUNNING'
        AND (%(org_cap)s::int IS NOT NULL OR job_type_key IN (SELECT key FROM capped_types))
    GROUP BY job_type_key, platform, channel_code
), running_types AS MATERIALIZED (
    SELECT job_type_key, sum(jobs) AS jobs FROM running GROUP BY job_type_key
), full_types AS MATERIALIZED (
    SELECT t.key FROM capped_types t JOIN running_types r ON r.job_type_key = t.key WHERE r.jobs >= t.max_running
), full_channels AS MATERIALIZED (
    SELECT r.job_type_key, r.platform, r.channel_code FROM capped_types t JOIN running r ON r.job_type_key = t.key
    WHERE r.jobs >= t.max_running_per_channel
), room AS MATERIALIZED (
    SELECT coalesce(%(org_cap)s::int - (SELECT coalesce(sum(jobs), 0) FROM running), {{batch}}) AS places
), resumed AS (
    SELECT id, queue_at FROM agent_jobs_job
    WHERE queue_at IS NOT NULL AND status = 'RUNNING' AND lane = %(lane)s AND org_id = %(org_id)s
        AND {UNDERSTOOD}
    ORDER BY queue_at, id LIMIT {{batch}} FOR UPDATE SKIP LOCKED
), ready AS (
    SELECT id, queue_at, job_type_key, platform, channel_code FROM agent_jobs_job
    WHERE queue_at IS NOT NULL AND status = 'WAITING' AND lane = %(lane)s AND org_id = %(org_id)s AND {UNDERSTOOD}
        AND (SELECT places FROM room) > 0
        AND job_type_key NOT IN (SELECT key FROM full_types)
        AND (job_type_key, platform, channel_code) NOT IN (SELECT * FROM full_channels)
    ORDER BY queue_at, id LIMIT {{batch}} FOR UPDATE SKIP LOCKED
), placed AS (
    SELECT *, row_number() OVER (ORDER BY queue_at, id) AS in_org,
        row_number() OVER (PARTITION BY job_type_key ORDER BY queue_at, id) AS in_type,
        row_number() OVER (PARTITION BY job_type_key, platform, channel_code ORDER BY queue_at, id) AS in_channel
    FROM ready
), allowed AS (
    SELECT p.id, p.queue_at FROM placed p
    LEFT JOIN capped_types t ON t.key = p.job_type_key
    LEFT JOIN running_types rt ON rt.job_type_key = p.job_type_key
    LEFT JOIN running r ON (r.job_type_key, r.platform, r.channel_code) = (p.job_type_key, p.platform, p.channel_code)
    WHERE p.in_org <= (SELECT places FROM room)
        AND coalesce(rt.jobs, 0) + p.in_type <= coalesce(t.max_running, 2147483647)
        AND coalesce(r.jobs, 0) + p.in_channel <= coalesce(t.max_running_per_channel, 2147483647)
), candidates AS (
    SELECT id FROM (SELECT * FROM allowed UNION ALL SELECT * FROM resumed) either ORDER BY queue_at, id LIMIT {{batch}}
)"""


def lock(org_id: str) -> int | None:
    """Lock the organisation's row and return its cap. Other claims from the organisation wait until this transaction
    ends.
    """
    row = raw_sql.first("SELECT max_running_jobs FROM agent_jobs_org WHERE id = %s FOR NO KEY UPDATE", [org_id])
    return row[0] if row else None


def ring_for_place(job: Job) -> None:
    """Ring after `job` has ended outside of a worker's loop: where there are caps, another job may now start."""
    if _has_caps(job.org_id, int(time.monotonic() / _REMEMBERED_SECONDS)):
        queues.ring_on_commit(job.lane)


@lru_cache(maxsize=1024)
def _has_caps(org_id: str, moment: int) -> bool:
    """Whether the organisation has caps, as it was up to _REMEMBERED_SECONDS ago. A wrong answer delays a start by a
    second at most, because the sweep also rings.
    """
    return (
        Org.objects.filter(pk=org_id, max_running_jobs__isnull=False).exists()
        or JobType.objects.filter(org_id=org_id).exclude(max_running=None, max_running_per_channel=None).exists()
    )
