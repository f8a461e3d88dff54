"""Web processes for tests: their application alone (`Web`), or a real one on the tests' database (`WebProcess`)."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection

from agent_jobs.api import streams
from agent_jobs.api.news_watch import Watch
from config import asgi
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def sessions_end_with_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's database can only be emptied when no thread of a pool holds a session."""
    ask, look = asgi._ask_django, streams.look

    def closing(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            try:
                return work(*arguments)
            finally:
                connection.close()

        return run

    monkeypatch.setattr(asgi, "_ask_django", closing(ask))
    monkeypatch.setattr(streams, "look", closing(look))


class Web:
    """An application; `ask` sends one whole request to it."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.application = asgi.Application()
        self.application._watch = Watch()

    def run(self, script: Any) -> None:
        async def live() -> None:
            watch = self.application._watching
            watch.start()
            try:
                async with asyncio.timeout(PATIENCE):
                    await script()
            finally:
                watch.close()
                for pool in (self.application.threads, watch._looker):
                    pool.shutdown()

        asyncio.run(live())

    async def ask(self, method: str, path: str, body: bytes, *, leaves: asyncio.Event | None = None) -> tuple[int, Any]:
        stated = {
            "host": "localhost",
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "client": ("127.0.0.1", "1"),
            "server": ("127.0.0.1", "8000"),
            "headers": [(name.encode(), value.encode()) for name, value in stated.items()],
        }
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []
        gone = leaves or asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.application(scope, receive, send)
        status = next((message["status"] for message in sent if "status" in message), 0)
        content = b"".join(message.get("body", b"") for message in sent)
        return status, json.loads(content) if content else None


async def elsewhere(work: Callable[[], Any]) -> Any:
    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


class WebProcess:
    """A web process on the tests' own database, which a test must commit to."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        place = connection.settings_dict
        user = quote(place["USER"]) + (f":{quote(place['PASSWORD'])}" if place["PASSWORD"] else "")
        url = f"postgres://{user}@{quote(place['HOST'], safe='')}:{place['PORT']}/{place['NAME']}"
        stated = {
            "DATABASE_URL": url,
            "AGENT_JOBS_WEB_PROCESSES": "1",
            "DJANGO_SETTINGS_MODULE": "tests.quick_settings",
        }
        self.log = folder / "web.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "config.serve", "--port", str(self.port)]
            self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | stated, stdout=log, stderr=log)
        wait_for(self._listens, what="it listens")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
