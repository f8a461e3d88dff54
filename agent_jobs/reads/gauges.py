"""Gauges read from the database for monitoring: numbers over all organisations together.

Each statement walks a partial index and stops at `MOST_COUNTED` rows: a million waiting jobs cost no more than ten
thousand. No gauge names an organisation.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from agent_jobs.lifecycle import queues
from agent_jobs.lifecycle.queue_order import HEAD_START
from agent_jobs.models import DutyRun
from agent_jobs.states import WaitingFor
from channels_integration import outbox
from channels_integration.backlog import MOST_COUNTED, backlog
from infra import doorbell, raw_sql

_CACHED_SECONDS = 2.0
_MOST_ORGS = 1_000
_ALIVE_SECONDS = 15

# The oldest job of each organisation, by skipping from one to the next: the index is (lane, organisation, queue_at).
_LAG = f"""
WITH RECURSIVE orgs AS (
    (SELECT org_id, 1 AS number FROM agent_jobs_job WHERE queue_at IS NOT NULL AND lane = %(lane)s
        ORDER BY org_id LIMIT 1)
    UNION ALL
    SELECT (SELECT j.org_id FROM agent_jobs_job j
        WHERE j.queue_at IS NOT NULL AND j.lane = %(lane)s AND j.org_id > orgs.org_id ORDER BY j.org_id LIMIT 1),
        number + 1
    FROM orgs WHERE org_id IS NOT NULL AND number < {_MOST_ORGS}
)
SELECT coalesce(max(extract(epoch FROM now() - first.ready_at)), 0)
FROM orgs, LATERAL (
    SELECT j.queue_at + {HEAD_START} AS ready_at
    FROM agent_jobs_job j WHERE j.queue_at IS NOT NULL AND j.lane = %(lane)s AND j.org_id = orgs.org_id
    ORDER BY j.queue_at, j.id LIMIT 1) first
"""
_READY = f"""
SELECT count(*) FROM (
    SELECT FROM agent_jobs_job WHERE queue_at IS NOT NULL AND lane = %s LIMIT {MOST_COUNTED}) ready
"""
_LEASED = f"SELECT count(*) FROM (SELECT FROM agent_jobs_job WHERE lease_until IS NOT NULL LIMIT {MOST_COUNTED}) leased"
_WAITING = f"""
SELECT waiting_for, count(*) FROM (
    SELECT waiting_for FROM agent_jobs_job
    WHERE status IN ('WAITING', 'RUNNING') AND deadline_at IS NOT NULL AND lease_until IS NULL AND queue_at IS NULL
    LIMIT {MOST_COUNTED}) begun
GROUP BY waiting_for
"""
_OVERDUE = f"""
SELECT count(*), coalesce(max(extract(epoch FROM now() - at)), 0) FROM (
    SELECT scheduled_at AS at FROM agent_jobs_job WHERE status = 'SCHEDULED' AND scheduled_at <= now()
    ORDER BY scheduled_at LIMIT {MOST_COUNTED}) overdue
"""
_WORKERS = f"""
SELECT count(*) FROM agent_jobs_workerprocess
WHERE lost_at IS NULL AND seen_at > now() - interval '{_ALIVE_SECONDS} seconds'
"""
_DUTIES = "SELECT duty, extract(epoch FROM now() - done_at) FROM agent_jobs_dutyrun WHERE duty <> %s"


@dataclass(frozen=True, slots=True)
class Gauge:
    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


_lock = threading.Lock()
_cached: tuple[float, str, Sequence[Gauge]] = (float("-inf"), "", ())


def read() -> Sequence[Gauge]:
    """All gauges, at most two seconds old. A database error passes through."""
    global _cached
    name = str(connection.settings_dict["NAME"])
    with _lock:  # concurrent readers share one query
        at, database, gauges = _cached
        if database != name or time.monotonic() - at > _CACHED_SECONDS:
            gauges = (*_of_jobs(), *_of_processes(), *_of_channels())
            _cached = (time.monotonic(), name, gauges)
        return gauges


def forget() -> None:
    """Drop the cache; the next call reads the database."""
    global _cached
    _cached = (float("-inf"), "", ())


def _of_jobs() -> list[Gauge]:
    gauges = []
    for lane in queues.LANES:
        lag, ready = raw_sql.value(_LAG, {"lane": lane}), raw_sql.value(_READY, [lane])
        gauges.append(Gauge("lane_lag_seconds", max(float(lag), 0.0), (("lane", lane),)))
        gauges.append(Gauge("lane_ready_jobs", ready, (("lane", lane),)))
    gauges.append(Gauge("leases", raw_sql.value(_LEASED)))
    waiting = dict(raw_sql.all_rows(_WAITING))
    for kind in WaitingFor:
        if kind != WaitingFor.COOLDOWN:  # of SCHEDULED jobs
            gauges.append(Gauge("waiting_jobs", waiting.get(kind, 0), (("waiting_for", kind),)))
    count, late = raw_sql.first(_OVERDUE)
    return [*gauges, Gauge("scheduled_overdue_jobs", count), Gauge("scheduled_overdue_seconds", float(late))]


def _of_processes() -> list[Gauge]:
    gauges = [Gauge("workers_alive", raw_sql.value(_WORKERS))]
    for duty, age in raw_sql.all_rows(_DUTIES, [DutyRun.RESUMED]):
        gauges.append(Gauge("duty_age_seconds", float(age), (("duty", duty),)))
    for queue in (*queues.LANES, queues.DUTIES_QUEUE, outbox.QUEUE):
        bells = doorbell.waiting(queue)
        if bells is not None:
            gauges.append(Gauge("bells_waiting", bells, (("queue", queue),)))
    return gauges


def _of_channels() -> list[Gauge]:
    found = backlog()
    gauges = []
    for status in ("pending", "sending", "unknown"):
        count, late, age = found.outbox.get(status, (0, 0.0, 0.0))
        labels = (("status", status),)
        gauges.append(Gauge("outbox_messages", count, labels))
        gauges.append(Gauge("outbox_late_seconds", late, labels))
        gauges.append(Gauge("outbox_age_seconds", age, labels))
    gauges.append(Gauge("inbox_waiting_events", found.inbox))
    gauges.append(Gauge("inbox_late_seconds", found.inbox_late_seconds))
    return gauges
