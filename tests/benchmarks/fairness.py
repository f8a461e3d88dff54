"""Measures whether one organisation's flood delays another's jobs.

Organisation A has many jobs waiting, organisation B posts one a second. The time from B's post to the start of its job
is measured with two worker processes: first on an idle system, then beside the flood.

    python -m tests.benchmarks.fairness [--jobs 100000] [--starts 30]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.benchmarks.__main__ import PAUSE, fresh_starts, prepare, servers, workers

QUIET = "quiet"
_COPY = """
INSERT INTO agent_jobs_job ({columns})
SELECT {values} FROM agent_jobs_job j, generate_series(1, %s) WHERE j.id = %s
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=100_000, help="how many jobs of organisation A wait")
    options.add_argument("--starts", type=int, default=30, help="how many jobs of organisation B are timed")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        _add_quiet_org()
        fresh_starts()
        with workers("tests.benchmarks.service", 2, ["-P", "threads", "-c", "32"]):
            _starts(3)  # the workers have connected
            idle = _starts(given.starts)
        _flood(given.jobs)
        with workers("tests.benchmarks.service", 2, ["-P", "threads", "-c", "32"]):
            _starts(3)
            flooded = _starts(given.starts)
            left = _waiting()
    if not left:
        raise SystemExit("the flood was over before the measurement was: take more --jobs")
    _show(given, idle, flooded, left)


def _add_quiet_org() -> None:
    from agent_jobs.models import JobType, Org
    from channels_integration.models import Channel

    org = Org.objects.create(id=QUIET, name="Quiet")
    config = {"start_prompt": "Hi {{ n }}"}
    JobType.objects.create(org=org, key="say", name="Say", runner="message", default_config=config)
    Channel.objects.create(org_id=QUIET, platform="null", code="nowhere")


def _flood(count: int) -> None:
    from tests.benchmarks.__main__ import post

    job_id, _ = post(0)
    copy_job(job_id, count - 1)


def copy_job(job_id: object, count: int) -> None:
    """So many copies of a waiting job, in one statement."""
    from django.db import connection

    from agent_jobs.models import Job

    columns = [field.column for field in Job._meta.concrete_fields]
    values = ["uuidv7()" if column == "id" else f"j.{column}" for column in columns]
    statement = _COPY.format(columns=", ".join(columns), values=", ".join(values))
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(statement, [count, job_id])
        cursor.execute("ANALYZE agent_jobs_job")
        cursor.execute("SET statement_timeout = '30s'")


def _starts(count: int) -> list[float]:
    """Seconds from each post of a job of organisation B to its start, one job a second."""
    seconds = []
    for _ in range(count):
        began = time.monotonic()
        seconds.append(_start_seconds())
        PAUSE.wait(max(0.0, 1 - (time.monotonic() - began)))
    return seconds


def _start_seconds() -> float:
    """By the database's clock: from the statement that stores the job to the claim that starts it."""
    from agent_jobs import jobs
    from agent_jobs.models import Job
    from agent_jobs.specs import Actor, ChannelSpec, JobSpec

    spec = JobSpec("say", ChannelSpec("null", "nowhere"), params={"n": 1})
    job = jobs.create(QUIET, spec, actor=Actor("system", "bench"))
    until = time.monotonic() + 120  # the workers may still be starting
    while time.monotonic() < until:
        started_at = Job.objects.filter(pk=job.pk).values_list("started_at", flat=True).get()
        if started_at is not None:
            return float((started_at - job.created_at).total_seconds())
        PAUSE.wait(0.01)
    raise SystemExit(f"{job.pk} did not start within 120 s")


def _waiting() -> int:
    from agent_jobs.models import Job

    return Job.objects.filter(org_id="bench", status="WAITING").count()


def _show(given: argparse.Namespace, idle: list[float], flooded: list[float], left: int) -> None:
    print(f"{'starts of organisation B':>28}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    figures = {}
    for name, seconds in (("idle", idle), (f"beside {given.jobs:,} of A", flooded)):
        cuts = statistics.quantiles(seconds, n=100)
        figures[name] = cuts[49]
        print(f"{name:>28}{cuts[49] * 1000:>9.1f}{cuts[98] * 1000:>9.1f}{max(seconds) * 1000:>9.1f}")
    first, second = figures.values()
    print(f"ratio of p50: {second / first:.2f} (at most 2); {left:,} jobs of A still waited at the end")


if __name__ == "__main__":
    main()
