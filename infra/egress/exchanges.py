"""One blocking request to another's server: no retries, no redirects, no proxies, no cookies, one deadline.

It shares the guard, the network and the certificates with `async_client`, and runs an event loop of its own for each
request. So a busy loop of model calls delays no message, a slow drip of bytes or of a TLS handshake ends at the
deadline, and another thread can cancel. The caller learns one of three facts: nothing was written, something may have
been written, or there is an answer. It knows no settings, so that runners may use it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import httpcore2
import httpx2

from infra.egress import addresses, async_client
from infra.egress.addresses import Rules

MAX_ANSWER_BYTES = 1024 * 1024
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError, ValueError)
_ANYWHERE = Rules(allow_private=True)
_T = TypeVar("_T")


class HttpError(Exception):
    """
    HttpError
    ├── Refused       the guard refuses this address
    ├── NotConnected  no connection, so nothing was written
    └── NoAnswer      connected, and then no whole answer head: the other side may have acted
        └── SlowAnswer    none within the time for it
    """


class Refused(HttpError):
    pass


class NotConnected(HttpError):
    pass


class NoAnswer(HttpError):
    pass


class SlowAnswer(NoAnswer):
    pass


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `is_whole` is False if the body was cut: too long, too slow or broken off."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool
    reason: str = ""


def make(
    method: str,
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    seconds: float,
    connect_seconds: float,
    rules: Rules | None,
    read_seconds: float | None = None,
    max_bytes: int = MAX_ANSWER_BYTES,
    before_post: Callable[[], None] | None = None,
    on_start: Callable[[Callable[[], None]], object] | None = None,
) -> Answer:
    """One request within `seconds` in all, and `connect_seconds` for name, connection and TLS. Raises HttpError.

    `rules` guard it; None lets it go anywhere. The body of the answer is read up to `max_bytes`. `before_post` runs
    once connected, before the first byte; its exceptions pass through.

    `on_start` gets a function that cancels the request, from any thread. The request then ends at once: as NotConnected
    or NoAnswer, whichever is true, or with an answer that is not whole.
    """
    exchange = _Exchange(seconds, connect_seconds=connect_seconds, read_seconds=read_seconds, max_bytes=max_bytes)
    if on_start:
        on_start(exchange.give_up)
    if rules and (reason := addresses.refusal_of_shape(url, rules)):
        raise Refused(reason)
    return exchange.answer(method, url, body, headers, rules=rules or _ANYWHERE, before_post=before_post)


class _Exchange:
    def __init__(self, seconds: float, *, connect_seconds: float, read_seconds: float | None, max_bytes: int) -> None:
        self._ends_at = time.monotonic() + seconds
        self._connected_by = time.monotonic() + min(connect_seconds, seconds)
        self._read_seconds = seconds if read_seconds is None else read_seconds
        self._max_bytes = max_bytes
        self._task: asyncio.Task[object] | None = None
        self._is_given_up = False

    def give_up(self) -> None:
        """Cancel the request; safe from any thread.

        `answer` then raises NotConnected or NoAnswer, or returns an answer that is not whole.
        """
        self._is_given_up = True
        if task := self._task:
            with suppress(RuntimeError):  # the loop is closed: the request has ended
                task.get_loop().call_soon_threadsafe(task.cancel)

    def answer(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        rules: Rules,
        before_post: Callable[[], None] | None,
    ) -> Answer:
        try:
            sent = self._request(method, url, body, headers)
        except (httpx2.InvalidURL, ValueError) as error:
            raise NotConnected(f"cannot be sent: {error}") from None
        network = async_client.Network(rules)
        with asyncio.Runner() as runner:
            stream = runner.run(self._connected(network, sent.url))
            if before_post:
                before_post()
            return runner.run(self._answered(stream, sent))

    def _request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> httpcore2.Request:
        own = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "agent-jobs"}
        built = httpx2.Request(method, url, headers=httpx2.Headers(own) | headers, content=body)
        scheme, host = built.url.raw_scheme, built.url.raw_host
        return httpcore2.Request(
            method=built.method,
            url=httpcore2.URL(scheme=scheme, host=host, port=built.url.port, target=built.url.raw_path),
            headers=built.headers.raw,
            content=built.stream,
            extensions={"timeout": {"read": self._read_seconds, "write": self._read_seconds}},
        )

    async def _connected(self, network: async_client.Network, url: httpcore2.URL) -> httpcore2.AsyncNetworkStream:
        """Connect, with TLS for https. Raises Refused and NotConnected."""
        try:
            return await self._unless_given_up(self._connect(network, url))
        except async_client.RefusedByGuard as error:
            raise Refused(str(error)) from error
        except _FAILURES as error:
            is_unknown = isinstance(error.__cause__, addresses.NoAddress)
            raise NotConnected(str(error) if is_unknown else f"cannot connect: {_reason(error)}") from error
        except asyncio.CancelledError:
            if not self._is_given_up:
                raise
            raise NotConnected("the request was canceled") from None

    async def _connect(self, network: async_client.Network, url: httpcore2.URL) -> httpcore2.AsyncNetworkStream:
        host = url.host.decode()
        stream = await network.connect_tcp(host, url.origin.port, self._connected_by - time.monotonic())
        if url.scheme != b"https":
            return stream
        try:
            return await stream.start_tls(async_client.trusted(), host, self._connected_by - time.monotonic())
        except BaseException:
            await stream.aclose()
            raise

    async def _answered(self, stream: httpcore2.AsyncNetworkStream, sent: httpcore2.Request) -> Answer:
        """Send the request and read its answer. Raises NoAnswer."""
        heads: list[httpcore2.Response] = []
        body = bytearray()
        is_whole = False
        try:
            async with asyncio.timeout(self._ends_at - time.monotonic()):
                await self._unless_given_up(self._receive(stream, sent, heads, body))
            is_whole = len(body) <= self._max_bytes
        except _FAILURES as error:  # a TimeoutError is an OSError
            if not heads and isinstance(error, TimeoutError | httpcore2.TimeoutException):
                raise SlowAnswer("no answer in time") from error
            if not heads:
                raise NoAnswer(f"no answer: {type(error).__name__}") from error
        except asyncio.CancelledError:
            if not self._is_given_up:
                raise
            if not heads:
                raise NoAnswer("the request was canceled") from None
        finally:
            await stream.aclose()
        head = heads[0]
        reason = bytes(head.extensions.get("reason_phrase", b"")).decode("latin-1")
        return Answer(head.status, httpx2.Headers(head.headers), bytes(body[: self._max_bytes]), is_whole, reason)

    async def _receive(
        self,
        stream: httpcore2.AsyncNetworkStream,
        sent: httpcore2.Request,
        heads: list[httpcore2.Response],
        body: bytearray,
    ) -> None:
        """Appends the head, then the body, up to one chunk beyond its limit."""
        connection = httpcore2.AsyncHTTP11Connection(sent.url.origin, stream)
        heads.append(await connection.handle_async_request(sent))
        async for chunk in heads[0].aiter_stream():
            body += chunk
            if len(body) > self._max_bytes:
                return

    async def _unless_given_up(self, work: Awaitable[_T]) -> _T:
        self._task = task = asyncio.current_task()
        if task and self._is_given_up:
            task.cancel()
        return await work


def _reason(error: BaseException) -> str:
    """The system's words for a failed connection, as `Connection refused`; the kind of the error if it has none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return getattr(cause, "verify_message", "") or cause.reason or type(cause).__name__
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
