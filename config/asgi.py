"""The ASGI application of the web process (`config.serve` starts it).

It reads a request whole before it takes a thread, so slow or silent clients hold none. A thread of the pool then runs
Django as WSGI: its middlewares and views are synchronous, and async ones would switch threads at each layer. An answer
that stays open (`agent_jobs.api.streams`) leaves the thread at once. The event loop writes streams. It runs a long-poll
again when its wait is over.
"""

import asyncio
import faulthandler
import io
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from uuid_utils import uuid7

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# Only an image has run collectstatic; elsewhere WhiteNoise serves from the apps' folders (see the settings).
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)
_django = get_wsgi_application()

from agent_jobs.api import errors, sse, streams  # noqa: E402 - once Django is set up
from agent_jobs.api.base import HAS_WAITED  # noqa: E402
from agent_jobs.api.news_watch import Watch  # noqa: E402
from agent_jobs.api.streams import OpenAnswer, OpenStream  # noqa: E402
from agent_jobs.dialects import urls as dialect_urls  # noqa: E402, F401 - registers their formats of errors
from agent_jobs.sandbox import pool  # noqa: E402
from config import draining, garbage_collection, request_reading  # noqa: E402
from config.embedded import tied_to_parent  # noqa: E402
from config.request_reading import ClientGone, Receive, RequestRefusal  # noqa: E402
from infra import meters  # noqa: E402

log = logging.getLogger(__name__)
# A client has to read within this time.
STALL_SECONDS = 30.0
# Bytes of all request bodies in memory, and the number of requests that wait for a thread.
MOST_BODY_BYTES = 64 * 1024 * 1024
MOST_QUEUED = 1_000
# How long a stopping process still takes new connections, while it asks clients to close theirs.
FAREWELL_SECONDS = 1.0
# Requests that wait for a sandbox child (schemas, templates): the limit leaves threads for everything else.
_MOST_JUDGED = 6
# A hung event loop ends the process after this time, and the supervisor starts another.
_HUNG_SECONDS = 60
_RETRY = b"retry: 2000\n\n"
_SERVER = (b"server", b"agent-jobs")  # does not reveal the server software

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[str, str]]


@dataclass(slots=True)
class _Answer:
    status: int
    headers: Headers
    body: bytes = b""
    opened: OpenAnswer | None = None


