"""Claims and reports of executors over HTTP: how many jobs a second eight of them take and complete.

Web processes as `manage.py up` starts them, on a durable PostgreSQL and a Redis of their own. Each executor is a thread
with a connection of its own that claims a job and completes it, again and again. In each round the same connections
also read one job again and again: a claim with its report is shown as a multiple of two such reads.

    python -m tests.benchmarks.executor_calls [--executors 8] [--seconds 10] [--rounds 3]
"""

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.__main__ import prepare, servers
from tests.benchmarks.many_jobs import shown
from tests.benchmarks.streams import ask, web

# More than any machine completes in that time.
_JOBS_PER_SECOND = 1_000
_Call = Callable[[str, str, str], tuple[int, bytes]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--executors", type=int, default=8, help="how many claim at once")
    options.add_argument("--seconds", type=float, default=10, help="how long to measure in a round")
    options.add_argument("--rounds", type=int, default=3, help="how often to measure")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        token, job_id = _prepare_jobs(int(given.rounds * given.seconds * _JOBS_PER_SECOND))
        rates, ratios = [], []
        with web() as port:
            _together(port, token, given.executors, 2, _complete_one)  # warms everything up
            for number in range(given.rounds):
                took = _together(port, token, given.executors, given.seconds, _complete_one)
                read = _together(
                    port, token, given.executors, given.seconds / 2, lambda call, _: _read_one(call, job_id)
                )
                rates.append(len(took) / given.seconds)
                ratios.append(statistics.fmean(took) / (2 * statistics.fmean(read)))
                print(f"round {number + 1}: {rates[-1]:.0f} jobs a second; a claim with its report {shown(took)}")
                print(
                    f"round {number + 1}: {ratios[-1]:.2f} times two reads of a job; a read {shown(read)}", flush=True
                )
    rate, ratio = statistics.median(rates), statistics.median(ratios)
    print(f"{given.executors} executors: {rate:.0f} jobs claimed and completed a second, {ratio:.2f} times two reads")


def _prepare_jobs(count: int) -> tuple[str, str]:
    """Waiting jobs of an executor, copied in SQL. Returns a token and the id of a job that nobody claims."""
    from agent_jobs import jobs
    from agent_jobs.models import JobType, Org
    from agent_jobs.specs import Actor, JobSpec
    from agent_jobs.tenants import app_tokens
    from tests.benchmarks.fairness import copy_job

    org = Org.objects.get()
    JobType.objects.create(org=org, key="run", name="Run", runner="external")
    _, token = app_tokens.issue(org, name="bench", scopes=["SERVICES:ADMIN"])
    actor = Actor("system", "bench")
    job_id = jobs.create("bench", JobSpec("run", work={"type": "sum"}), actor=actor).pk
    copy_job(job_id, count)
    kept = jobs.create("bench", JobSpec("run", work={"type": "nobody"}), actor=actor)
    return token, str(kept.pk)


def _together(
    port: int, token: str, executors: int, seconds: float, one: Callable[[_Call, int], float]
) -> Sequence[float]:
    """Each executor does `one` until the time is over. Returns the seconds that each took."""

    def work(number: int) -> list[float]:
        connection, taken = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []

        def call(method: str, path: str, body: str) -> tuple[int, bytes]:
            return ask(connection, method, path, token, body)

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            taken.append(one(call, number))
        return taken

    with ThreadPoolExecutor(executors) as pool:
        return [took for taken in pool.map(work, range(executors)) for took in taken]


def _complete_one(call: _Call, number: int) -> float:
    began = time.perf_counter()
    me = {"executor_id": f"e{number}"}
    status, answer = call("POST", "/services/executors/claim", json.dumps({**me, "job_types": ["sum"]}))
    if status != 200:
        raise SystemExit(f"a claim was answered {status}: {answer[:300]!r}")
    (job,) = json.loads(answer)["data"]
    body = json.dumps({**me, "lease_token": job["lease_token"], "result": "3", "stdout": "adding\n", "exit_code": 0})
    status, answer = call("PUT", f"/services/executors/jobs/{job['job_id']}/complete", body)
    if status != 200:
        raise SystemExit(f"a report was answered {status}: {answer[:300]!r}")
    return time.perf_counter() - began


def _read_one(call: _Call, job_id: str) -> float:
    began = time.perf_counter()
    status, answer = call("GET", f"/services/agent-jobs/{job_id}", "")
    if status != 200:
        raise SystemExit(f"a read was answered {status}: {answer[:300]!r}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
