"""Takes open answers out of the hands of gunicorn's threads: one event loop for the sockets of all of them.

Beside the loop's thread there is one that looks into the database (`streams.look`), and there are two that run waiting
requests again when their wait is over. The loop itself never waits for anything but sockets and clocks, so a slow
database delays what is told, not heartbeats and not a stop; a client that does not read is cut off, and its unread
bytes are bounded meanwhile. A connection ends with its answer: what a client sends after its request is thrown away.
"""

import asyncio
import contextlib
import io
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from socket import socket
from typing import Any

from django.db import Error as DatabaseTrouble
from django.db import connections

from agent_jobs.api import feeds, streams
from agent_jobs.api.base import HAS_WAITED
from agent_jobs.api.streams import EventStream, OpenAnswer, Wait
from channels_integration import tally

log = logging.getLogger(__name__)
# What is written and not sent: above this a client gets no more until it has read. The kernel keeps some beside it.
MOST_UNSENT = 64 * 1024
STALL_SECONDS = 30
_MOST_HEARD = 64 * 1024
_CLOSE_SECONDS = 10
_ANSWERERS = 2
_PAUSE_SECONDS = 1.0  # after a look that failed
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def handing_over(application: Application) -> Application:
    """The WSGI application, for gunicorn's threads: raises StopIteration where it has taken the connection over.

    The server's socket object is empty then (`fileno()` is -1), and it has to forget the connection.
    """

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        connection = environ.get("gunicorn.socket")
        if type(connection) is not socket:  # one of TLS cannot be taken apart
            return application(environ, start_response)
        environ[streams.HANDS_OVER] = True
        response: Any = application(environ, start_response)
        opened = getattr(response, "opened", None)
        if opened is None:
            return response  # type: ignore[no-any-return]
        headers = dict(response.items())
        response.close()
        if isinstance(opened, EventStream):
            taken: _Open = _OpenEvents(opened, headers, is_chunked=environ.get("SERVER_PROTOCOL") == "HTTP/1.1")
        else:
            taken = _OpenWait(opened, headers, application, environ)
        hub.adopt(taken, socket(fileno=connection.detach()))
        raise StopIteration

    return serve


