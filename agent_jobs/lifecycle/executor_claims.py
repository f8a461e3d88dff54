"""Claims of executors: one statement moves jobs of the external lane to RUNNING, under a lease, in the queue's order.

An executor belongs to one organisation, so there is no round robin here. It may not fit every job (`runners.external`).
A job's *placement* (`runners.external.placement`) says what its executor must have: labels, the type, whether it runs
binaries. The statement walks the distinct placements of the organisation's queue, which are few, and takes the first
jobs of each placement that the executor fits. So jobs that nobody may claim do not slow down other claims. An
organisation with more than MOST_PLACEMENTS has its queue read in order instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from agent_jobs.lifecycle import running_caps
from agent_jobs.runners import external
from agent_jobs.specs import Actor
from infra import meters, prepared_sql, raw_sql

MOST_AT_ONCE = 100
MOST_PLACEMENTS = 200

_QUEUED = f"queue_at IS NOT NULL AND lane = '{external.LANE}' AND org_id = %(org_id)s"
# The same as `runners.external.fits`.
_FITS = f"""(NOT %(binary_only)s::bool OR split_part(placement, chr(31), 1) = '{external.WITH_BINARY}')
    AND (cardinality(%(types)s::text[]) = 0 OR split_part(placement, chr(31), 2) = ANY(%(types)s::text[]))
    AND (string_to_array(placement, chr(31)))[3:] <@ %(labels)s::text[]"""
# The sweep fails an expired job within a second or so; meanwhile nobody claims it.
_IS_IN_TIME = "(expires_at IS NULL OR started_at IS NOT NULL OR expires_at > statement_timestamp())"
_IS_MINE = f"runner = '{external.NAME}' AND {_IS_IN_TIME} AND {_FITS}"

# Walks from one placement to the next: the index is (org, placement, queue_at, id).
_WALK = f"""
walk AS (
    (SELECT placement, 1 AS number FROM agent_jobs_job WHERE {_QUEUED} ORDER BY placement LIMIT 1)
    UNION ALL
    SELECT (SELECT placement FROM agent_jobs_job WHERE {_QUEUED} AND placement > walk.placement
        ORDER BY placement LIMIT 1), number + 1
    FROM walk WHERE placement IS NOT NULL AND number <= {MOST_PLACEMENTS}
)"""
_BY_PLACEMENT = f"""
{_WALK}, candidates AS (
    SELECT found.id FROM walk CROSS JOIN LATERAL (
        SELECT id, queue_at FROM agent_jobs_job
        WHERE {_QUEUED} AND placement = walk.placement AND runner = '{external.NAME}' AND {_IS_IN_TIME}
        ORDER BY queue_at, id LIMIT {{batch}} FOR UPDATE SKIP LOCKED) found
    WHERE walk.placement IS NOT NULL AND {_FITS.replace("placement", "walk.placement")}
    ORDER BY found.queue_at, found.id LIMIT {{batch}}
)"""
_IN_ORDER = f"""
candidates AS (
    SELECT id FROM agent_jobs_job WHERE {_QUEUED} AND {_IS_MINE}
    ORDER BY queue_at, id LIMIT {{batch}} FOR UPDATE SKIP LOCKED
)"""
_UNDER_CAPS = running_caps.CANDIDATES.replace(running_caps.UNDERSTOOD, _IS_MINE)
_ONE = f"""
candidates AS (
    SELECT id FROM agent_jobs_job
    WHERE {_QUEUED} AND runner = '{external.NAME}' AND id = %(job_id)s AND {_IS_IN_TIME} FOR UPDATE
)"""

# As in `claims`: clock_timestamp() is read once per job, so that the deadline is exact.
_CLAIMED = """
claimed AS (
    UPDATE agent_jobs_job j SET
        status = 'RUNNING', queue_at = NULL, lease_token = j.lease_token + 1, worker_id = NULL,
        lease_until = now() + make_interval(secs => %(lease_seconds)s), executor_id = %(executor_id)s,
        attempt = j.attempt + 1, started_at = coalesce(j.started_at, c.begins_at),
        deadline_at = coalesce(j.deadline_at, c.begins_at + make_interval(secs => j.deadline_minutes * 60)),
        waiting_for = '', resume = '', wake_at = NULL, progress_percent = NULL, progress_message = '',
        progress_at = NULL, updated_at = now()
    FROM (SELECT id, clock_timestamp() AS begins_at FROM candidates) c WHERE j.id = c.id AND j.queue_at IS NOT NULL
    RETURNING j.id, j.org_id, j.attempt, j.lease_token, j.retry_count, j.started_at, j.scheduled_at,
        old.queue_at AS queue_at_before, old.status AS status_before
), begun_tasks AS (
    INSERT INTO agent_jobs_task (job_id, number, lease_token, executor_id, executor_address)
    SELECT id, attempt, lease_token, %(executor_id)s, %(address)s FROM claimed
    RETURNING id, job_id
), begun AS (
    INSERT INTO agent_jobs_activity (org_id, job_id, code, note, actor, request_id, moved_from, moved_to, life,
        source_type, execution_id, processed_at)
    SELECT c.org_id, c.id, 'job.started', 'RUNNING: attempt ' || c.attempt || ' by executor ' || %(executor_id)s,
        %(actor)s, %(request_id)s, c.status_before, 'RUNNING', c.retry_count, 'process_module', t.id, now()
    FROM claimed c JOIN begun_tasks t ON t.job_id = c.id WHERE c.status_before = 'WAITING'
)
SELECT c.id, t.id, c.lease_token, c.attempt, extract(epoch FROM c.started_at - c.scheduled_at)
FROM claimed c JOIN begun_tasks t ON t.job_id = c.id ORDER BY c.queue_at_before, c.id"""

_HAS_CAPS = f"SELECT {running_caps.HAS_CAPS} FROM agent_jobs_org o WHERE o.id = %(org_id)s"
_PLACEMENTS = f"WITH RECURSIVE {_WALK} SELECT count(*) FROM walk WHERE placement IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Claimant:
    """An executor that asks for jobs, with what it can do. No `types`: jobs of any type. `binary_only`: only jobs whose
    work has a binary.
    """

    executor_id: str
    address: str = ""
    labels: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    binary_only: bool = False

    def fits(self, placement: str) -> bool:
        return external.fits(placement, labels=self.labels, types=self.types, binary_only=self.binary_only)


@dataclass(frozen=True, slots=True)
class ExecutorClaim:
    """A claimed job. `lease_token` is the fencing token of the attempt."""

    job_id: UUID
    task_id: UUID
    lease_token: int


def claim_for_executor(
    org_id: str, claimant: Claimant, *, actor: Actor, most: int = 1, lease_seconds: float
) -> list[ExecutorClaim]:
    """Claim up to `most` ready jobs that the executor fits, in the order of the queue, within the caps.

    Two concurrent claims never get the same job: each skips the rows that another one holds.
    """
    assert 0 < most <= MOST_AT_ONCE
    parameters = _parameters(org_id, claimant, actor, lease_seconds)
    with transaction.atomic():
        found = prepared_sql.first(_HAS_CAPS, parameters)
        if found is None:
            return []
        if found[0]:
            parameters["org_cap"] = running_caps.lock(org_id)
            return _claim(f"WITH {_UNDER_CAPS}, {_CLAIMED}", parameters, most)
        if prepared_sql.first(_PLACEMENTS, parameters)[0] > MOST_PLACEMENTS:
            return _claim(f"WITH {_IN_ORDER}, {_CLAIMED}", parameters, most)
        return _claim(f"WITH RECURSIVE {_BY_PLACEMENT}, {_CLAIMED}", parameters, most)


def claim_one_for_executor(
    org_id: str, job_id: UUID, claimant: Claimant, *, actor: Actor, lease_seconds: float
) -> ExecutorClaim | None:
    """Claim this job if it is ready, whoever fits it, regardless of its place in the queue and of caps. None if it is
    not ready.
    """
    parameters = {**_parameters(org_id, claimant, actor, lease_seconds), "job_id": job_id}
    return next(iter(_claim(f"WITH {_ONE}, {_CLAIMED}", parameters, 1)), None)


_RENEW = """
UPDATE agent_jobs_job SET
    lease_until = greatest(lease_until, statement_timestamp() + make_interval(secs => %(lease_seconds)s)),
    progress_percent = coalesce(%(percent)s, progress_percent),
    progress_message = coalesce(%(message)s, progress_message),
    progress_at = CASE WHEN %(has_progress)s THEN statement_timestamp() ELSE progress_at END,
    updated_at = CASE WHEN %(has_progress)s THEN statement_timestamp() ELSE updated_at END
