"""Two ways to count a million jobs in one run: an index over every job, and tallies kept by a trigger.

Ended jobs are made by SQL, of one organisation, spread over 30 days, 7 types, 100 channels and any duration.

    statistics  the last day, 7 days and all jobs, in both ways
    writes      a job's settlement with the next claim, in both ways, alternating

    python -m tests.benchmarks.job_counts [--jobs 1000000] [--rounds 20] [--turns 1000]
"""

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.benchmarks.__main__ import prepare, servers
from tests.benchmarks.many_jobs import WAITING, cpu_clock, fill, shown, timed

# As it was before there were tallies.
_INDEX = """
CREATE INDEX job_statistics ON agent_jobs_job (org_id, created_at) INCLUDE (status, job_type_key, platform,
    channel_code, priority, started_at, finished_at, follow_ups_total, inbox_count)
"""
_JOBS = "FROM agent_jobs_job WHERE org_id = 'bench' AND created_at >= %(since)s AND created_at < %(until)s"
_COUNTS = f"""
SELECT grouping(status, job_type_key, platform, priority, day), status, job_type_key, platform, channel_code,
    priority, day, count(*), sum(follow_ups_total), sum(inbox_count), count(*) FILTER (WHERE inbox_count > 0)
FROM (SELECT status, job_type_key, platform, channel_code, priority, follow_ups_total, inbox_count,
    (created_at AT TIME ZONE 'UTC')::date AS day {_JOBS}) job
GROUP BY GROUPING SETS ((status), (job_type_key), (platform, channel_code), (priority), (day), ())
"""
_DURATIONS = f"""
SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)::float4)
{_JOBS} AND started_at IS NOT NULL AND finished_at IS NOT NULL
"""
_OF_TALLIES = ("job_living", "job_duration")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1_000_000, help="ended jobs")
    options.add_argument("--rounds", type=int, default=20, help="how often to read")
    options.add_argument("--turns", type=int, default=1000, help="how many turns to settle in each way")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        fill(given.jobs)
        add_entries()
        read_both(given.rounds)
        write_both(given.turns)


def add_entries() -> None:
    from django.db import connection

    from agent_jobs.duties import tallying

    began, total = time.monotonic(), 0
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        while added := tallying.add_entries():
            total += added
        cursor.execute("VACUUM ANALYZE agent_jobs_jobtallyentry, agent_jobs_jobtally")
        cursor.execute("SET statement_timeout = '30s'")
        took = time.monotonic() - began
        cursor.execute("SELECT count(*) FROM agent_jobs_jobtally")
        print(
            f"tallies: {cursor.fetchone()[0]} rows from {total} entries, {took / max(total, 1) * 1e6:.0f} µs an entry",
            flush=True,
        )