class _Open(asyncio.Protocol, ABC):
    """A connection and the answer that it is open for. Lives in the loop's thread."""

    kind = ""
    hub: "Hub"

    def __init__(self, opened: OpenAnswer, headers: Mapping[str, str]) -> None:
        self.opened, self.headers = opened, headers
        self.transport: Any = None
        self.is_closing = False
        self._heard = 0
        self._unsent, self._stalled_since = 0, time.monotonic()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.hub.know(self)

    def data_received(self, data: bytes) -> None:
        self._heard += len(data)
        if self._heard > _MOST_HEARD:
            self.close("gone", at_once=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close("gone")
        self.hub.forget(self)

    def close(self, end: str, *, at_once: bool = False) -> None:
        if not self.is_closing:
            self.is_closing = True
            self.opened.place.leave()
            tally.add("open_answers", kind=self.kind, end=end)
            self.transport.close()
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.transport.abort)
        if at_once:
            self.transport.abort()

    @property
    def has_room(self) -> bool:
        return bool(self.transport.get_write_buffer_size() <= MOST_UNSENT)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.opened.until

    def check_reading(self, now: float) -> None:
        """Cut off who does not read what was written."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._stalled_since = now
        self._unsent = unsent
        if now - self._stalled_since > STALL_SECONDS:
            self.close("stalled", at_once=True)

    @abstractmethod
    def take(self, found: streams.Found) -> None:
        """What a look at the database has found of its job."""

    @abstractmethod
    def stop(self, end: str) -> None:
        """Say the last word, and close."""


class _OpenEvents(_Open):
    kind = "events"

    def __init__(self, opened: EventStream, headers: Mapping[str, str], *, is_chunked: bool) -> None:
        super().__init__(opened, headers)
        self._is_chunked = is_chunked
        self._quiet_since = time.monotonic()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        framing = {"Transfer-Encoding": "chunked"} if self._is_chunked else {}
        transport.write(_head("200 OK", {**self.headers, **framing}))
        self.write(b"retry: 2000\n\n")

    def write(self, frame: bytes) -> None:
        self._quiet_since = time.monotonic()
        self.transport.write(b"%x\r\n%b\r\n" % (len(frame), frame) if self._is_chunked else frame)

    def check_reading(self, now: float) -> None:
        super().check_reading(now)
        if now - self._quiet_since > streams.HEARTBEAT_SECONDS and not self._unsent and not self.is_closing:
            self.write(feeds.HEARTBEAT)

    def take(self, found: streams.Found) -> None:
        if found.frames:
            self.write(b"".join(found.frames))
        if found.end or (self.is_over and not found.has_more):
            self.stop(found.end or "time")

    def stop(self, end: str) -> None:
        if not self.is_closing:
            if self._is_chunked:
                self.transport.write(b"0\r\n\r\n")
            self.close(end)


class _OpenWait(_Open):
    kind = "wait"

    def __init__(
        self, opened: Wait, headers: Mapping[str, str], application: Application, environ: Mapping[str, Any]
    ) -> None:
        super().__init__(opened, headers)
        self._application = application
        self._environ = {**environ, HAS_WAITED: True, "wsgi.input": io.BytesIO()}
        self._environ["HTTP_X_REQUEST_ID"] = headers["X-Request-ID"]
        del self._environ["gunicorn.socket"], self._environ[streams.HANDS_OVER]
        self._is_asked = False

    def take(self, found: streams.Found) -> None:
        if found.end or self.is_over:
            self.stop(found.end or "time")

    def stop(self, end: str) -> None:
        """Answer now."""
        if not self._is_asked and not self.is_closing:
            self._is_asked = True
            rendering = asyncio.get_running_loop().run_in_executor(self.hub.answerers, self._render)
            rendering.add_done_callback(lambda done: self._send(done, end))

    def _render(self) -> bytes:
        began: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            began[:] = status, headers

        response = self._application(self._environ, start_response)
        try:
            body = b"".join(response)
        finally:
            if (close := getattr(response, "close", None)) is not None:
                close()
        status, headers = began
        # It was counted when it came in, and what it was told of its limits then still stands.
        limits = {name: value for name, value in self.headers.items() if name.startswith("RateLimit")}
        return _head(status, {**dict(headers), **limits}) + body

    def _send(self, done: "asyncio.Future[bytes]", end: str) -> None:
        if self.is_closing:
            return
        if done.cancelled() or (trouble := done.exception()) is not None:
            log.error("a waiting request could not be answered", exc_info=None if done.cancelled() else trouble)
            self.close("failed", at_once=True)
            return
        self.transport.write(done.result())
        self.close(end)


class Hub:
    """One for a process, at work from the first connection that it adopts."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[_Open] = set()
        self._fresh: set[_Open] = set()
        self._news = asyncio.Event()
        self._is_empty = threading.Event()
        self._is_empty.set()
        self._asker = ThreadPoolExecutor(1, "streams-look")
        self.answerers = ThreadPoolExecutor(_ANSWERERS, "streams-answer")

    def adopt(self, taken: _Open, connection: socket) -> None:
        """From any thread."""
        taken.hub = self
        with self._guard:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="streams", daemon=True).start()
            self._is_empty.clear()
        asyncio.run_coroutine_threadsafe(self._adopt(taken, connection), self._loop)

    def stop(self) -> None:
        """End the streams and answer whoever waits, at once; also those who come from now on. From any thread."""
        streams.stopping.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_all)

    def join(self, seconds: float) -> bool:
        """Whether all that was open has been ended within so long."""
        return self._is_empty.wait(seconds)

    def know(self, taken: _Open) -> None:
        self._open.add(taken)
        self._is_empty.clear()

    def forget(self, taken: _Open) -> None:
        self._open.discard(taken)
        self._fresh.discard(taken)
        if not self._open:
            self._is_empty.set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._serve(loop))

    async def _adopt(self, taken: _Open, connection: socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            await loop.connect_accepted_socket(lambda: taken, connection)
        except OSError:  # it has gone already
            connection.close()
            taken.opened.place.leave()
            self.forget(taken)
            return
        if streams.stopping.is_set():
            taken.stop("stopped")
        elif taken in self._open:
            self._fresh.add(taken)
            self._news.set()

    def _stop_all(self) -> None:
        for taken in list(self._open):
            taken.stop("stopped")

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """All that are open are looked after each LOOK_SECONDS, and those who have just come, or have more, at once."""
        next_look = 0.0
        while True:
            left = next_look - time.monotonic() if self._open else None
            if left is None or left > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), left)
            self._news.clear()
            now = time.monotonic()
            fresh, self._fresh = self._fresh, set()
            if now >= next_look:
                next_look = now + streams.LOOK_SECONDS
                fresh = set(self._open)
                for taken in fresh:
                    taken.check_reading(now)
            due = [taken for taken in fresh if not taken.is_closing and taken.has_room]
            if due and not await self._look(loop, due):
                next_look = time.monotonic() + _PAUSE_SECONDS

    async def _look(self, loop: asyncio.AbstractEventLoop, due: list[_Open]) -> bool:
        try:
            found = await loop.run_in_executor(self._asker, _look, [taken.opened for taken in due])
        except DatabaseTrouble as error:
            log.warning("open streams wait for the database: %s", error)
            for taken in due:
                if taken.is_over:
                    taken.stop("time")
            return False
        for taken, new in zip(due, found, strict=True):
            if not taken.is_closing:
                taken.take(new)
                if new.has_more:
                    self._fresh.add(taken)
                    self._news.set()
        return True


def _look(opened: list[OpenAnswer]) -> list[streams.Found]:
    try:
        return streams.look(opened)
    except DatabaseTrouble:
        connections.close_all()  # this thread's
        raise


def _head(status: str, headers: Mapping[str, str]) -> bytes:
    """Every one of these answers is its connection's last."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"Date: {formatdate(usegmt=True)}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


hub = Hub()
