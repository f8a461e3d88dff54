"""Statistics of one organisation's jobs within a range of creation times: counts, durations, and what waits.

Two statements scan the covering index `job_statistics`, so that no wide row is read, and no writer pays for counters.
The cost is that of the range: with a million jobs of one organisation in the table, on two busy processors, 35,000 jobs
took 0.1 s, 235,000 took 0.3 s, and the whole million 3.4 s (`tests.benchmarks.many_jobs`). Counters kept by a trigger
would answer in milliseconds, but each start and end of a job would write them, and exact percentiles need the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Sum

from agent_jobs.lifecycle.queue_order import HEAD_START
from agent_jobs.models import UsageDay
from agent_jobs.states import JobStatus
from infra import prepared_sql

MOST_LISTED = 100
_ALIVE_SECONDS = 15
_STATUSES = tuple(status.lower() for status in JobStatus)

_JOBS = "FROM agent_jobs_job WHERE org_id = %(org)s AND created_at >= %(since)s AND created_at < %(until)s"
_COUNTS = f"""
SELECT grouping(status, job_type_key, platform, priority, day) AS kind, status, job_type_key, platform, channel_code,
    priority, day, count(*), sum(follow_ups_total), sum(inbox_count), count(*) FILTER (WHERE inbox_count > 0)
FROM (
    SELECT status, job_type_key, platform, channel_code, priority, follow_ups_total, inbox_count,
        (created_at AT TIME ZONE 'UTC')::date AS day
    {_JOBS}) job
GROUP BY GROUPING SETS ((status), (job_type_key), (platform, channel_code), (priority), (day), ())
"""  # noqa: S608 - constants
_DURATIONS = f"""
SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)::float4)
{_JOBS} AND started_at IS NOT NULL AND finished_at IS NOT NULL
"""  # noqa: S608 - constants
_QUEUES = f"""
SELECT lane, count(*), min(queue_at + {HEAD_START}) FROM agent_jobs_job j
WHERE queue_at IS NOT NULL AND org_id = %(org)s AND lane = ANY(%(lanes)s) GROUP BY lane ORDER BY lane
"""  # noqa: S608 - constants
_WORKERS = """
SELECT w.id, w.started_at, w.seen_at, w.runners, (
    SELECT count(*) FROM agent_jobs_job j WHERE j.worker_id = w.id AND j.lease_until IS NOT NULL AND j.org_id = %(org)s)
FROM agent_jobs_workerprocess w
WHERE w.lost_at IS NULL AND w.seen_at > now() - make_interval(secs => %(alive)s) ORDER BY w.id
"""
# The bits of `grouping`: 1 for each column that a row of the result is not grouped by.
_KINDS = {0b01111: "status", 0b10111: "job_type", 0b11011: "channel", 0b11101: "priority", 0b11110: "day", 0b11111: ""}


@dataclass(frozen=True, slots=True)
class QueueState:
    """The jobs of the organisation in one queue. `oldest_at`: since when the one that waits longest is ready."""

    queue: str
    waiting: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """`by_channel` and `by_type` have the largest MOST_LISTED. Durations are in seconds, from the first start to the
    end; None without ended jobs.
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
    """Of the jobs created from `since` on and before `until`. The queues are those of now."""
    asked: dict[str, Any] = {"org": org_id, "since": since, "until": until, "lanes": list(lanes)}
    found: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in _KINDS.values()}
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, asked)
        for kind, *row in cursor.fetchall():
            found[_KINDS[kind]].append(tuple(row))
        cursor.execute(_DURATIONS, asked)
        p50, p95 = cursor.fetchone()[0] or (None, None)
        cursor.execute(_QUEUES, asked)
        queues = [QueueState(*row) for row in cursor.fetchall()]
    (whole,) = found[""]
    statuses = {row[0].lower(): row[6] for row in found["status"]}
    return JobStatistics(
        total=whole[6],
        by_status={status: statuses.get(status, 0) for status in _STATUSES},
        by_type=_largest((row[1], row[6]) for row in found["job_type"]),
        by_channel=_largest((row[2], row[3], row[6]) for row in found["channel"]),
        by_priority={row[4]: row[6] for row in sorted(found["priority"], key=lambda row: row[4])},
        by_day={row[5]: row[6] for row in sorted(found["day"], key=lambda row: row[5])},
        follow_ups=int(whole[7] or 0),
        replies=int(whole[8] or 0),
        jobs_with_reply=whole[9],
        p50_seconds=p50,
        p95_seconds=p95,
        cost=_cost(org_id, since, until),
        queues=queues,
    )


def now() -> datetime:
    """By the database's clock, which the jobs' times are of."""
    at: datetime = prepared_sql.first("SELECT statement_timestamp()")[0]
    return at


def workers(org_id: str) -> list[Mapping[str, Any]]:
    """The living worker processes of the service, with the number of the organisation's jobs that each holds."""
    with connection.cursor() as cursor:
        cursor.execute(_WORKERS, {"org": org_id, "alive": _ALIVE_SECONDS})
        names = ("id", "started_at", "seen_at", "runners", "holds")
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _largest(rows: Any) -> list[Any]:
    return sorted(rows, key=lambda row: (-row[-1], row[:-1]))[:MOST_LISTED]


def _cost(org_id: str, since: datetime, until: datetime) -> Decimal:
    """Of the model calls on the days of the range, both included."""
    days = UsageDay.objects.filter(org_id=org_id, day__gte=since.date(), day__lte=until.date())
    return days.aggregate(total=Sum("cost"))["total"] or Decimal(0)
