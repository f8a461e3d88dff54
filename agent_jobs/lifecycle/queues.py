"""Rings the doorbell: tells workers, by lane, that there is work. What the work is stands in the rows.

A ring may be lost, doubled or late: it is only ever a hint, and `duties.recovery` rings again each second for what
still waits.
"""

from collections.abc import Mapping

from django.db import transaction

from infra import doorbell

LANES = ("agents", "messages")
DUTIES_QUEUE = "duties"
# More bells than this at once wake no more threads: the first one woken rings on while there is more.
_MOST_RINGS = 4


def ring(lane: str, *, times: int = 1) -> None:
    """Ring now. Never raises, and does not wait for a Redis that is down."""
    doorbell.ring(lane, f"agent_jobs.serve_{lane}", times=min(times, _MOST_RINGS))


def ring_duty(name: str) -> None:
    """Ask for a duty again before beat does, because work is left."""
    doorbell.ring(DUTIES_QUEUE, f"agent_jobs.{name}")


def ring_on_commit(lane: str) -> None:
    transaction.on_commit(lambda: ring(lane), robust=True)


def ring_all(work: Mapping[str, int]) -> None:
    """`{"agents": 40, "messages": 1}`: jobs that have become ready, by lane."""
    for lane, jobs in work.items():
        ring(lane, times=jobs)
