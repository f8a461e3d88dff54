"""One run, side by side on this machine: bare Celery, and this service with durable jobs.

Bare Celery runs a task that does nothing, with no database. The service runs the `message` runner on the null platform
with fsync on: each job is a row, a task, an outgoing message and its activities, all committed. Both drain a queue that
was filled before their workers start; the rate counts from a tenth of the queue done to the last job. A start is timed
from the moment before the message is sent (for us: the commit, after which the bell is rung) to the beginning of the
work, one at a time on an idle system.

Everything is measured in several rounds, one after the other within each, and the medians are shown: what else runs on
the machine meanwhile then meets all of them.

    python -m tests.benchmarks [--jobs 5000] [--starts 200] [--rounds 3]
"""

import argparse
import base64
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config import embedded

ROOT = Path(__file__).resolve().parents[2]
PAUSE = threading.Event()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=5_000, help="how many jobs to drain")
    options.add_argument("--starts", type=int, default=200, help="how many single starts to time in a round")
    options.add_argument("--rounds", type=int, default=3, help="how often to measure everything")
    given = options.parse_args()
    measures = {
        "bare Celery, prefork": lambda: bare(["-P", "prefork", "-c", "2"], given),
        "bare Celery, threads": lambda: bare(["-P", "threads", "-c", "2"], given),
        "agent jobs, 2 processes": lambda: service(given),
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in measures}
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        for number in range(given.rounds):
            for name, measure in measures.items():
                rounds[name].append(measure())
                print(f"round {number + 1}: {name}: {rounds[name][-1]}", file=sys.stderr, flush=True)
    report([{"name": name, **medians(figures)} for name, figures in rounds.items()])


@contextmanager
def servers(folder: Path) -> Iterator[None]:
    folder.chmod(0o711)
    os.environ["AGENT_JOBS_DATA_DIR"] = str(folder)
    postgres, redis = embedded.Postgres(folder, durable=True), embedded.Redis(folder)
    processes = []
    for server in (postgres, redis):
        server.prepare()
        process = server.spawn(subprocess.DEVNULL)
        embedded.wait_ready(server, process)
        processes.append((process, server.stop_signal))
    os.environ.update(
        DATABASE_URL=postgres.url("postgres"),
        REDIS_URL=redis.url(),
        AGENT_JOBS_SECRET_KEY=secrets.token_urlsafe(),
        AGENT_JOBS_TOKEN_PEPPER=secrets.token_urlsafe(),
        AGENT_JOBS_SEALING_KEYS=f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        AGENT_JOBS_DATABASE_POOL="16",  # as `manage.py up` and Compose give their workers
        BENCH_STARTS=str(folder / "starts"),
    )
    try:
        yield
    finally:
        for process, stop_signal in processes:
            embedded.stop(process, stop_signal)


@contextmanager
def workers(app: str, count: int, arguments: list[str]) -> Iterator[list["subprocess.Popen[bytes]"]]:
    command = [sys.executable, "-m", "celery", "-A", app, "-q", "worker", "--without-gossip", "--without-mingle"]
    command += ["--loglevel", "ERROR", *arguments]
    with (Path(os.environ["AGENT_JOBS_DATA_DIR"]) / "workers.log").open("w+") as output:
        started = [
            subprocess.Popen([*command, "-n", f"w{number}@bench"], cwd=ROOT, stdout=output, stderr=output)
            for number in range(count)
        ]
        try:
            yield started
        except BaseException:
            output.seek(0)
            print(output.read(), file=sys.stderr)
            raise
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(30)


def bare(arguments: list[str], given: argparse.Namespace) -> dict[str, float]:
    from tests.benchmarks.bare import noop

    starts = fresh_starts()
    for number in range(given.jobs):
        noop.apply_async((number,))
    with workers("tests.benchmarks.bare", 1, [*arguments, "-Q", "bare"]):
        rate = drain_rate(lambda: count_lines(starts), given.jobs)
        latencies = []
        for number in range(given.jobs, given.jobs + given.starts):
            sent_at = time.monotonic()
            noop.apply_async((number,))
            latencies.append(wait_for_start(starts, str(number)) - sent_at)
    return figures_of(rate, latencies)