@dataclass(slots=True)
class Application:
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(settings.WEB_THREADS, "web"))
    _body_bytes: int = 0
    _running: int = 0
    _watch: Watch | None = None
    _leaving: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._serve(scope, receive, send)
            except ClientGone:
                pass
            except RequestRefusal as refusal:
                await self._send(send, _refused(refusal, scope["path"]))

    # --- The life of the process ---
    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        loop = asyncio.get_running_loop()
        self._watch = Watch()
        self._watch.start()
        if sys.platform == "linux" and (tie := tied_to_parent(signal.SIGKILL, parent=os.getppid())) is not None:
            tie()  # ends with its parent process, even if that one is killed with -9
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        alive = asyncio.create_task(_show_life())
        pool.limit_callers(_MOST_JUDGED)
        garbage_collection.leave_what_is_loaded()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        alive.cancel()
        if self._leaving is not None:
            self._leaving.cancel()  # it is done, unless a second signal came first
        faulthandler.cancel_dump_traceback_later()
        self._watch.close()
        await loop.run_in_executor(None, self.threads.shutdown)
        await send({"type": "lifespan.shutdown.complete"})

    def _stop(self) -> None:
        """End open answers, and tell clients to close their connections. `_leave` then stops the server."""
        if self._leaving is not None:
            return
        self._leaving = asyncio.ensure_future(self._leave())
        if self._watch is not None:
            self._watch.stop()

    async def _leave(self) -> None:
        """Stop the server (by SIGINT) when no client is about to send a request.

        The server closes idle connections, so clients first get FAREWELL_SECONDS to close theirs.
        """
        await asyncio.sleep(FAREWELL_SECONDS)
        try:
            await draining.drain()
        except OSError:
            log.exception("stopping: cannot tell which connections have a request under way")
        os.kill(os.getpid(), signal.SIGINT)

    # --- One request ---
    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        environ = request_reading.environ_of(scope)
        length = request_reading.length_to_read(environ)
        if self._body_bytes + length > MOST_BODY_BYTES or self._running >= MOST_QUEUED:
            raise RequestRefusal(503, "unavailable", "too many requests are under way here; try again soon")
        self._body_bytes += length
        self._running += 1
        try:
            try:
                body = await request_reading.body_of(receive) if length else b""
                answer = await self._ask({**environ, "wsgi.input": io.BytesIO(body)})
            finally:
                self._running -= 1
            if answer.opened is None:
                await self._send(send, answer)
            else:
                await self._keep_open(environ, body, answer, answer.opened, receive, send)
        finally:
            self._body_bytes -= length

    async def _keep_open(
        self,
        environ: dict[str, Any],
        body: bytes,
        answer: _Answer,
        opened: OpenAnswer,
        receive: Receive,
        send: Send,
    ) -> None:
        end = "gone"
        try:
            if isinstance(opened, OpenStream):
                end = await self._while_there(receive, self._stream(opened, answer, send))
            else:
                end = await self._while_there(receive, self._wait(opened))
                await self._send(send, await self._ask_again(environ, body, answer))
        finally:
            self._watching.leave(opened)
            opened.place.leave()
            meters.add("open_answers", kind=opened.kind, end=end)

    async def _send(self, send: Send, answer: _Answer) -> None:
        farewell = [("Connection", "close")] if self._leaving is not None else []
        await _write(send, _start(answer.status, [*answer.headers, *farewell]))
        await _write(send, {"type": "http.response.body", "body": answer.body})

    @property
    def _watching(self) -> Watch:
        assert self._watch is not None
        return self._watch

    async def _ask(self, environ: dict[str, Any]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self.threads, _ask_django, environ)

    async def _ask_again(self, environ: dict[str, Any], body: bytes, first: _Answer) -> _Answer:
        """Runs the request again. Checks its token, but does not count it again, and keeps its rate-limit headers."""
        told = dict(first.headers)
        environ["HTTP_X_REQUEST_ID"] = told["X-Request-ID"]
        answer = await self._ask({**environ, HAS_WAITED: first.opened, "wsgi.input": io.BytesIO(body)})
        limits = {name: value for name, value in told.items() if name.startswith("RateLimit")}
        return _Answer(answer.status, list({**dict(answer.headers), **limits}.items()), answer.body)

    # --- What stays open ---
    async def _while_there(self, receive: Receive, work: Awaitable[str]) -> str:
        """The result of `work`. Raises ClientGone as soon as the client disconnects."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request_reading.left(receive))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    async def _wait(self, opened: OpenAnswer) -> str:
        return (await self._watching.ask(opened)).end

    async def _stream(self, opened: OpenStream, answer: _Answer, send: Send) -> str:
        """Writes until the end. Disconnects a client that does not read."""
        headers = [(name, value) for name, value in answer.headers if name != "Content-Length"]
        await _write(send, _start(answer.status, headers))
        await _write(send, _part(_RETRY))
        news = self._watching.ask(opened)
        while True:
            await asyncio.wait({news}, timeout=streams.HEARTBEAT_SECONDS)
            if not news.done():
                await _write(send, _part(sse.HEARTBEAT))
                continue
            found = news.result()
            if found.frames:
                await _write(send, _part(b"".join(found.frames)))
            if found.end:
                await _write(send, {"type": "http.response.body", "body": b""})
                return found.end
            news = self._watching.ask(opened, at_once=found.has_more)


# --- Django ----------------------------------------------------------------------------------------------------
def _ask_django(environ: dict[str, Any]) -> _Answer:
    """Runs Django, in a thread of the pool."""
    began: list[Any] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        began[:] = int(status.partition(" ")[0]), headers
        return began.append  # WSGI's write callable, which Django does not use

    try:
        response: Any = _django(environ, start_response)
        try:
            opened = getattr(response, "opened", None)
            body = b"" if opened is not None else b"".join(response)
        finally:
            response.close()  # in this thread, because it closes the thread's old database connection
        return _Answer(began[0], began[1], body, opened)
    except Exception:
        log.exception("request failed outside Django")
        refusal = RequestRefusal(500, "internal_error", "something went wrong here; it has been recorded")
        return _refused(refusal, environ["PATH_INFO"])


# --- Writing ---------------------------------------------------------------------------------------------------
def _refused(refusal: RequestRefusal, path: str) -> _Answer:
    request_id = str(uuid7())
    refused = errors.RefusedRequest(refusal.status, refusal.code, refusal.message, (), request_id)
    status, shown = errors.enveloped(path, refused)
    body = json.dumps(shown).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("X-Request-ID", request_id)]
    if refusal.status == 503:
        headers.append(("Retry-After", str(streams.RETRY_AFTER_SECONDS)))
    return _Answer(status, [*headers, ("Connection", "close")], body)


async def _write(send: Send, message: dict[str, Any]) -> None:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await send(message)
    except TimeoutError:
        raise ClientGone from None


def _start(status: int, headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": [*raw, _SERVER]}


def _part(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _show_life() -> None:
    while True:
        faulthandler.dump_traceback_later(_HUNG_SECONDS, exit=True)
        await asyncio.sleep(_HUNG_SECONDS / 6)


application = Application()
