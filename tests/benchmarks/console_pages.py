"""The console's pages for an organisation with a million jobs: queries, and the CPU time of Python and of PostgreSQL.

CPU time, because other work on the machine adds less to it than to the time on the clock: on a busy one it is up to
half more. Jobs are made by SQL, spread over 30 days and 7 types, 4,000 of them alive, with activities and usage for the
newest. Each page is requested in this process; a page's first request is not counted.

Wanted: under 30 ms together, at most 12 queries. At a million jobs, on one of two cores of a busy machine:

    lists of jobs                      25 to 37 ms (17 to 24 Python, 7 to 12 PostgreSQL), 10 queries
    a list by status and type          52 ms (24 Python, 28 PostgreSQL), 10 queries
    searches                           45 to 75 ms (15 to 28 Python, 21 to 48 PostgreSQL), 11 queries
    overview                           64 ms (13 Python, 51 PostgreSQL), 8 queries
    a job, schedules, approvals, …     7 to 14 ms, 6 to 9 queries

Tried, and kept: a search reads the newest ended jobs before the index, which it asks by itself. Left to the planner, a
word of a fifth of the jobs cost 150 ms (2.6 s with a cold disk), and one of none 1.8 s (13 s). Only the last piece of
`inv-20` has any ending (15 ms instead of 53). Found jobs are counted by status in one pass (98 ms before). Small bars
are drawn without a call per attribute (2 ms of a list).

Tried, and left: statistics of the words for the planner: it still walks through all jobs for a rare beginning of one.
Sorting the overview's types by bytes, and fewer columns: 36 ms became 29. What is left there is 30,000 rows of one day;
they would have to be summed as they end. Half of a list's time in Python is its template, without one slow part.

    python -m tests.benchmarks.console_pages [--jobs 1000000] [--rounds 40] [--profile PAGE] [--explain PAGE]
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.__main__ import prepare, servers
from tests.benchmarks.many_jobs import cpu_clock, timed

PAGES: Mapping[str, str] = {
    "overview": "/console/bench/",
    "jobs": "/console/bench/jobs",
    "jobs, running": "/console/bench/jobs?status=running",
    "jobs, failed of a type": "/console/bench/jobs?status=failed&job_type_id=say3",
    "jobs, by creation": "/console/bench/jobs?sort=created",
    "search, 2 words": "/console/bench/jobs?q=brightwave+inv-20",
    "search, a word of all": "/console/bench/jobs?q=invoice",
    "search, a word of a fifth": "/console/bench/jobs?q=brightwave",
    "search, a number": "/console/bench/jobs?q=inv-203111",
    "search, nothing": "/console/bench/jobs?q=zanzibar",
    "a job": "",
    "schedules": "/console/bench/schedules",
    "approvals": "/console/bench/approvals",
    "usage": "/console/bench/usage",
    "audit": "/console/bench/audit",
}
_JOBS = """
INSERT INTO agent_jobs_job (id, org_id, status, job_type_key, runner, lane, platform, channel_code, prompt, params,
    config, channel_data, tags, priority, is_new_channel, ignore_cooldown, created_at, updated_at, scheduled_at,
    started_at, finished_at, queue_at, delay_minutes, delay_seconds, deadline_minutes, waiting_for, resume, lease_token,
    attempt, failed_attempts, crash_count, retry_count, thread, inbox_count, inbox_seen, follow_ups_sent,
    follow_ups_total, result, error_code, error_message, channel_type, time_spent, state_since)
SELECT uuidv7(at - now()), 'bench', status, 'say' || n %% 7, 'message', 'messages', 'null', 'c' || n %% 100, 'Hi',
    json_build_object('customer', (ARRAY['Brightwave', 'Kestrel', 'Lumen', 'Oakfield', 'Tidal'])[1 + n %% 5],
        'number', 'INV-' || n, 'about', 'invoice'), '{"max_follow_ups": 3}', '{}', ARRAY['q4'], n %% 10, false, false,
    at, coalesce(ended, at), at, CASE WHEN status IN ('SCHEDULED', 'WAITING') THEN NULL ELSE at END, ended,
    CASE WHEN status = 'WAITING' THEN at END, 0, 0, 60, CASE WHEN status = 'RUNNING' THEN 'reply' ELSE '' END, '', 1, 1,
    0, 0, 0, '', 0, 0, 0, 0, CASE WHEN status = 'COMPLETED' THEN 'Paid, and told the customer.' END,
    CASE WHEN status = 'FAILED' THEN 'model_timeout' ELSE '' END,
    CASE WHEN status = 'FAILED' THEN 'the model gave no answer in 30 s' ELSE '' END, '',
    jsonb_build_object('queue', 1.5, 'work', 12 + n %% 40, 'reply', n %% 900), at
