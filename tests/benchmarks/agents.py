"""Conversations: how near to the ideal turns are taken, and what jobs cost that only wait.

500 conversations are put there at once, for two worker processes (and a beat, as they have everywhere) that have had a
quiet moment; their model, an OpenAI-compatible server in a process of its own, answers after two seconds. The ideal is
all threads of the agents' lane waiting for the model all the time: threads / 2 s; what is taken of it is measured from
when each thread has a turn to when the last turn is begun. The overhead of a turn is the time from its claim to its
settlement (by the database) less the model's own; its p99 is shown without the threads' first turns, too, which come
all at once. Then 100,000 jobs that wait for replies are put there, and single jobs are started on an otherwise idle
system.

    python -m tests.benchmarks.agents [--conversations 500] [--threads 41] [--parked 100000] [--folder /tmp]

PostgreSQL's files are in `--folder`: one in memory (/dev/shm) shows what of the overhead is not the disk's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.__main__ import (
    PAUSE,
    ROOT,
    fresh_starts,
    post,
    prepare,
    servers,
    wait_for_start,
    workers,
)

_PROCESSES = 2
_MODEL_SECONDS = 2.0
_QUIET_SECONDS = 15.0  # for a worker's start, and for what it reads when it has nothing to do
_PARK = """
INSERT INTO agent_jobs_job (id, org_id, status, job_type_key, runner, lane, platform, channel_code, channel_type,
    channel_data, prompt, params, config, tags, priority, is_new_channel, ignore_cooldown, delay_minutes, delay_seconds,
    scheduled_at, started_at, deadline_minutes, deadline_at, waiting_for, wake_at, resume, lease_token, attempt,
    failed_attempts, crash_count, retry_count, thread, inbox_count, inbox_seen, follow_ups_sent, follow_ups_total,
    error_code, error_message)
SELECT uuidv7(), 'bench', 'RUNNING', 'say', 'conversation', 'agents', 'null', 'nowhere', '', '{}', 'Hello?', '{}', '{}',
    '{}', 5, false, false, 0, 0, now(), now(), 60, now() + interval '1 hour', 'reply', now() + interval '1 hour', '', 1,
    1, 0, 0, 0, n::text, 0, 0, 0, 0, '', ''
FROM generate_series(1, %s) n
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=500)
    options.add_argument("--threads", type=int, default=41, help="of a worker process, for all its queues")
    options.add_argument("--parked", type=int, default=100_000)
    options.add_argument("--starts", type=int, default=200)
    options.add_argument("--folder", default="/tmp")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir=given.folder) as folder, servers(Path(folder)):
        os.environ["AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES"] = "1"
        os.environ["AGENT_JOBS_WORKER_THREADS"] = str(given.threads)
        os.environ["OPENAI_API_KEY"] = "bench"
        prepare()
        with model() as base_url:
            print(json.dumps(conversations(base_url, given), indent=2), flush=True)
        print(json.dumps(parked(given), indent=2), flush=True)


