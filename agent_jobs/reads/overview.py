"""The figures of the overview, in four statements: what is alive, what ended, which types fail, what was spent.

Counts of what is alive stop at `MOST_COUNTED`. What ended has an index of its own, into which a job comes once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_jobs.lifecycle.queue_order import HEAD_START
from agent_jobs.states import TERMINAL, JobStatus
from infra import raw_sql

MOST_COUNTED = 10_000
_ALIVE = f"""
WITH running AS (
    SELECT CASE WHEN lease_until IS NOT NULL THEN 'worker' WHEN queue_at IS NOT NULL THEN 'queue' ELSE waiting_for END
        AS does, updated_at, wake_at
    FROM agent_jobs_job WHERE org_id = %(org)s AND status = 'RUNNING' LIMIT {MOST_COUNTED + 1}
), queued AS (
    SELECT j.lane, j.queue_at + {HEAD_START} AS since, j.id FROM agent_jobs_job j
    WHERE j.org_id = %(org)s AND j.queue_at IS NOT NULL LIMIT {MOST_COUNTED + 1}
)
SELECT
    (SELECT count(*) FROM (SELECT FROM agent_jobs_job WHERE org_id = %(org)s AND status = 'SCHEDULED'
        LIMIT {MOST_COUNTED + 1}) s),
    (SELECT count(*) FROM (SELECT FROM agent_jobs_job WHERE org_id = %(org)s AND status = 'WAITING'
        LIMIT {MOST_COUNTED + 1}) w),
    (SELECT count(*) FROM running),
    (SELECT min(scheduled_at) FROM agent_jobs_job WHERE org_id = %(org)s AND status = 'SCHEDULED'
        AND scheduled_at > now()),
    coalesce((SELECT json_agg(r) FROM (SELECT does, count(*) AS number, min(updated_at) AS oldest, min(wake_at) AS next
        FROM running GROUP BY does) r), '[]'),
    coalesce((SELECT json_agg(q) FROM (SELECT lane, count(*) AS number, min(since) AS oldest,
        (array_agg(id ORDER BY since))[1] AS first FROM queued GROUP BY lane ORDER BY lane) q), '[]'),
    (SELECT row_to_json(a) FROM (SELECT id, job_id, tool, created_at, expires_at, timer_seconds FROM agent_jobs_approval
        WHERE org_id = %(org)s AND status = 'pending' ORDER BY timer_seconds IS NULL DESC, expires_at LIMIT 1) a),
    (SELECT min(created_at) FROM agent_jobs_approval WHERE org_id = %(org)s AND status = 'pending'),
    coalesce((SELECT json_agg(p ORDER BY p.name) FROM (SELECT name, seen_at, worked_at FROM agent_jobs_workerprocess
        WHERE lost_at IS NULL AND seen_at > now() - interval '10 minutes') p), '[]'),
    coalesce((SELECT json_agg(f ORDER BY f.next_at) FROM (SELECT id, name, next_at FROM agent_jobs_schedule
        WHERE org_id = %(org)s AND next_at IS NOT NULL ORDER BY next_at LIMIT 5) f), '[]'),
    coalesce((SELECT json_agg(d ORDER BY d.duty) FROM (SELECT duty, done_at FROM agent_jobs_dutyrun) d), '[]')
"""  # noqa: S608 - constants
_ENDED = """
SELECT floor(extract(epoch FROM finished_at - %(since)s) / %(width)s)::int, status, count(*)
FROM agent_jobs_job
WHERE org_id = %(org)s AND finished_at >= %(since)s GROUP BY 1, 2
"""
_TYPES = """
WITH ended AS (
    SELECT id, job_type_key, status, error_code, left(error_message, 200) AS message, finished_at,
        extract(epoch FROM finished_at - coalesce(started_at, created_at))::float8 AS seconds
    FROM agent_jobs_job WHERE org_id = %(org)s AND finished_at >= %(since)s
), by_type AS (
    SELECT job_type_key, count(*) AS number, count(*) FILTER (WHERE status = 'FAILED') AS failed,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE status = 'COMPLETED') AS took
    FROM ended GROUP BY job_type_key
), last_error AS (
    SELECT DISTINCT ON (job_type_key) job_type_key, id, error_code, message, finished_at FROM ended
    WHERE status = 'FAILED' ORDER BY job_type_key, finished_at DESC
)
SELECT by_type.job_type_key, coalesce(t.name, ''), by_type.number, by_type.failed, took[1], took[2], last_error.id,
    coalesce(last_error.error_code, ''), coalesce(last_error.message, ''), last_error.finished_at
FROM by_type LEFT JOIN last_error USING (job_type_key)
LEFT JOIN agent_jobs_jobtype t ON t.org_id = %(org)s AND t.key = by_type.job_type_key
ORDER BY by_type.number DESC, by_type.job_type_key LIMIT 40
"""
_SPENT = """
SELECT
    (SELECT max_cost_per_day FROM agent_jobs_org WHERE id = %(org)s),
    coalesce((SELECT json_agg(u) FROM (SELECT day, usage.job_type_key AS key, coalesce(max(t.name), '') AS name,
        sum(cost) AS cost, max(t.max_cost_per_day) AS cap
        FROM agent_jobs_usageday usage
        LEFT JOIN agent_jobs_jobtype t ON t.org_id = %(org)s AND t.key = usage.job_type_key
        WHERE usage.org_id = %(org)s AND day >= %(first)s GROUP BY 1, 2) u), '[]')
