"""Prunes many finished jobs while jobs are posted and run, and says how fast that is and what the others feel of it.

A durable PostgreSQL of its own; each finished job has a task, two messages, four activities and a sent message, as the
service leaves them. A client in this process posts jobs and a worker process runs them: first alone, then beside the
duty of pruning as beat rings it (it rests as long as it works), then beside `manage.py prune` at full speed.

    python -m tests.benchmarks.prune [--jobs 100000] [--seconds 20]
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.__main__ import PAUSE, fresh_starts, post, prepare, servers, workers

_FILL = """
WITH jobs AS (
    INSERT INTO agent_jobs_job (id, org_id, status, job_type_key, runner, lane, platform, channel_code, channel_type,
        channel_data, prompt, params, config, tags, priority, is_new_channel, ignore_cooldown, created_at, scheduled_at,
        started_at, finished_at, delay_minutes, delay_seconds, deadline_minutes, waiting_for, resume, lease_token,
        attempt, failed_attempts, crash_count, retry_count, thread, inbox_count, inbox_seen, follow_ups_sent,
        follow_ups_total, result, error_code, error_message)
    SELECT uuidv7(interval '-200 days' + n * interval '1 second'), 'bench',
        CASE n %% 10 WHEN 0 THEN 'FAILED' ELSE 'COMPLETED' END, 'say', 'message', 'messages', 'null', 'c' || n %% 100,
        '', '{{}}', 'Hi', '{{"n": 1}}', '{{}}', '{{}}', 5, false, false, at, at, at, at + interval '1 second', 0, 0, 60,
        '', '', 1, 1, 0, 0, 0, '', 0, 0, 0, 0, 'Hi 1', '', ''
    FROM (SELECT n, now() - interval '200 days' + n * interval '1 second' AS at
          FROM generate_series(%s::int, %s::int) n) moments
    RETURNING id, org_id, created_at
), tasks AS (
    INSERT INTO agent_jobs_task (job_id, number, lease_token, status) SELECT id, 1, 1, 'COMPLETED' FROM jobs
), messages AS (
    INSERT INTO agent_jobs_message (key, job_id, is_human, author, text)
    SELECT uuidv7(), id, false, 'agent', 'Hi 1' FROM jobs, generate_series(1, 2)
), activities AS (
    INSERT INTO agent_jobs_activity (org_id, job_id, code, note, created_at)
    SELECT org_id, id, 'message.out', 'said: Hi 1', created_at FROM jobs, generate_series(1, 4)
)
INSERT INTO channels_integration_outboundmessage
    (id, org_id, platform, code, text, owner_key, thread_key, lane, status, sent_at, created_at)
SELECT uuidv7(interval '-200 days' + row_number() OVER () * interval '1 second'), org_id, 'null', 'nowhere', 'Hi 1',
    id::text, id::text, 'l', 'sent', created_at, created_at FROM jobs
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=100_000, help="how many finished jobs to make")
    options.add_argument("--seconds", type=float, default=20, help="how long to measure each")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        fresh_starts()
        fill(given.jobs)
        from agent_jobs.duties import pruning
        from agent_jobs.models import Job

        arguments = ["-P", "threads", "-c", "32"]
        with workers("tests.benchmarks.service", 1, arguments):
            report("alone", measure(given.seconds, lambda stop: 0))

            def duty(stop: threading.Event) -> int:
                return pruning.prune(seconds=given.seconds, rest=1.0, stop=stop)[0]["jobs"]

            report("beside the duty", measure(given.seconds, duty))

            def command(stop: threading.Event) -> int:
                return pruning.prune(seconds=given.seconds, stop=stop)[0]["jobs"]

            report("beside manage.py prune", measure(given.seconds, command))
            began, left = time.monotonic(), Job.objects.filter(status__in=["COMPLETED", "FAILED"]).count()
            gone, is_done = pruning.prune()
            seconds = time.monotonic() - began
            print(
                f"the rest: {gone['jobs']} of {left} jobs in {seconds:.0f} s, {sum(gone.values()) / seconds:.0f} rows/s"
            )
            print(f"nothing old is left: {is_done and not sum(pruning.count().values())}")


def fill(jobs: int) -> None:
    from django.db import connection

    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        # What is measured is the deleting; the audit of moves has none here.
        for first in range(0, jobs, 20_000):
            cursor.execute(_FILL.replace("{{", "{").replace("}}", "}"), [first + 1, min(first + 20_000, jobs)])
        cursor.execute("ANALYZE")
        cursor.execute("SET statement_timeout = '30s'")
    print(f"{jobs} finished jobs made in {time.monotonic() - began:.0f} s", flush=True)


def measure(seconds: float, prune: Callable[[threading.Event], int]) -> dict[str, float]:
    """Posts 20 jobs a second for as long, one after the other; times the posts, and the way from commit to start."""
    from django.db import connection

    from agent_jobs.models import Job

    stop, pruned = threading.Event(), [0]

    def run() -> None:
        pruned[0] = prune(stop)
        connection.close()

    pruner = threading.Thread(target=run)
    began = time.monotonic()
    pruner.start()
    posts, ids = [], []
    while time.monotonic() - began < seconds:
        at = time.monotonic()
        job_id, committed_at = post(len(ids))
        posts.append(committed_at - at)
        ids.append(job_id)
        PAUSE.wait(max(0.0, 0.05 - (time.monotonic() - at)))
    lasted = time.monotonic() - began
    stop.set()
    pruner.join()
    until = time.monotonic() + 30
    while Job.objects.filter(pk__in=ids).exclude(status="COMPLETED").exists() and time.monotonic() < until:
        PAUSE.wait(0.05)
    moments = Job.objects.filter(pk__in=ids).values_list("created_at", "started_at")
    starts = [(started_at - created_at).total_seconds() for created_at, started_at in moments]
    return {
        "posts": len(posts),
        "pruned a second": pruned[0] / lasted,
        "post p50 ms": statistics.median(posts) * 1000,
        "post p99 ms": statistics.quantiles(posts, n=100)[98] * 1000,
        "start p50 ms": statistics.median(starts) * 1000,
        "start p99 ms": statistics.quantiles(starts, n=100)[98] * 1000,
    }


def report(name: str, figures: dict[str, float]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