WHERE id = %(job_id)s AND org_id = %(org_id)s AND executor_id = %(executor_id)s AND lease_token = %(token)s
    AND status = 'RUNNING' AND lease_until IS NOT NULL
"""


def renew_for_executor(
    org_id: str,
    job_id: UUID,
    executor_id: str,
    token: int,
    *,
    lease_seconds: float,
    percent: int | None = None,
    message: str | None = None,
) -> bool:
    """Extend the lease and keep the stated progress. False if the executor no longer holds the job."""
    parameters: dict[str, Any] = {
        "job_id": job_id,
        "org_id": org_id,
        "executor_id": executor_id,
        "token": token,
        "lease_seconds": lease_seconds,
        "percent": percent,
        "message": message,
        "has_progress": percent is not None or message is not None,
    }
    return bool(raw_sql.run(_RENEW, parameters))


_ANY_READY = f"SELECT EXISTS (SELECT FROM agent_jobs_job WHERE {_QUEUED} AND {_IS_MINE})"
_READY = f"""
WITH RECURSIVE {_WALK}
SELECT walk.placement, (
    SELECT count(*) FROM (
        SELECT FROM agent_jobs_job WHERE {_QUEUED} AND placement = walk.placement LIMIT {MOST_AT_ONCE}) ready)
