"""The watchers of `tests.benchmarks.streams`: one thread, one event loop, half of its connections following events.

Takes `{"token", "jobs"}` as a line, says `open` when every stream has had its first event and every wait was sent, and
at the line `over` says what it saw.
"""

import asyncio
import json
import statistics
import sys
import time


class Watchers:
    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.open = self.answers = 0
        self.delays: list[float] = []
        self.ready = 0

    async def ask(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {self.token}\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        return reader, writer

    async def follow(self, job_id: str) -> None:
        reader, _ = await self.ask(f"/services/agent-jobs/{job_id}/events")
        self.open += 1
        is_first = True
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            if is_first:
                is_first = False
                self.ready += 1
            told = json.loads(line.removeprefix(b"data: "))
            if at := (told.get("payloads", {}).get("input") or {}).get("at"):
                self.delays.append((time.time() - at) * 1000)
        self.open -= 1

    async def wait(self, job_id: str) -> None:
        is_first = True
        while True:
            reader, writer = await self.ask(f"/services/agent-jobs/{job_id}?wait=60")
            self.open += 1
            if is_first:
                is_first = False
                self.ready += 1
            answer = await reader.read()
            self.open -= 1
            writer.close()
            if b" 200 OK\r\n" in answer[:20]:
                self.answers += 1
            else:
                raise SystemExit(f"a wait was answered {answer[:300]!r}")


async def main() -> None:
    given = json.loads(sys.stdin.readline())
    watchers = Watchers(int(sys.argv[1]), given["token"])
    jobs: list[str] = given["jobs"]
    tasks = []
    for number, job_id in enumerate(jobs):
        watch = watchers.follow if number % 2 == 0 else watchers.wait
        tasks.append(asyncio.create_task(watch(job_id)))
        await asyncio.sleep(0.005)
    while watchers.ready < len(jobs):
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)  # so that the waits have been taken in, too
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cuts = statistics.quantiles(watchers.delays or [0, 0], n=100)
    seen = {"open": watchers.open, "events": len(watchers.delays), "answers": watchers.answers}
    print(json.dumps(seen | {"told_p50": cuts[49], "told_p99": cuts[98]}), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
