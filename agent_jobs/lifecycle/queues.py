"""Rings the doorbell: a Celery message that tells the workers of one queue that there is work.

The rows say what the work is. The message is a hint and may be lost, doubled or late: `duties.recovery` rings again
every second for jobs that still wait.
"""

from collections.abc import Mapping

from django.db import transaction

from agent_jobs import runners
from infra import doorbell

LANES = runners.lanes()
# The queue of jobs that executors claim; no worker serves it.
EXTERNAL_LANE = runners.EXTERNAL.lane
DUTIES_QUEUE = "duties"
# More doorbells at once are not needed: a woken thread rings again while there is more work.
_MOST_RINGS = 4


def ring(lane: str, *, times: int = 1) -> None:
    """Ring now. Never raises, and does not wait if Redis is down. Executors
    ask for their jobs, so for these it rings nothing.
    """
    if lane != EXTERNAL_LANE:
        doorbell.ring(lane, entry_of(lane), times=min(times, _MOST_RINGS))


def entry_of(lane: str) -> str:
    """The name of the Celery entry that serves a queue."""
    return f"agent_jobs.serve_{lane}"


def ring_duty(name: str) -> None:
    """Start a duty again before its next period, because work is left."""
    doorbell.ring(DUTIES_QUEUE, f"agent_jobs.{name}")


def ring_on_commit(lane: str) -> None:
    transaction.on_commit(lambda: ring(lane), robust=True)


def ring_all(work: Mapping[str, int]) -> None:
    """Ring for jobs that have become ready. `work` is their number per queue: `{"agents": 40, "messages": 1}`."""
    for lane, jobs in work.items():
        ring(lane, times=jobs)