@contextmanager
def model() -> Iterator[str]:
    """The address of a server that takes its time, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.slow_model", str(_MODEL_SECONDS)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@contextmanager
def beat() -> Iterator[None]:
    """Without one workers would go by their own clocks, and every thread of theirs looks around once a second."""
    schedule = str(Path(os.environ["AGENT_JOBS_DATA_DIR"]) / "beat-schedule")
    command = [sys.executable, "-m", "celery", "--app", "config.celery", "--quiet", "beat", "--schedule", schedule]
    process = subprocess.Popen([*command, "--loglevel", "ERROR"], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def conversations(base_url: str, given: argparse.Namespace) -> dict[str, Any]:
    from django.db import transaction

    from agent_jobs import jobs, runners
    from agent_jobs.catalog import model_keys
    from agent_jobs.models import Job, JobType, Org, Profile, Task
    from agent_jobs.specs import Actor, ChannelSpec, JobSpec
    from agent_jobs.worker import lane_threads

    org = Org.objects.get(id="bench")
    model_keys.put_key("bench", "openai", key="bench", base_url=base_url, actor=Actor("system", "bench"))
    Profile.objects.create(org=org, key="slow", name="Slow", model="openai:slow", base_url=base_url)
    config = {"start_prompt": "Hi {{ n }}", "profile_id": "slow"}
    JobType.objects.create(org=org, key="talk", name="Talk", runner="conversation", default_config=config)
    waiting = Job.objects.filter(job_type_key="talk", waiting_for="reply")
    ended = Job.objects.filter(job_type_key="talk", status="FAILED")
    arguments = ["-P", "threads", "-c", str(given.threads)]
    with beat(), workers("config.celery", _PROCESSES, arguments) as processes:
        PAUSE.wait(_QUIET_SECONDS)
        started = sum(_cpu_seconds(process.pid) for process in processes)
        with transaction.atomic():  # nobody sees the first before the last is there
            for number in range(given.conversations):
                spec = JobSpec("talk", ChannelSpec("null", "nowhere"), params={"n": number})
                jobs.create("bench", spec, actor=Actor("system", "bench"))
        until = time.monotonic() + 300
        while waiting.count() < given.conversations and time.monotonic() < until and not ended.exists():
            PAUSE.wait(0.1)
        if ended.exists():
            raise SystemExit(f"failed: {ended.first().error_message}")  # type: ignore[union-attr]
        busy = sum(_cpu_seconds(process.pid) for process in processes) - started
        memory = [_resident_megabytes(process.pid) for process in processes]
    tasks = Task.objects.filter(job__job_type_key="talk", finished_at__isnull=False)
    times = tasks.values_list("created_at", "finished_at")
    spans = sorted((begun.timestamp(), finished.timestamp()) for begun, finished in times if finished)
    threads = _PROCESSES * lane_threads.shares(runners.RUNNERS, threads=given.threads)["agents"]
    overheads, later = _overheads(spans), _overheads(spans[threads:])
    rate = _rate(spans, since=spans[threads - 1][0], until=spans[-1][0])
    return {
        "conversations": given.conversations,
        "threads": threads,
        "turns_per_second": round(rate, 1),
        "ideal": round(threads / _MODEL_SECONDS, 1),
        "ratio": round(rate / (threads / _MODEL_SECONDS), 3),
        "overhead_ms_p50": round(statistics.median(overheads), 1),
        "overhead_ms_p99": round(overheads[int(len(overheads) * 0.99)], 1),
        "overhead_ms_p99_after_the_first_turns": round(later[int(len(later) * 0.99)], 1),
        "worker_cpu_ms_per_turn": round(busy * 1000 / given.conversations, 1),
        "resident_mb": memory,
    }


def _overheads(spans: Iterable[tuple[float, float]]) -> list[float]:
    """Durations in ms of the turns that began and finished then, the shortest first."""
    return sorted((finished - begun - _MODEL_SECONDS) * 1000 for begun, finished in spans)


def _rate(spans: Iterable[tuple[float, float]], *, since: float, until: float) -> float:
    """Turns per second between these moments. Of one that is partly outside of them that part is not counted."""
    parts = (max(0.0, min(until, end) - max(since, begun)) / (end - begun) for begun, end in spans)
    return sum(parts) / (until - since)


def parked(given: argparse.Namespace) -> dict[str, Any]:
    from django.db import connection

    from agent_jobs.models import Job

    with connection.cursor() as cursor:
        cursor.execute(_PARK, [given.parked])
        cursor.execute("ANALYZE agent_jobs_job")
    figures: dict[str, Any] = {"parked": given.parked}
    starts = fresh_starts()
    arguments = ["-P", "threads", "-c", "32"]
    with workers("tests.benchmarks.service", _PROCESSES, arguments) as processes:
        latencies = []
        for number in range(given.starts):
            job_id, committed_at = post(number)
            latencies.append((wait_for_start(starts, job_id) - committed_at) * 1000)
        figures["resident_mb"] = [_resident_megabytes(process.pid) for process in processes]
    latencies.sort()
    figures["start_ms_p50"] = round(statistics.median(latencies), 2)
    figures["start_ms_p99"] = round(latencies[int(len(latencies) * 0.99)], 2)
    assert Job.objects.filter(waiting_for="reply").count() >= given.parked
    return figures


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_megabytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