def read_both(rounds: int) -> None:
    from django.db import connection

    from agent_jobs.reads import job_statistics

    until = datetime.now(UTC) + timedelta(minutes=1)
    with connection.cursor() as cursor:
        cursor.execute(_INDEX)
        cursor.execute("VACUUM ANALYZE agent_jobs_job")
    for days in (1, 7, 31):
        since = until - timedelta(days=days)

        def by_tallies(since: datetime = since) -> job_statistics.JobStatistics:
            return job_statistics.of("bench", since=since, until=until, lanes=["messages"])

        def by_index(since: datetime = since) -> list[Any]:
            with connection.cursor() as cursor:
                cursor.execute(_COUNTS, {"since": since, "until": until})
                found = cursor.fetchall()
                cursor.execute(_DURATIONS, {"since": since, "until": until})
                return [*cursor.fetchone()[0], *found]

        tallied, indexed = by_tallies(), by_index()
        whole = next(row for row in indexed[2:] if row[0] == 0b11111)
        same = [tallied.total, tallied.replies, tallied.p50_seconds, tallied.p95_seconds]
        assert same == [whole[7], whole[9], *indexed[:2]], (same, whole, indexed[:2])
        took = timed(max(rounds // 4, 3), by_index), timed(rounds, by_tallies)
        print(f"statistics: {days} days, {tallied.total} jobs, index:   {shown(took[0])}", flush=True)
        print(f"statistics: {days} days, {tallied.total} jobs, tallies: {shown(took[1])} (p95 at most 50)", flush=True)
    print(f"workers: {shown(timed(rounds, lambda: job_statistics.workers('bench')))}", flush=True)


def write_both(turns: int) -> None:
    """Settlements with claims, in turn for two organisations: one has tallies, the other the index alone.

    Halfway they swap their queues, because the place of a queue's rows in the indexes makes a difference, too.
    """
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("INSERT INTO agent_jobs_org (id, name, weight) VALUES ('org0', 'o', 1), ('org1', 'o', 1)")
        cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE indexname = ANY(%s)", [list(_OF_TALLIES)])
        for name, definition in cursor.fetchall():
            cursor.execute(f"DROP INDEX {name}; {definition} AND org_id <> 'org1'")
        cursor.execute(f"DROP INDEX job_statistics; {_INDEX} WHERE org_id <> 'org0'")
        cursor.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'jobs_are_tallied'"
            " AND tgrelid = 'agent_jobs_job'::regclass"
        )
        trigger = (
            cursor.fetchone()[0].replace("WHEN (", "WHEN (NEW.org_id <> 'org1' AND (").replace(") EXEC", ")) EXEC")
        )
        cursor.execute(f"DROP TRIGGER jobs_are_tallied ON agent_jobs_job; {trigger}")
    took: dict[str, list[float]] = {"tallies": [], "index": []}
    worked: dict[str, list[float]] = {"tallies": [], "index": []}
    for queues in (("messages", "agents"), ("agents", "messages")):
        _settle(dict(zip(took, queues, strict=True)), turns // 2, took, worked)
    for name in took:
        print(f"writes: a settlement with a claim, {name}: {shown(took[name])}; PostgreSQL's CPU {shown(worked[name])}")
    for what, of in (("time", took), ("CPU", worked)):
        ratio = statistics.median(of["tallies"]) / statistics.median(of["index"])
        print(f"writes: {what} with tallies: {ratio:.2f} times that with the index (at most 1.1)", flush=True)


def _settle(lanes: dict[str, str], turns: int, took: dict[str, list[float]], worked: dict[str, list[float]]) -> None:
    from django.db import connection

    from agent_jobs import lifecycle
    from agent_jobs.lifecycle import OrgRotation, Settlement
    from agent_jobs.states import JobStatus, TaskStatus

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM agent_jobs_job WHERE finished_at IS NULL")
        cursor.execute(WAITING, {"waiting": 2 * turns + 200, "orgs": 2})
        for org_id, lane in zip(("org0", "org1"), lanes.values(), strict=True):
            cursor.execute(
                "UPDATE agent_jobs_job SET lane = %s WHERE org_id = %s AND queue_at IS NOT NULL", [lane, org_id]
            )
        cursor.execute("VACUUM ANALYZE agent_jobs_job")
        cursor.execute("CHECKPOINT")
    seconds = cpu_clock()
    rotations = {name: OrgRotation() for name in lanes}
    settlements: dict[str, list[Settlement]] = {name: [] for name in lanes}
    for number in range(turns + 50):
        for name in sorted(lanes, reverse=number % 2 == 0):
            began, cpu = time.monotonic(), seconds()
            answer = lifecycle.settle_and_claim(settlements[name], lane=lanes[name], turn=rotations[name], worker_id=1)
            if number >= 50:
                took[name].append(time.monotonic() - began)
                worked[name].append(seconds() - cpu)
            (claim,) = answer.claimed
            ended = (JobStatus.COMPLETED, TaskStatus.COMPLETED)
            settlements[name] = [Settlement(claim.id, claim.token, claim.task_id, *ended, result="Hi")]


if __name__ == "__main__":
    main()
