"""Bulk creation, statistics, and claims, in tables of a million jobs.

A durable PostgreSQL of its own. Ended jobs are made by SQL, of one organisation, spread over 30 days, types and
channels.

    create      POSTs of 1,000 jobs through the whole API, one after the other
    statistics  the statistics of the last day, of 7 days and of all jobs
    counters    what counters kept by a trigger would cost the writers: creating jobs without and with them
    claims      single claims, with ended jobs beside waiting ones of many organisations

    python -m tests.benchmarks.many_jobs [--jobs 1000000] [--create 100000] [--waiting 100000] [--orgs 1000]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
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
    at, at + (n %% 600) * interval '1 second', NULL, 0, 0, 60, '', '', 1, 1, 0, 0, 0, '', n %% 3, 0, 0, n %% 2, 'Hi',
    '', '', ''
FROM (SELECT n, now() - (n::float8 / %(jobs)s) * interval '30 days' AS at FROM generate_series(%(first)s::int,
    %(last)s::int) n) moments
"""
_WAITING = f"""{_COLUMNS}
SELECT uuidv7(), 'org' || n %% %(orgs)s, 'WAITING', 'say', 'message', 'messages', 'null', 'nowhere', 'Hi', '{{}}',
    '{{}}', '{{}}', '{{}}', 5, false, false, now(), now(), now(), NULL, NULL, now(), 0, 0, 60, '', '', 0, 0, 0, 0, 0,
    '', 0, 0, 0, 0, NULL, '', '', ''
FROM generate_series(1, %(waiting)s::int) n
"""
# The cheapest form of a counter: one row for each (organisation, day, type, channel, priority, status) and backend.
_COUNTERS = """
CREATE UNLOGGED TABLE tally (org text, day date, type text, channel text, priority int, status text, part int, n bigint,
    PRIMARY KEY (org, day, type, channel, priority, status, part));
CREATE FUNCTION tally_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tally SELECT org_id, created_at::date, job_type_key, channel_code, priority, status,
        pg_backend_pid() % 16, count(*) FROM added GROUP BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (org, day, type, channel, priority, status, part) DO UPDATE SET n = tally.n + excluded.n;
    RETURN NULL;
END $$;
CREATE TRIGGER tallies AFTER INSERT ON agent_jobs_job REFERENCING NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION tally_new();
"""
_OUT_OF_COUNT = "SELECT type, status, sum(n) FROM tally WHERE org = 'bench' AND day > now()::date - 7 GROUP BY 1, 2"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1_000_000, help="ended jobs")
    options.add_argument("--create", type=int, default=100_000, help="jobs to create in bulk")
    options.add_argument("--waiting", type=int, default=100_000, help="waiting jobs, for the claims")
    options.add_argument("--orgs", type=int, default=1_000, help="organisations of the waiting jobs")
    options.add_argument("--rounds", type=int, default=200, help="how often to measure what is short")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        create(given.create)
        fill(given.jobs)
        read_statistics(given.rounds)
        count_by_trigger()
        claim(given.waiting, given.orgs, given.rounds)


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
        *("agent_jobs_job_pkey", "job_statistics", "job_queue", "job_resumed", "job_running", "job_due", "job_wake"),
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


def read_statistics(rounds: int) -> None:
    from agent_jobs.reads import job_statistics

    until = datetime.now(UTC) + timedelta(minutes=1)
    for days in (1, 7, 31):
        since = until - timedelta(days=days)

        def read(since: datetime = since) -> job_statistics.JobStatistics:
            return job_statistics.of("bench", since=since, until=until, lanes=["messages"])

        took, total = timed(min(rounds, 20), read), read().total
        print(f"statistics: {days} days, {total} jobs: {shown(took)}", flush=True)
    print(f"workers: {shown(timed(rounds, lambda: job_statistics.workers('bench')))}", flush=True)


def count_by_trigger() -> None:
    from django.db import connection

    from agent_jobs import jobs
    from agent_jobs.specs import Actor, ChannelSpec, JobSpec

    spec = JobSpec("say", channel=ChannelSpec("null", "nowhere"), params={"n": 1})

    def make() -> None:
        jobs.create("bench", spec, actor=Actor("system", "bench"))

    before = timed(300, make)
    with connection.cursor() as cursor:
        cursor.execute(_COUNTERS)
        after = timed(300, make)

        def read() -> None:
            cursor.execute(_OUT_OF_COUNT)
            cursor.fetchall()

        print(f"counters: a creation {shown(before)}; with counters {shown(after)}; read {shown(timed(100, read))}")
        cursor.execute("DROP TRIGGER tallies ON agent_jobs_job")


def claim(waiting: int, orgs: int, rounds: int) -> None:
    from django.db import connection

    from agent_jobs import lifecycle
    from agent_jobs.lifecycle import OrgRotation
    from agent_jobs.models import Org

    Org.objects.bulk_create([Org(id=f"org{number}", name="o") for number in range(orgs)])
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(_WAITING, {"waiting": waiting, "orgs": orgs})
        cursor.execute("VACUUM ANALYZE agent_jobs_job")
        cursor.execute("SET statement_timeout = '30s'")
    turn = OrgRotation()

    def one() -> None:
        assert lifecycle.settle_and_claim([], lane="messages", turn=turn, worker_id=1).claimed

    print(f"claims: {waiting} waiting jobs of {orgs} organisations: {shown(timed(rounds, one))}", flush=True)


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
