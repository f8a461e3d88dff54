"""The web process's own application in a test, with threads and polling as it has them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from agent_jobs.api import streams
from agent_jobs.api.stream_polling import Watch
from config import asgi
from tests.waiting import PATIENCE


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