FROM walk WHERE placement IS NOT NULL
"""


def with_ready_jobs(org_id: str, claimants: Sequence[Claimant]) -> list[int]:
    """Choose the waiting executors that should claim now, as their places in the list.

    No more of them than there are ready jobs for them, so that one new job does not wake all. Ignores caps.
    """
    ready: list[list[Any]] = [list(row) for row in raw_sql.all_rows(_READY, {"org_id": org_id})]
    if len(ready) > MOST_PLACEMENTS:
        return [place for place, claimant in enumerate(claimants) if _has_any(org_id, claimant)]
    woken = []
    for place, claimant in enumerate(claimants):
        for group in ready:
            if group[1] > 0 and claimant.fits(group[0]):
                group[1] -= 1
                woken.append(place)
                break
    return woken


def _has_any(org_id: str, claimant: Claimant) -> bool:
    wants = {"labels": list(claimant.labels), "types": list(claimant.types), "binary_only": claimant.binary_only}
    return bool(raw_sql.value(_ANY_READY, {"org_id": org_id, **wants}))


def _parameters(org_id: str, claimant: Claimant, actor: Actor, lease_seconds: float) -> dict[str, Any]:
    return {
        "org_id": org_id,
        "lane": external.LANE,
        "executor_id": claimant.executor_id,
        "address": claimant.address,
        "labels": list(claimant.labels),
        "types": list(claimant.types),
        "binary_only": claimant.binary_only,
        "actor": str(actor),
        "request_id": actor.request_id,
        "lease_seconds": lease_seconds,
    }


def _claim(statement: str, parameters: Mapping[str, Any], most: int) -> list[ExecutorClaim]:
    rows = raw_sql.all_rows(statement.replace("{batch}", str(most)), parameters)
    if rows:
        meters.add("turns", len(rows), lane=external.LANE)
    for *_, attempt, seconds_late in rows:
        if attempt == 1:
            meters.observe("start_latency_seconds", float(seconds_late), lane=external.LANE)
    return [ExecutorClaim(job_id, task_id, token) for job_id, task_id, token, *_ in rows]