def prepare() -> None:
    """Django, the tables, and an organisation that says nothing into nowhere."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    from config.celery import app

    app.finalize()
    import django

    django.setup()
    from django.core.management import call_command

    from agent_jobs.models import JobType, Org
    from channels_integration.models import Channel

    call_command("migrate", verbosity=0)
    org = Org.objects.create(id="bench", name="Bench")
    config = {"start_prompt": "Hi {{ n }}"}
    JobType.objects.create(org=org, key="say", name="Say", runner="message", default_config=config)
    Channel.objects.create(org_id="bench", platform="null", code="nowhere")


def post(number: int) -> tuple[str, float]:
    """Store a job as the API does. Returns its id and the moment of its commit."""
    from django.db import transaction

    from agent_jobs import jobs
    from agent_jobs.specs import Actor, ChannelSpec, JobSpec

    committed: list[float] = []
    with transaction.atomic():
        # Registered first, so it runs before the ring.
        transaction.on_commit(lambda: committed.append(time.monotonic()))
        spec = JobSpec("say", ChannelSpec("null", "nowhere"), params={"n": number})
        job = jobs.create("bench", spec, actor=Actor("system", "bench"))
    return str(job.pk), committed[0]


def service(given: argparse.Namespace) -> dict[str, float]:
    from agent_jobs.models import Job

    unfinished = Job.objects.exclude(status="COMPLETED")
    starts = fresh_starts()
    for number in range(given.jobs):
        post(number)

    def done() -> int:
        """Jobs that have begun, as for bare Celery; the table is asked when all have, as a count reads every row."""
        begun = count_lines(starts)
        return begun if begun < given.jobs else given.jobs - unfinished.count()

    arguments = ["-P", "threads", "-c", "32"]
    with workers("tests.benchmarks.service", 2, arguments):
        rate = drain_rate(done, given.jobs)
        latencies = []
        for number in range(given.starts):
            job_id, committed_at = post(number)
            latencies.append(wait_for_start(starts, job_id) - committed_at)
    if unfinished.exists():
        raise SystemExit(f"{unfinished.count()} jobs were not completed")
    statements = sum(int(path.read_text() or 0) for path in starts.parent.glob("starts.statements.*"))
    return figures_of(rate, latencies) | {"statements_per_job": round(statements / (given.jobs + given.starts), 2)}


def fresh_starts() -> Path:
    path = Path(os.environ["BENCH_STARTS"])
    for old in path.parent.glob("starts*"):
        old.write_text("")
    path.write_text("")
    return path


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def drain_rate(done: Callable[[], int], total: int, *, every: float = 0.01) -> float:
    """Jobs a second from a tenth of the queue done to the last, watched `every` so many seconds."""
    tenth_at = 0.0
    seen_at_tenth = 0
    until = time.monotonic() + 120
    while time.monotonic() < until:
        count = done()
        now = time.monotonic()
        if not tenth_at and count >= total / 10:
            tenth_at, seen_at_tenth = now, count
        if count >= total:
            return (total - seen_at_tenth) / (now - tenth_at)
        PAUSE.wait(every)
    raise SystemExit(f"only {done()} of {total} were done within 120 s")


def wait_for_start(path: Path, key: str) -> float:
    """When the work with this key began. Looks at the end of the file only."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400))
            for line in file.read().decode().splitlines():
                name, _, moment = line.partition(" ")
                if name == key and moment:
                    PAUSE.wait(0.02)  # let the system become idle again
                    return float(moment)
        PAUSE.wait(0.002)
    raise SystemExit(f"{key} did not start within 10 s")


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(figures[name] for figures in rounds), 2) for name in rounds[0]}


def figures_of(rate: float, latencies: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "jobs_per_second": round(rate),
        "start_p50_ms": round(cuts[49] * 1000, 2),
        "start_p99_ms": round(cuts[98] * 1000, 2),
    }


def report(rows: list[dict[str, Any]]) -> None:
    base = rows[0]
    print(f"\n{'':28}{'jobs/s':>9}{'ratio':>8}{'start p50':>12}{'ratio':>8}{'start p99':>12}{'stmts/job':>11}")
    for entry in rows:
        entry["rate_ratio"] = round(entry["jobs_per_second"] / base["jobs_per_second"], 2)
        entry["p50_ratio"] = round(entry["start_p50_ms"] / base["start_p50_ms"], 2)
        print(
            f"{entry['name']:28}{entry['jobs_per_second']:>9}{entry['rate_ratio']:>8}{entry['start_p50_ms']:>9} ms"
            f"{entry['p50_ratio']:>8}{entry['start_p99_ms']:>9} ms{entry.get('statements_per_job', '-'):>11}"
        )
    ours = rows[-1]
    print(f"\ndrain rate: {ours['rate_ratio']} times bare Celery prefork (goal: at least 1.5)")
    print(f"start p50:  {ours['p50_ratio']} times bare Celery prefork (goal: at most 1.5)")
    target = ROOT / ".dev" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
