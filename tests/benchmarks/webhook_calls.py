"""How well one worker process waits: webhook jobs against a server on this machine that answers in 100 ms.

The ideal is that all threads of the queue wait all the time. Shown is the share of it that is reached.

    python -m tests.benchmarks.webhook_calls [--jobs 1000]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
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
    with workers("tests.benchmarks.service", 1, ["-P", "threads", "-c", str(THREADS)]):
        rate = drain_rate(done.count, count)
    threads = lane_threads.shares(runners.RUNNERS, threads=THREADS)["webhooks"]
    ideal = threads / SECONDS
    print(f"webhooks, 1 process, {threads} threads: {rate:.0f} a second, {rate / ideal:.0%} of the ideal {ideal:.0f}")


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