"""


@dataclass(frozen=True, slots=True)
class Doing:
    """The number of RUNNING jobs in one state. `what`: `worker`, `queue` or the reason of a wait. `next_at`: the
    earliest time at which one of them goes on by itself.
    """

    what: str
    number: int
    oldest_at: datetime
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class LaneQueue:
    lane: str
    number: int
    oldest_at: datetime
    first_job: UUID


@dataclass(frozen=True, slots=True)
class FirstApproval:
    job_id: UUID
    tool: str
    created_at: datetime
    expires_at: datetime | None
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class SeenProcess:
    name: str
    seen_at: datetime
    worked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NextFiring:
    schedule_id: UUID
    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Alive:
    scheduled: int
    waiting: int
    running: int
    next_start: datetime | None
    doing: Sequence[Doing]
    queues: Sequence[LaneQueue]
    approval: FirstApproval | None
    workers: Sequence[SeenProcess]
    firings: Sequence[NextFiring]
    duties: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """Jobs of one type that ended. `median` and `p95`: seconds from the start to the end of completed ones."""

    key: str
    name: str
    number: int
    failed: int
    median: float | None
    p95: float | None
    last_id: UUID | None
    last_code: str
    last_message: str
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class TypeSpend:
    key: str
    name: str
    cost: Decimal
    cap: Decimal | None


@dataclass(frozen=True, slots=True)
class Spend:
    """The cost of model calls. `mean` is the average day of the seven before yesterday. Job types: the most expensive
    first.
    """

    cap: Decimal | None
    today: Decimal
    yesterday: Decimal
    mean: Decimal
    today_by_type: Sequence[TypeSpend]
    yesterday_by_type: Sequence[TypeSpend]


def alive(org_id: str) -> Alive:
    found = raw_sql.first(_ALIVE, {"org": org_id})
    scheduled, waiting, running, start, doing, queues, first, oldest, workers, firings, duties = found
    return Alive(
        scheduled=scheduled,
        waiting=waiting,
        running=running,
        next_start=start,
        doing=[Doing(one["does"], one["number"], _time(one["oldest"]), _maybe(one["next"])) for one in doing],
        queues=[LaneQueue(one["lane"], one["number"], _time(one["oldest"]), UUID(one["first"])) for one in queues],
        approval=None if first is None else _approval(first, oldest),
        workers=[SeenProcess(one["name"], _time(one["seen_at"]), _maybe(one["worked_at"])) for one in workers],
        firings=[NextFiring(UUID(one["id"]), one["name"], _time(one["next_at"])) for one in firings],
        duties={one["duty"]: _time(one["done_at"]) for one in duties},
    )


def ended(org_id: str, *, since: datetime, width: timedelta, buckets: int) -> list[dict[str, int]]:
    """Jobs that ended in each of the periods of this width, by status in small letters."""
    found = [{status.lower(): 0 for status in JobStatus if status in TERMINAL} for _ in range(buckets)]
    asked = {"org": org_id, "since": since, "width": width.total_seconds()}
    for place, status, number in raw_sql.all_rows(_ENDED, asked):
        if 0 <= place < buckets:
            found[place][status.lower()] = number
    return found


def types(org_id: str, *, since: datetime) -> list[TypeFigures]:
    """Job types with their jobs that ended after `since`; the type with the most jobs first."""
    return [TypeFigures(*row) for row in raw_sql.all_rows(_TYPES, {"org": org_id, "since": since})]


def spend(org_id: str, *, today: date) -> Spend:
    cap, rows = raw_sql.first(_SPENT, {"org": org_id, "first": today - timedelta(days=8)})
    by_day: dict[date, list[TypeSpend]] = {}
    for row in rows:
        one = TypeSpend(row["key"], row["name"], Decimal(str(row["cost"])), _money(row["cap"]))
        by_day.setdefault(date.fromisoformat(row["day"]), []).append(one)
    yesterday = today - timedelta(days=1)
    before = [_sum(by_day.get(yesterday - timedelta(days=ago), [])) for ago in range(1, 8)]
    return Spend(
        cap=cap,
        today=_sum(by_day.get(today, [])),
        yesterday=_sum(by_day.get(yesterday, [])),
        mean=sum(before, Decimal(0)) / len(before),
        today_by_type=_dearest(by_day.get(today, [])),
        yesterday_by_type=_dearest(by_day.get(yesterday, [])),
    )


def _approval(first: Mapping[str, Any], oldest: datetime) -> FirstApproval:
    expires_at = None if first["timer_seconds"] is not None else _time(first["expires_at"])
    return FirstApproval(UUID(first["job_id"]), first["tool"], _time(first["created_at"]), expires_at, oldest)


def _dearest(found: Sequence[TypeSpend]) -> list[TypeSpend]:
    return sorted(found, key=lambda one: (-one.cost, one.key))


def _sum(found: Sequence[TypeSpend]) -> Decimal:
    return sum((one.cost for one in found), Decimal(0))


def _money(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


_time = datetime.fromisoformat


def _maybe(text: str | None) -> datetime | None:
    return _time(text) if text else None
