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
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import Resolver404, resolve
from uuid_utils import uuid7

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# Only an image has run collectstatic; elsewhere WhiteNoise serves from the apps' folders (see the settings).
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)
_django = get_wsgi_application()

from agent_jobs.api import errors, sse, streams, throttling  # noqa: E402 - once Django is set up
from agent_jobs.api.base import HAS_WAITED  # noqa: E402
from agent_jobs.api.stream_polling import Watch  # noqa: E402
from agent_jobs.api.streams import OpenAnswer, OpenStream  # noqa: E402
from agent_jobs.dialects import urls as dialect_urls  # noqa: E402, F401 - registers their formats of errors
from agent_jobs.sandbox import pool  # noqa: E402
from channels_integration import urls  # noqa: E402
from config import draining, garbage_collection  # noqa: E402
from config.embedded import tied_to_parent  # noqa: E402
from infra import meters  # noqa: E402

log = logging.getLogger(__name__)
# Limits for clients: send some of the body within BODY_IDLE_SECONDS and all within BODY_SECONDS; read within
# STALL_SECONDS.
BODY_IDLE_SECONDS = 30.0
BODY_SECONDS = 60.0
STALL_SECONDS = 30.0
# A list's address may name a hundred filters; a header carries one token.
MOST_LINE = MOST_HEADER = 8190
MOST_HEAD = 64 * 1024
# Paths that accept larger bodies than MAX_BODY_BYTES.
_MOST_OF_DOORS = {"/admin/": settings.DATA_UPLOAD_MAX_MEMORY_SIZE, "/channels/": urls.MAX_BODY_BYTES}
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

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[str, str]]


class _Gone(Exception):
    """The client has disconnected, or does not read."""


class _Refusal(Exception):
    """A refusal before Django: it has the API's error format, and quotes nothing of the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


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
            except _Gone:
                pass
            except _Refusal as refusal:
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
            log.exception("stopping: cannot wait for connections that are not read yet")
        os.kill(os.getpid(), signal.SIGINT)

    # --- One request ---
    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        environ = _environ(scope)
        length = _length_to_read(environ)
        if self._body_bytes + length > MOST_BODY_BYTES or self._running >= MOST_QUEUED:
            raise _Refusal(503, "unavailable", "too many requests are under way here; try again soon")
        self._body_bytes += length
        self._running += 1
        try:
            try:
                body = await _body(receive) if length else b""
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
        """The result of `work`. Raises _Gone as soon as the client disconnects."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _Gone
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


# --- Reading ---------------------------------------------------------------------------------------------------
def _environ(scope: dict[str, Any]) -> dict[str, Any]:
    """The WSGI environment, without a body."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    if len(path) + len(query) > MOST_LINE:
        raise _Refusal(414, "bad_request", "the request cannot be read: its address is too long")
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD:
        raise _Refusal(431, "bad_request", "the request cannot be read: its headers are too long")
    for raw_name, raw_value in scope["headers"]:
        if len(raw_name) + len(raw_value) > MOST_HEADER:
            raise _Refusal(431, "bad_request", "the request cannot be read: one of its headers is too long")
        if b"_" in raw_name:
            continue  # else X_Forwarded_For would be taken for X-Forwarded-For
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        name = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    if environ.get("HTTP_X_FORWARDED_PROTO") == "https" and throttling.is_proxy(client[0]):
        environ["wsgi.url_scheme"] = "https"
    return environ


def _length_to_read(environ: dict[str, Any]) -> int:
    """The bytes to read; 0 also for a body that Django refuses by its headers: too long, or chunked."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    is_read = length <= settings.MAX_BODY_BYTES or length <= _most_at(environ["PATH_INFO"])
    return length if is_read and "HTTP_TRANSFER_ENCODING" not in environ else 0


def _most_at(path: str) -> int:
    """The longest body that is read at this address: its view says so."""
    if door := next((door for door in _MOST_OF_DOORS if path.startswith(door)), None):
        return _MOST_OF_DOORS[door]
    try:
        found = resolve(path)
    except Resolver404:
        return settings.MAX_BODY_BYTES
    return int(getattr(getattr(found.func, "cls", None), "max_body_bytes", settings.MAX_BODY_BYTES))


async def _body(receive: Receive) -> bytes:
    parts = []
    try:
        async with asyncio.timeout(BODY_SECONDS):
            is_more = True
            while is_more:
                async with asyncio.timeout(BODY_IDLE_SECONDS):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                parts.append(message.get("body", b""))
                is_more = message.get("more_body", False)
    except TimeoutError:
        raise _Refusal(408, "request_timeout", "the body did not arrive in time") from None
    return b"".join(parts)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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
        refusal = _Refusal(500, "internal_error", "something went wrong here; it has been recorded")
        return _refused(refusal, environ["PATH_INFO"])


# --- Writing ---------------------------------------------------------------------------------------------------
def _refused(refusal: _Refusal, path: str) -> _Answer:
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
        raise _Gone from None


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
