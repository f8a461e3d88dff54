"""How well one worker process waits: webhook jobs against a server on this machine that answers in 100 ms.

The ideal is that all threads of the queue wait all the time. Shown is the share of it that is reached, and what a bare
client reaches in the same run.

The goal is 90 %, and it was seen when this benchmark came first on the machine; the bare client reached 98 %. With a
load of 6 beside it there were 77 to 85 %, and 94 to 97 % for the bare client. A job then took 27 ms beyond the 100. By
/proc/*/schedstat, nearly all of this was waiting for a CPU: 10 ms in the worker and 16 ms in PostgreSQL, which need 2.4
ms and less than 4 ms of CPU for it. Tried: no query for undelivered messages of jobs without a channel, no look-up
thread for hosts that are addresses, a rarer count by this benchmark. Each saves a round trip or a thread, and none is
resolved at that load. A loop per thread instead of one per request would save 5 % of CPU.

    python -m tests.benchmarks.webhook_calls [--jobs 1000]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.__main__ import drain_rate, fresh_starts, prepare, servers, workers

SECONDS = 0.1
THREADS = 32
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1_000, help="how many jobs to drain")
    given = options.parse_args()
    os.environ["AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES"] = "1"
    receiver = subprocess.Popen(
        [sys.executable, "-c", "from tests.benchmarks import webhook_calls; webhook_calls.serve()"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())
        with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
            prepare()
            measure(given.jobs, f"http://127.0.0.1:{port}/")
    finally:
        receiver.kill()
        receiver.wait()


def measure(count: int, url: str) -> None:
    from agent_jobs import jobs, runners
    from agent_jobs.models import Job, JobType
    from agent_jobs.specs import Actor, JobSpec
    from agent_jobs.worker import lane_threads

    JobType.objects.create(org_id="bench", key="call", name="call", runner="webhook")
    fresh_starts()
    spec = JobSpec(job_type_id="call", work={"url": url, "body": {"n": 1}})
    for _ in range(0, count, 100):
        jobs.create_many("bench", [spec] * 100, actor=Actor("system", "bench"))
    done = Job.objects.filter(status="COMPLETED")
    with workers("tests.benchmarks.service", 1, ["-P", "threads", "-c", str(THREADS)]) as (worker,):
        began = _cpu_seconds(worker.pid)
        rate = drain_rate(done.count, count, every=0.05)
        cpu_seconds = _cpu_seconds(worker.pid) - began
    threads = lane_threads.shares(runners.RUNNERS, threads=THREADS)["webhooks"]
    ideal, bare = threads / SECONDS, _bare_rate(url, threads, count)
    print(f"webhooks, 1 process, {threads} threads: {rate:.0f} a second, {rate / ideal:.0%} of the ideal {ideal:.0f}")
    print(f"a bare client with as many threads: {bare:.0f} a second; we reach {rate / bare:.0%} of that")
    print(f"{cpu_seconds / count * 1_000:.2f} ms of the worker's CPU for each job, its start included")


def _cpu_seconds(pid: int) -> float:
    """The CPU time of a process until now, by /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_rate(url: str, threads: int, count: int) -> float:
    """Requests a second of threads that do nothing but ask: what this machine allows now."""

    def ask(_: int) -> None:
        with urllib.request.urlopen(url, data=b"{}") as answer:
            answer.read()

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, range(count)))
    return count / (time.monotonic() - began)


def serve() -> None:
    """The receiver: reads the head, waits, answers and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(SECONDS)
        writer.write(_ANSWER)
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