FROM (
    SELECT n, at, status, CASE WHEN status IN ('COMPLETED', 'FAILED')
        THEN least(now(), at + (0.2 + random() ^ 3 * 600) * interval '1 second') END AS ended
    FROM (
        SELECT n, now() - (n::float8 / %(jobs)s) * interval '30 days' AS at, CASE
            WHEN n <= 40000 AND n %% 10 = 1 THEN (ARRAY['SCHEDULED', 'WAITING', 'RUNNING', 'RUNNING'])[1 + n / 10 %% 4]
            WHEN n %% 20 = 0 THEN 'FAILED' ELSE 'COMPLETED' END AS status
        FROM generate_series(%(first)s::int, %(last)s::int) n) moments) made
"""
_ACTIVITIES = """
INSERT INTO agent_jobs_activity (org_id, job_id, code, moved_to, consumed_credits)
SELECT org_id, id, code, '', 0.0125 FROM
    (SELECT org_id, id FROM agent_jobs_job ORDER BY created_at DESC LIMIT 20000) job,
    unnest(ARRAY['job.created', 'job.started', 'model.call', 'tool.call', 'model.call', 'job.completed']) code
"""
_USAGE = """
INSERT INTO agent_jobs_usageday (org_id, day, job_type_key, model, part, calls, input_tokens, output_tokens, cost)
SELECT 'bench', current_date - day, 'say' || type, 'm', 0, 900, 90000, 9000, 1.25
FROM generate_series(0, 29) day, generate_series(0, 6) type
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=40, help="how often to request each page")
    options.add_argument("--profile", metavar="PAGE", help="show where Python spends the time of this page")
    options.add_argument("--explain", metavar="PAGE", help="show the plans of this page's statements")
    given = options.parse_args()
    os.environ["AGENT_JOBS_LOG_LEVEL"] = "WARNING"
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        fill(given.jobs)
        get = browser()
        for name, address in PAGES.items():
            measure(name, address or f"/console/bench/jobs/{newest()}", get, given.rounds)
        if given.profile:
            profile(PAGES[given.profile], get, given.rounds)
        if given.explain:
            explain(PAGES[given.explain], get)


def fill(jobs: int) -> None:
    """Fills without indexes and triggers, and makes the indexes at the end."""
    from django.db import connection

    from agent_jobs.models import JobType

    JobType.objects.bulk_create(
        JobType(org_id="bench", key=f"say{number}", name=f"Say {number}", runner="message") for number in range(7)
    )
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0; SET maintenance_work_mem = '256MB'")
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'agent_jobs_job'"
            " AND indexname <> 'agent_jobs_job_pkey'"
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        cursor.execute("ALTER TABLE agent_jobs_job DISABLE TRIGGER USER")
        for first in range(1, jobs + 1, 50_000):
            cursor.execute(_JOBS, {"jobs": jobs, "first": first, "last": min(first + 49_999, jobs)})
        cursor.execute("ALTER TABLE agent_jobs_job ENABLE TRIGGER USER")
        for _, definition in indexes:
            cursor.execute(definition)
        cursor.execute(_ACTIVITIES)
        cursor.execute(_USAGE)
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SET statement_timeout = '30s'")
    print(f"fill: {jobs:,} jobs in {time.monotonic() - began:.0f} s", flush=True)


def browser() -> Callable[[str], Any]:
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    from agent_jobs.models import Membership

    settings.ALLOWED_HOSTS = ["*"]
    user = get_user_model().objects.create_user("jane", first_name="Jane", last_name="Doe")
    Membership.objects.create(org_id="bench", user=user, role="admin")
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client.get


def newest() -> Any:
    from agent_jobs.models import Job

    return (
        Job.objects.filter(org_id="bench", status="COMPLETED").order_by("-created_at").values_list("pk", flat=True)[0]
    )


def measure(name: str, address: str, get: Callable[[str], Any], rounds: int) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection):
        answer = get(address)
        number = len(connection.queries)
    assert answer.status_code == 200, (address, answer.status_code)
    seconds = cpu_clock()
    ours: list[float] = []
    theirs: list[float] = []

    def one() -> None:
        python, postgres = time.process_time(), seconds()
        get(address)
        ours.append(time.process_time() - python)
        theirs.append(seconds() - postgres)

    wall = timed(rounds, one)
    figures = [statistics.median(took) * 1000 for took in (ours, theirs)]
    print(
        f"{name:24} {number:2} queries, Python {figures[0]:5.1f} ms, PostgreSQL {figures[1]:5.1f} ms,"
        f" together {sum(figures):5.1f} ms; wall best {min(wall) * 1000:.1f} ms; {len(answer.content) // 1000} kB",
        flush=True,
    )


def profile(address: str, get: Callable[[str], Any], rounds: int) -> None:
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for _ in range(rounds):
        get(address)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(90)


def explain(address: str, get: Callable[[str], Any]) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        get(address)
    with connection.cursor() as cursor:
        for query in queries.captured_queries:
            print("\n--", query["time"], query["sql"][:3000])
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS OFF) {query['sql']}")
            print("\n".join(line for (line,) in cursor.fetchall()), flush=True)


if __name__ == "__main__":
    main()
