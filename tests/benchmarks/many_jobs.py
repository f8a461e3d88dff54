"""Bulk creation through the API, and claims beside a million ended jobs, in a durable PostgreSQL of its own.

create   POSTs of 1,000 jobs, one after the other
claims   single claims of waiting jobs of many organisations: alone, and beside ended jobs of one organisation

python -m tests.benchmarks.many_jobs [create] [claims] [--jobs 1000000] [--waiting 100000] [--orgs 1000]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.__main__ import prepare, servers

_COLUMNS = """
INSERT INTO agent_jobs_job (id, org_id, status, job_type_key, runner, lane, platform, channel_code, prompt, params,
    config, channel_data, tags, priority, is_new_channel, ignore_cooldown, created_at, updated_at, scheduled_at,
    started_at, finished_at, queue_at, delay_minutes, delay_seconds, deadline_minutes, waiting_for, resume, lease_token,
    attempt, failed_attempts, crash_count, retry_count, thread, inbox_count, inbox_seen, follow_ups_sent,
    follow_ups_total, result, error_code, error_message, channel_type)
"""
_ENDED = f"""{_COLUMNS}
SELECT uuidv7(at - now()), 'bench', CASE n %% 10 WHEN 0 THEN 'FAILED' ELSE 'COMPLETED' END, 'say' || n %% 7, 'message',
    'messages', 'null', 'c' || n %% 100, 'Hi', '{{"n": 1}}', '{{}}', '{{}}', '{{}}', n %% 10, false, false, at, at, at,
    at, at + (0.2 + random() ^ 3 * 600) * interval '1 second', NULL, 0, 0, 60, '', '', 1, 1, 0, 0, 0, '',
    n %% 3, 0, 0, n %% 2, 'Hi', '', '', ''
FROM (SELECT n, now() - (n::float8 / %(jobs)s) * interval '30 days' AS at FROM generate_series(%(first)s::int,
    %(last)s::int) n) moments
"""
WAITING = f"""{_COLUMNS}
SELECT uuidv7(), 'org' || n %% %(orgs)s, 'WAITING', 'say', 'message', 'messages', 'null', 'nowhere', 'Hi', '{{}}',
    '{{}}', '{{}}', '{{}}', 5, false, false, now(), now(), now(), NULL, NULL, now(), 0, 0, 60, '', '', 0, 0, 0, 0, 0,
    '', 0, 0, 0, 0, NULL, '', '', ''
FROM generate_series(1, %(waiting)s::int) n
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parts", nargs="*", help="create, claims; both by default")
    options.add_argument("--jobs", type=int, default=1_000_000, help="ended jobs, for the claims")
    options.add_argument("--create", type=int, default=100_000, help="jobs to create in bulk")
    options.add_argument("--waiting", type=int, default=100_000, help="waiting jobs, for the claims")
    options.add_argument("--orgs", type=int, default=1_000, help="organisations of the waiting jobs")
    options.add_argument("--rounds", type=int, default=500, help="how many claims to time")
    given = options.parse_args()
    os.environ["AGENT_JOBS_LOG_LEVEL"] = "WARNING"
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        if not given.parts or "create" in given.parts:
            create(given.create)
        if not given.parts or "claims" in given.parts:
            wait_in_line(given.waiting, given.orgs)
            claim(given.rounds, "without ended jobs")
            fill(given.jobs)
            claim(given.rounds, f"beside {given.jobs:,} ended jobs")


def create(jobs: int) -> None:
    from django.conf import settings

    from agent_jobs.models import Org
    from tests import factories

    settings.ALLOWED_HOSTS = ["*"]
    Org.objects.filter(pk="bench").update(max_waiting_jobs=jobs * 2)
    api = factories.api("bench", "SERVICES:WRITE")
    place = {"org_id": "bench", "platform": "null", "code": "nowhere"}
    body = {"jobs": [{"job_type_id": "say", "target_channel": place, "params": {"n": n}} for n in range(1_000)]}
    began, took = time.monotonic(), []
    for _ in range(0, jobs, 1_000):
        at = time.monotonic()
        response = api.post("/services/agent-jobs/bulk", body)
        assert response.status_code == 201, response.content
        took.append(time.monotonic() - at)
    rate = jobs / (time.monotonic() - began)
    print(f"create: {jobs} jobs, {rate:.0f} a second; a request of 1,000 {shown(took)}", flush=True)


def fill(jobs: int) -> None:
    """Fills without the indexes that nothing here reads, which take most of the time."""
    from django.db import connection

    kept = {
        *(
            "agent_jobs_job_pkey",
            "job_living",
            "job_duration",
            "job_created",
            "job_queue",
            "job_resumed",
            "job_running",
            "job_due",
            "job_wake",
        ),
        *("job_channel", "job_status"),
    }
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'agent_jobs_job'")
        for (name,) in cursor.fetchall():
            if name not in kept:
                cursor.execute(f'DROP INDEX "{name}"')
        for first in range(1, jobs + 1, 50_000):
            cursor.execute(_ENDED, {"jobs": jobs, "first": first, "last": min(first + 49_999, jobs)})
        cursor.execute("VACUUM ANALYZE agent_jobs_job")
        cursor.execute("SET statement_timeout = '30s'")
    print(f"fill: {jobs} ended jobs in {time.monotonic() - began:.0f} s", flush=True)


def wait_in_line(waiting: int, orgs: int) -> None:
    from django.db import connection

    from agent_jobs.models import Org

    Org.objects.bulk_create([Org(id=f"org{number}", name="o") for number in range(orgs)])
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(WAITING, {"waiting": waiting, "orgs": orgs})
        cursor.execute("VACUUM ANALYZE agent_jobs_job")
        cursor.execute("SET statement_timeout = '30s'")
    print(f"claims: {waiting:,} waiting jobs of {orgs:,} organisations", flush=True)


def claim(rounds: int, where: str) -> None:
    from agent_jobs import lifecycle
    from agent_jobs.lifecycle import OrgRotation

    turn = OrgRotation()

    def one() -> None:
        assert lifecycle.settle_and_claim([], lane="messages", turn=turn, worker_id=1).claimed

    def worked() -> float:
        began = seconds()
        one()
        return seconds() - began

    timed(50, one)
    seconds = cpu_clock()
    cpu: list[float] = []
    took = timed(rounds, lambda: cpu.append(worked()))
    print(f"claims: {where}: {shown(took)} (p99 under 10); PostgreSQL's CPU {shown(cpu)}", flush=True)


def cpu_clock() -> Callable[[], float]:
    """The CPU seconds that PostgreSQL has used for this connection. Other work on the machine hardly adds to them."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        schedule = Path(f"/proc/{cursor.fetchone()[0]}/schedstat")
    return lambda: int(schedule.read_text().split()[0]) / 1e9


def timed(rounds: int, work: Callable[[], object]) -> list[float]:
    took = []
    for _ in range(rounds):
        at = time.monotonic()
        work()
        took.append(time.monotonic() - at)
    return took


def shown(took: Sequence[float]) -> str:
    by = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else [took[0]] * 99
    return f"p50 {by[49] * 1000:.1f} ms, p95 {by[94] * 1000:.1f} ms, p99 {by[98] * 1000:.1f} ms"


if __name__ == "__main__":
    main()
