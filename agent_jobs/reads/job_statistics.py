"""Statistics of one organisation's jobs within a range of creation times: counts, durations, and what waits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Sum

from agent_jobs.lifecycle.queue_order import HEAD_START
from agent_jobs.models import UsageDay
from agent_jobs.reads import job_tallies
from agent_jobs.states import JobStatus
from infra import raw_sql

MOST_LISTED = 100
_ALIVE_SECONDS = 15
_STATUSES = tuple(status.lower() for status in JobStatus)

_QUEUES = f"""
SELECT lane, count(*), min(queue_at + {HEAD_START}) FROM agent_jobs_job j
WHERE queue_at IS NOT NULL AND org_id = %(org)s AND lane = ANY(%(lanes)s) GROUP BY lane ORDER BY lane
"""  # noqa: S608 - constants
_WORKERS = """
SELECT w.id, w.started_at, w.seen_at, w.runners,
    (SELECT count(*) FROM agent_jobs_job j
        WHERE j.worker_id = w.id AND j.lease_until IS NOT NULL AND j.org_id = %(org)s) AS holds,
    coalesce((w.jobs_done ->> %(org)s)::int, 0) AS jobs_done
FROM agent_jobs_workerprocess w
WHERE w.lost_at IS NULL AND w.seen_at > now() - make_interval(secs => %(alive)s) ORDER BY w.id
"""


@dataclass(frozen=True, slots=True)
class QueueState:
    """The jobs of the organisation in one queue. `oldest_at`: since when the one that waits longest is ready."""

    queue: str
    waiting: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """Statistics of the jobs in a range. `by_channel` and `by_type` have the largest MOST_LISTED. `p50_seconds`
    and `p95_seconds`: from the first start to the end; None without ended jobs. `queues` are as they are now.
    """

    total: int
    by_status: Mapping[str, int]
    by_type: Sequence[tuple[str, int]]
    by_channel: Sequence[tuple[str, str, int]]
    by_priority: Mapping[int, int]
    by_day: Mapping[date, int]
    follow_ups: int
    replies: int
    jobs_with_reply: int
    p50_seconds: float | None
    p95_seconds: float | None
    cost: Decimal
    queues: Sequence[QueueState]

    @property
    def success_rate(self) -> float | None:
        """COMPLETED jobs as a share of those that are COMPLETED or FAILED; None if there are none."""
        completed, failed = self.by_status["completed"], self.by_status["failed"]
        return completed / (completed + failed) if completed + failed else None


def of(org_id: str, *, since: datetime, until: datetime, lanes: Sequence[str]) -> JobStatistics:
    """Count the jobs created from `since` on and before `until`. The queues are counted as they are now."""
    found = job_tallies.count(org_id, since=since, until=until)
    queues = [QueueState(*row) for row in raw_sql.all_rows(_QUEUES, {"org": org_id, "lanes": list(lanes)})]
    numbers = defaultdict[str, Mapping[str, int]](dict, found.numbers)
    statuses = {key.lower(): number for key, number in numbers["status"].items()}
    sums = numbers["sum"]
    return JobStatistics(
        total=sum(statuses.values()),
        by_status={status: statuses.get(status, 0) for status in _STATUSES},
        by_type=_largest(numbers["type"].items()),
        by_channel=_largest((*_channel_of(key), number) for key, number in numbers["channel"].items()),
        by_priority=dict(sorted((int(key), number) for key, number in numbers["priority"].items())),
        by_day=dict(sorted((date.fromisoformat(key), number) for key, number in numbers["day"].items())),
        follow_ups=sums.get("follow_ups", 0),
        replies=sums.get("replies", 0),
        jobs_with_reply=sums.get("with_reply", 0),
        p50_seconds=found.seconds.get(50),
        p95_seconds=found.seconds.get(95),
        cost=_cost(org_id, since, until),
        queues=queues,
    )


def workers(org_id: str) -> list[dict[str, Any]]:
    """The living worker processes of the service: how many of the organisation's jobs each holds, and has ended.

    The numbers of ended jobs are some seconds old.
    """
    return raw_sql.rows_by_name(_WORKERS, {"org": org_id, "alive": _ALIVE_SECONDS})


def _channel_of(key: str) -> tuple[str, str]:
    platform, _, code = key.partition(job_tallies.SEPARATOR)
    return platform, code


def _largest(rows: Any) -> list[Any]:
    return sorted(rows, key=lambda row: (-row[-1], row[:-1]))[:MOST_LISTED]


def _cost(org_id: str, since: datetime, until: datetime) -> Decimal:
    """Sum the model calls from the first to the last day of the range."""
    days = UsageDay.objects.filter(org_id=org_id, day__gte=since.date(), day__lte=until.date())
    return days.aggregate(total=Sum("cost"))["total"] or Decimal(0)
