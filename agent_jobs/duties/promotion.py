"""Promotes and wakes jobs at the moment they fall due, for one second per call (`duty_rounds.serve_second`).

Every statement is idempotent, so several processes at once do no harm.
"""

from collections import Counter
from collections.abc import Callable
from uuid import UUID

from agent_jobs import duty_rounds, lifecycle
from agent_jobs.lifecycle import queues
from infra import raw_sql
from infra.quarantine import Quarantine

_failed: Quarantine[UUID] = Quarantine("promote")

_NEXT_DUE = """
SELECT extract(epoch FROM min(at) - now())::float8 FROM (
    (SELECT scheduled_at AS at FROM agent_jobs_job WHERE status = 'SCHEDULED' AND id <> ALL(%(failed)s::uuid[])
        ORDER BY scheduled_at LIMIT 1)
    UNION ALL
    (SELECT wake_at FROM agent_jobs_job WHERE wake_at IS NOT NULL AND queue_at IS NULL
        AND id <> ALL(%(failed)s::uuid[]) ORDER BY wake_at LIMIT 1)
) due
"""


def serve_second(*, seconds: float = 1.0) -> int:
    """Promote and wake for `seconds`. Returns how many jobs became ready; 0 if another process serves."""
    return duty_rounds.serve_second("promote", promote_and_wake, _seconds_to_next_due, seconds=seconds)


def _seconds_to_next_due() -> float:
    seconds = raw_sql.value(_NEXT_DUE, {"failed": _failed.rows()})
    return float(duty_rounds.LONGEST_WAIT if seconds is None else seconds)


def promote_and_wake() -> int:
    """Make all due jobs ready, in batches, and ring their queues after each batch. Returns how many jobs.

    Batches of promotions and of wake-ups alternate. So if ten thousand waits of one organisation end together, they
    delay another one's starts by at most one batch.
    """
    ready = 0
    while True:
        moved = 0
        for step, due in (
            (lifecycle.promote_due, lifecycle.due_to_promote),
            (lifecycle.wake_due, lifecycle.due_to_wake),
        ):
            by_lane = _without_failing_rows(step, due)
            queues.ring_all(by_lane)
            moved += sum(by_lane.values())
        if not moved:
            return ready
        ready += moved


def _without_failing_rows(step: Callable[..., dict[str, int]], due: Callable[..., list[UUID]]) -> dict[str, int]:
    """Run a batch. If one of its rows makes it fail, run it again row by row, and set the failing row aside."""
    failed, by_lane = _failed.rows(), Counter[str]()
    for moved in _failed.batch(
        lambda: step(without=failed), rows=lambda: due(without=failed), one=lambda job_id: step(only=job_id)
    ):
        by_lane.update(moved)
    return by_lane
