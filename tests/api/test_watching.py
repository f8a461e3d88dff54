"""The web process's own part: clients that go, wait, do not read or are slow, and a database that is away."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from agent_jobs.api import sse, streams
from agent_jobs.api.news_watch import Watch
from agent_jobs.models import AppToken
from config import asgi, request_reading
from tests import factories, rows
from tests.waiting import PATIENCE
from tests.web_processes import elsewhere, sessions_end_with_their_threads

__all__ = ["sessions_end_with_their_threads"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sessions_end_with_their_threads")]


class Client:
    """One request to an application. It reads while `reads` is set."""

    def __init__(self, application: asgi.Application, token: str) -> None:
        self.application, self.token = application, token
        self.status, self.headers, self.body = 0, dict[str, str](), b""
        self.reads = asyncio.Event()
        self.reads.set()
        self.has_left = asyncio.Event()
        self.parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.is_over = False
        self._changed = asyncio.Condition()

    def asks(self, path: str, method: str = "GET", **headers: str) -> "asyncio.Task[None]":
        path, _, query = path.partition("?")
        stated = {"host": "localhost", "authorization": f"Bearer {self.token}", **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "http_version": "1.1",
            "scheme": "http",
            "client": ("127.0.0.1", "1"),
            "server": ("127.0.0.1", "8000"),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in stated.items()],
        }
        return asyncio.create_task(self.application(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        getting, leaving = asyncio.create_task(self.parts.get()), asyncio.create_task(self.has_left.wait())
        try:
            await asyncio.wait({getting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else {"type": "http.disconnect"}
        finally:
            getting.cancel()
            leaving.cancel()

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        async with self._changed:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message["body"]
                self.is_over = not message.get("more_body", False)
            self._changed.notify_all()

    async def until(self, is_so: Callable[["Client"], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: is_so(self))

    async def told(self, text: bytes) -> None:
        await self.until(lambda client: text in client.body)


Script = Callable[[Callable[[], Client], Any], Awaitable[None]]


def run(script: Script, token: str, job: Any) -> None:
    """Run a script against an application that lives as long as it does."""

    async def live() -> None:
        application = asgi.Application()
        application._watch = Watch()
        application._watch.start()
        try:
            async with asyncio.timeout(PATIENCE):
                await script(lambda: Client(application, token), job)
        finally:
            application._watch.close()
            for pool in (application.threads, application._watch._looker):
                pool.shutdown()

    asyncio.run(live())


def places() -> int:
    return streams.AnswerSlot._taken.total()


async def until_free() -> None:
    async with asyncio.timeout(PATIENCE):
        while places():
            await asyncio.sleep(0.01)


@pytest.fixture
def token() -> str:
    return factories.token()


@pytest.fixture
def job() -> Any:
    return rows.job()


def events(job: Any) -> str:
    return f"/services/agent-jobs/{job.pk}/events"


def test_a_stream_tells_what_happens_and_ends_with_the_stop(token: str, job: Any) -> None:
    factories.activity(job, "before")

    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        asked = one.asks(events(job))
        await one.told(b"before")
        for code in ("it.happened", "and.again"):
            await elsewhere(lambda code=code: factories.activity(job, code))  # type: ignore[misc]
            await one.told(code.encode())
        assert (one.status, one.headers["content-type"]) == (200, "text/event-stream")
        assert (one.headers["server"], places()) == ("agent-jobs", 1)
        assert "content-length" not in one.headers
        one.application._watching.stop()
        await asked
        assert one.is_over
        assert places() == 0
        late = client()
        await late.asks(f"/services/agent-jobs/{job.pk}?wait=60")
        assert late.status == 200

    run(script, token, job)


def test_a_client_that_goes_makes_room(token: str, job: Any) -> None:
    async def script(client: Callable[[], Client], job: Any) -> None:
        for path in (
            events(job),
            f"/services/agent-jobs/{job.pk}?wait=60",
            "/services/channels/web/x/messages?wait=30",
        ):
            one = client()
            asked = one.asks(path)
            async with asyncio.timeout(PATIENCE):
                while not places():
                    await asyncio.sleep(0.01)
            one.has_left.set()
            await asked
            assert places() == 0

    run(script, token, job)


def test_a_quiet_stream_has_a_comment_now_and_then(token: str, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.3)

    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        one.asks(events(job))
        await one.told(sse.HEARTBEAT * 2)
        await elsewhere(lambda: factories.activity(job, "after.the.comments"))
        await one.told(b"after.the.comments")
        one.has_left.set()
        await until_free()

    run(script, token, job)


def test_a_client_that_does_not_read_is_cut_off(token: str, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "STALL_SECONDS", 0.5)

    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        asked = one.asks(events(job))
        await one.told(b"retry")
        one.reads.clear()
        await elsewhere(lambda: factories.activity(job, "x"))
        await asked
        assert places() == 0
        assert not one.is_over, "an answer that was cut off does not look like a whole one"

    run(script, token, job)


def test_a_client_that_reads_gets_everything_once(token: str, job: Any) -> None:
    for number in range(130):
        factories.activity(job, f"big.{number}.", input={"text": "x" * 1_000})

    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        one.asks(events(job))
        await one.told(b"big.129.")
        assert [one.body.count(b'"big.%d."' % number) for number in range(130)] == [1] * 130
        one.has_left.set()
        await until_free()

    run(script, token, job)


def test_a_database_that_is_away_for_a_while_costs_no_stream(
    token: str, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, is_away, tried = streams.look, [False], asyncio.Event()
    monkeypatch.setattr("agent_jobs.api.news_watch._PAUSE_SECONDS", 0.1)

    async def script(client: Callable[[], Client], job: Any) -> None:
        loop = asyncio.get_running_loop()

        def away(opened: Any) -> Any:
            if is_away[0]:
                loop.call_soon_threadsafe(tried.set)
                raise OperationalError("the connection is closed")
            return look(opened)

        monkeypatch.setattr(streams, "look", away)
        one = client()
        one.asks(events(job))
        await one.told(b"retry")
        is_away[0] = True
        await tried.wait()
        await elsewhere(lambda: factories.activity(job, "meanwhile"))
        is_away[0] = False
        await one.told(b"meanwhile")
        one.has_left.set()
        await until_free()

    run(script, token, job)


def test_a_wait_does_not_outlive_its_token(token: str, job: Any) -> None:
    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        asked = one.asks("/services/channels/web/lobby/messages?wait=30")
        async with asyncio.timeout(PATIENCE):
            while not places():
                await asyncio.sleep(0.01)
        await elsewhere(lambda: AppToken.objects.update(revoked_at=Now()))
        await asked
        assert (one.status, json.loads(one.body)["code"]) == (401, "unauthenticated")

    run(script, token, job)


def test_an_answer_that_waited_has_the_id_and_the_limits_of_its_request(token: str, job: Any, settings: Any) -> None:
    settings.RATE_TOKEN = "100/minute"

    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        await one.asks(f"/services/agent-jobs/{job.pk}?wait=1", x_request_id="r1")
        assert (one.status, one.headers["x-request-id"]) == (200, "r1")
        assert "r=99" in one.headers["ratelimit"], "it is counted once"
        assert one.headers["content-length"] == str(len(one.body))

    run(script, token, job)


# --- Bodies ----------------------------------------------------------------------------------------------------
def test_a_body_is_taken_in_parts(token: str, job: Any) -> None:
    body = json.dumps(factories.job_request()).encode()
    rows.job_type()

    async def script(client: Callable[[], Client], job: Any) -> None:
        one = client()
        kind = {"content_type": "application/json", "content_length": str(len(body))}
        asked = one.asks("/services/agent-jobs", "POST", **kind)
        for part, is_more in ((body[:10], True), (body[10:], False)):
            one.parts.put_nowait({"type": "http.request", "body": part, "more_body": is_more})
        await asked
        assert one.status == 201

    run(script, token, job)


@pytest.mark.parametrize("limit", ["BODY_IDLE_SECONDS", "BODY_SECONDS"])
def test_a_body_that_does_not_come_is_a_408_and_takes_no_thread(
    token: str, job: Any, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_reading, limit, 0.3)

    async def script(client: Callable[[], Client], job: Any) -> None:
        slow = [client() for _ in range(40)]
        asked = [one.asks("/services/agent-jobs", "POST", content_length="10") for one in slow]
        for one in slow:
            one.parts.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
        await asyncio.gather(*asked)
        assert {(one.status, json.loads(one.body)["code"]) for one in slow} == {(408, "request_timeout")}
        assert slow[0].application._body_bytes == slow[0].application._running == 0
        assert not slow[0].application.threads._threads

    run(script, token, job)


def test_bodies_have_only_so_much_room_together(token: str, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "MOST_BODY_BYTES", 15)

    async def script(client: Callable[[], Client], job: Any) -> None:
        first, second = client(), client()
        asked = first.asks("/services/agent-jobs", "POST", content_length="10")
        await asyncio.sleep(0)
        await second.asks("/services/agent-jobs", "POST", content_length="10")
        assert (second.status, json.loads(second.body)["code"]) == (503, "unavailable")
        assert int(second.headers["retry-after"]) > 0
        first.has_left.set()
        await asked
        assert first.status == 0

    run(script, token, job)


# --- Heads -----------------------------------------------------------------------------------------------------
def scope(headers: list[tuple[bytes, bytes]], client: str = "10.0.0.1") -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/ä",
        "raw_path": b"/%C3%A4",
        "query_string": b"a=%20",
        "http_version": "1.1",
        "scheme": "http",
        "client": (client, "1"),
        "server": ("127.0.0.1", "8000"),
        "headers": headers,
    }


def test_a_head_becomes_what_wsgi_says() -> None:
    environ = request_reading.environ_of(
        scope([(b"x-a", b"1"), (b"x-a", b"2"), (b"content-type", b"text/x"), (b"x_forwarded_for", b"1.2.3.4")])
    )
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/ä"
    assert (environ["QUERY_STRING"], environ["HTTP_X_A"], environ["CONTENT_TYPE"]) == ("a=%20", "1,2", "text/x")
    assert "HTTP_X_FORWARDED_FOR" not in environ


@pytest.mark.parametrize(("client", "scheme"), [("10.0.0.1", "https"), ("10.0.1.1", "http")])
def test_only_a_trusted_proxy_says_that_the_client_came_over_tls(client: str, scheme: str, settings: Any) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/24"]
    assert request_reading.environ_of(scope([(b"x-forwarded-proto", b"https")], client))["wsgi.url_scheme"] == scheme
