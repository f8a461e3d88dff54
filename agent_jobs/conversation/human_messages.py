"""Counts a job's human messages for a running turn."""

from agent_jobs.errors import LeaseLost
from agent_jobs.lifecycle import Claim
from channels_integration import inbound
from infra import prepared_sql

_HEARD = f"""
SELECT j.inbox_count, {
    inbound.WAITS_FOR.format(org="j.org_id", platform="j.platform", code="j.channel_code", thread="j.thread")
}, j.thread
FROM agent_jobs_job j WHERE j.id = %(job)s
"""  # noqa: S608


def count(claim: Claim) -> int:
    """The number of human messages of the job. Routes those that wait for its thread first, ahead of other threads.

    Raises LeaseLost if the job is gone.
    """
    heard, is_more, thread = _written(claim)
    if is_more:
        inbound.route_thread(claim.org_id, claim.platform, claim.channel_code, thread)
        heard, _, _ = _written(claim)
    return heard


def _written(claim: Claim) -> tuple[int, bool, str]:
    found: tuple[int, bool, str] | None = prepared_sql.first(_HEARD, {"job": claim.id})
    if found is None:
        raise LeaseLost("the job no longer exists")
    return found
