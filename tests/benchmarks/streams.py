"""POSTs of jobs beside open streams and waits: what those who create jobs feel of those who watch.

Web processes as `manage.py up` starts them, on a durable PostgreSQL and a Redis of their own, and no worker, for it
would take the machine from both alike. In each round jobs are posted for a while with nothing else open, and then with
half of the `--open` connections following a job's events and the other half waiting for a job to change, all of them
on jobs of their own. Meanwhile something happens to one of the watched jobs so many times a second; a wait that is
answered is asked anew, so that each change of theirs costs two requests beside the POSTs. The medians of the rounds are
shown, and what the second costs beside the first.

    python -m tests.benchmarks.streams [--open 200] [--changes 2] [--posts 400] [--rounds 3] [--clients 2]
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config import embedded
from tests.benchmarks.__main__ import PAUSE, ROOT, medians, prepare, servers

NEXT_YEAR = (datetime.now(UTC) + timedelta(days=365)).isoformat()
BODY = json.dumps(
    {
        "job_type_id": "say",
        "target_channel": {"org_id": "bench", "platform": "null", "code": "nowhere"},
        "params": {"n": 1},
        "scheduled_at": NEXT_YEAR,
    }
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--open", type=int, default=200, help="how many streams and waits, half of each")
    options.add_argument("--changes", type=float, default=2, help="how many activities of watched jobs a second")
    options.add_argument("--posts", type=int, default=400, help="how many jobs each client posts in a round")
    options.add_argument("--rounds", type=int, default=3, help="how often to measure both")
    options.add_argument("--clients", type=int, default=2, help="how many post at once")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        from agent_jobs.models import Org
        from agent_jobs.tenants import app_tokens

        _, token = app_tokens.issue(Org.objects.get(), name="bench", scopes=["SERVICES:WRITE"])
        with web() as port:
            post_all(port, token, given)  # warms everything up
            rounds: list[dict[str, float]] = []
            for number in range(given.rounds):
                alone = post_all(port, token, given)
                with watchers(port, token, given.open, given.changes) as watched:
                    beside = post_all(port, token, given)
                figures = {f"alone_{name}": value for name, value in alone.items()}
                figures |= {f"beside_{name}": value for name, value in beside.items()} | watched
                rounds.append(figures)
                print(f"round {number + 1}: {figures}", flush=True)
    report(medians(rounds), given.open)


@contextmanager
def web() -> Iterator[int]:
    port = embedded.free_port()
    os.environ.update(
        AGENT_JOBS_LOG_LEVEL="WARNING",
        AGENT_JOBS_RATE_ORG="off",
        DJANGO_SETTINGS_MODULE="tests.quick_settings",
        TEST_STREAMS="1000",
        TEST_STREAMS_PER_ORG="1000",
    )
    command = [sys.executable, "-m", "config.serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ.copy())
    try:
        until = time.monotonic() + 30
        while True:
            try:
                ask(http.client.HTTPConnection("127.0.0.1", port), "GET", "/health/live", "")
                break
            except OSError:
                if time.monotonic() > until:
                    raise SystemExit("the web process does not answer") from None
                PAUSE.wait(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, token: str, body: str = ""
) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def post_all(port: int, token: str, given: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of the median and of the slowest hundredth, and how many a second."""

    def post(_: int) -> list[float]:
        connection, taken = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []
        for _ in range(given.posts):
            began = time.perf_counter()
            status, answer = ask(connection, "POST", "/services/agent-jobs", token, BODY)
            taken.append((time.perf_counter() - began) * 1000)
            if status != 201:
                raise SystemExit(f"a POST was answered {status}: {answer[:300]!r}")
        return taken

    began = time.perf_counter()
    with ThreadPoolExecutor(given.clients) as pool:
        taken = [one for mine in pool.map(post, range(given.clients)) for one in mine]
    cuts = statistics.quantiles(taken, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "rate": len(taken) / (time.perf_counter() - began)}


# --- Those who watch -------------------------------------------------------------------------------------------
@contextmanager
def watchers(port: int, token: str, count: int, changes: float) -> Iterator[dict[str, float]]:
    """All of them open before anything is measured, in a process of their own. Yields what becomes their figures."""
    jobs = [new_job(port, token) for _ in range(count)]
    figures: dict[str, float] = {}
    is_over = threading.Event()
    with ExitStack() as stack:
        watching = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.watching", str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(watching.wait, 20)
        stack.callback(watching.terminate)
        assert watching.stdin is not None
        assert watching.stdout is not None
        watching.stdin.write(json.dumps({"token": token, "jobs": jobs}) + "\n")
        watching.stdin.flush()
        if watching.stdout.readline().strip() != "open":
            raise SystemExit("the watchers could not be opened")
        happening = threading.Thread(target=let_happen, args=(jobs, changes, is_over))
        happening.start()
        try:
            yield figures
        finally:
            is_over.set()
            happening.join()
        watching.stdin.write("over\n")
        watching.stdin.flush()
        figures |= json.loads(watching.stdout.readline())


def new_job(port: int, token: str) -> str:
    status, answer = ask(
        http.client.HTTPConnection("127.0.0.1", port, timeout=30), "POST", "/services/agent-jobs", token, BODY
    )
    assert status == 201, answer
    return str(json.loads(answer)["data"]["job_id"])


def let_happen(jobs: list[str], changes: float, is_over: threading.Event) -> None:
    """So many times a second an activity of one of the jobs, which says when it was written."""
    from django.db import connection

    with connection.cursor() as cursor:
        number = 0
        while not is_over.wait(1 / changes if changes else None):
            cursor.execute(
                "INSERT INTO agent_jobs_activity (org_id, job_id, code, input) VALUES ('bench', %s, 'x', %s)",
                [jobs[number % len(jobs)], json.dumps({"at": time.time()})],
            )
            number += 7
    connection.close()


def report(figures: dict[str, float], count: int) -> None:
    print(f"\n{'':24}{'p50':>10}{'p99':>10}{'POSTs/s':>10}")
    for name, key in (("nothing open", "alone"), (f"{count} open", "beside")):
        print(f"{name:24}{figures[f'{key}_p50']:>7} ms{figures[f'{key}_p99']:>7} ms{figures[f'{key}_rate']:>10}")
    ratios = [figures[f"beside_{part}"] / figures[f"alone_{part}"] for part in ("p50", "p99", "rate")]
    print(f"{'ratio':24}{ratios[0]:>10.2f}{ratios[1]:>10.2f}{ratios[2]:>10.2f}")
    print(
        f"\nopen all the while: {figures['open']:.0f}; events told: {figures['events']:.0f}, after"
        f" {figures['told_p50']} ms (p50) and {figures['told_p99']} ms (p99); waits answered: {figures['answers']:.0f}"
    )


if __name__ == "__main__":
    main()
