"""Statistics of a million jobs: the last day, 7 days and all of them.

Ended jobs are made by SQL, of one organisation, spread over 30 days, 7 types, 100 channels and any duration.

    python -m tests.benchmarks.job_counts [--jobs 1000000] [--rounds 20]
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.benchmarks.__main__ import prepare, servers
from tests.benchmarks.many_jobs import fill, shown, timed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1_000_000, help="ended jobs")
    options.add_argument("--rounds", type=int, default=20, help="how often to read")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        fill(given.jobs)
        add_entries()
        read(given.rounds)


def add_entries() -> None:
    from django.db import connection

    from agent_jobs.duties import tallying

    began, total = time.monotonic(), 0
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        while added := tallying.add_entries():
            total += added
        cursor.execute("VACUUM ANALYZE agent_jobs_jobtallyentry, agent_jobs_jobtally")
        cursor.execute("VACUUM ANALYZE agent_jobs_job")
        cursor.execute("SET statement_timeout = '30s'")
        took = time.monotonic() - began
        cursor.execute("SELECT count(*) FROM agent_jobs_jobtally")
        print(
            f"tallies: {cursor.fetchone()[0]} rows from {total} entries, {took / max(total, 1) * 1e6:.0f} µs an entry",
            flush=True,
        )


def read(rounds: int) -> None:
    from agent_jobs.reads import job_statistics

    until = datetime.now(UTC) + timedelta(minutes=1)
    for days in (1, 7, 31):
        since = until - timedelta(days=days)

        def count(since: datetime = since) -> job_statistics.JobStatistics:
            return job_statistics.of("bench", since=since, until=until, lanes=["messages"])

        print(f"{days} days, {count().total} jobs: {shown(timed(rounds, count))} (p95 at most 50)", flush=True)
    print(f"workers: {shown(timed(rounds, lambda: job_statistics.workers('bench')))}", flush=True)


if __name__ == "__main__":
    main()
