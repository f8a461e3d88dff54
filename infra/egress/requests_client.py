"""One blocking request to another's server: no retries, no redirects, no proxies, no cookies, one deadline.

It shares the guard, the network and the certificates with `async_client`, and runs an event loop of its own for each
request. So a busy loop of model calls delays no message, a slow drip of bytes or of a TLS handshake ends at the
deadline, and another thread can cancel. The caller learns one of three facts: nothing was written, something may have
been written, or there is an answer. Only requests to an address that the operator set are unguarded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import httpcore2
import httpx2
from django.conf import settings

from infra.egress import addresses, async_client

# For the name, the connection and TLS together: a message's first byte must leave within 2 s of its claim.
CONNECT_SECONDS = 1.5
READ_SECONDS = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError, ValueError)
_T = TypeVar("_T")


class HttpError(Exception):
    """
    HttpError
    ├── Refused       the guard refuses this address
    ├── NotConnected  no connection, so nothing was written
    └── NoAnswer      connected, and then no whole answer head: the other side may have acted
    """


class Refused(HttpError):
    pass


class NotConnected(HttpError):
    pass


class NoAnswer(HttpError):
    pass


@dataclass(frozen=True, slots=True)
class Answer:
    """`is_whole` is False where the body was cut: too long, too slow or broken off."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool


def send_seconds() -> float:
    """The longest that one request may take, from the look-up of its name to the last byte of its answer.

    It is well below the grace; otherwise a message might be looked up while it is being sent.
    """
    return min(CONNECT_SECONDS + READ_SECONDS + 0.3, settings.DELIVERY_GRACE_SECONDS / 2)


def post(
    url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    is_guarded: bool,
    before_post: Callable[[], None] | None = None,
    seconds: float | None = None,
) -> Answer:
    """POST once, within `seconds` or `send_seconds()` in all.

    `before_post` runs once connected, before the first byte; its exceptions pass through. Raises HttpError.
    """
    exchange = _Exchange(seconds or send_seconds(), read_seconds=READ_SECONDS)
    return exchange.answer("POST", url, body, headers, is_guarded=is_guarded, before_post=before_post)


def request(
    method: str,
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    seconds: float,
    on_start: Callable[[Callable[[], None]], object] | None = None,
) -> Answer:
    """One guarded request that may take `seconds` in all. Raises HttpError.

    `on_start` gets a function that cancels the request, from any thread. The request then ends at once: as NotConnected
    or NoAnswer, whichever is true, or with an answer that is not whole.
    """
    exchange = _Exchange(seconds, read_seconds=seconds)
    if on_start:
        on_start(exchange.give_up)
    return exchange.answer(method, url, body, headers, is_guarded=True)


def refusal(url: str) -> str | None:
    """Why no request may go to this address, by its text alone, as the end of a sentence; None if it may.

    For API views, which look no name up: a slow one would hold their thread. Each request judges the addresses.
    """
    if reason := refusal_of_shape(url):
        return reason
    is_inside = not settings.ALLOW_PRIVATE_ADDRESSES and addresses.is_inside(addresses.host_of(url))
    return addresses.PRIVATE if is_inside else None


def refusal_of_shape(url: str) -> str | None:
    return addresses.refusal_of_shape(url, rules())


def rules() -> addresses.Rules:
    """The settings' rules for addresses that are not the operator's own."""
    return addresses.Rules(allow_private=settings.ALLOW_PRIVATE_ADDRESSES)


class _Exchange:
    def __init__(self, seconds: float, *, read_seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._connected_by = time.monotonic() + min(CONNECT_SECONDS, seconds)
        self._read_seconds = read_seconds
        self._task: asyncio.Task[object] | None = None
        self._is_given_up = False

    def give_up(self) -> None:
        """Cancel, from any thread."""
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
        is_guarded: bool,
        before_post: Callable[[], None] | None = None,
    ) -> Answer:
        if is_guarded and (reason := refusal_of_shape(url)):
            raise Refused(reason)
        try:
            sent = self._request(method, url, body, headers)
        except (httpx2.InvalidURL, ValueError) as error:
            raise NotConnected(f"cannot be sent: {error}") from None
        network = async_client.Network(rules() if is_guarded else addresses.Rules(allow_private=True))
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
        """Raises Refused and NotConnected."""
        try:
            return await self._unless_given_up(self._connect(network, url))
        except async_client.RefusedByGuard as error:
            raise Refused(str(error)) from error
        except _FAILURES as error:
            is_unknown = isinstance(error.__cause__, addresses.NoAddress)
            raise NotConnected(str(error) if is_unknown else f"cannot connect: {type(error).__name__}") from error
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
        """Raises NoAnswer."""
        heads: list[httpcore2.Response] = []
        body = bytearray()
        is_whole = False
        try:
            async with asyncio.timeout(self._ends_at - time.monotonic()):
                await self._unless_given_up(self._receive(stream, sent, heads, body))
            is_whole = len(body) <= MAX_ANSWER_BYTES
        except _FAILURES as error:  # a TimeoutError is an OSError
            if not heads:
                raise NoAnswer(f"no answer: {type(error).__name__}") from error
        except asyncio.CancelledError:
            if not self._is_given_up:
                raise
            if not heads:
                raise NoAnswer("the request was canceled") from None
        finally:
            await stream.aclose()
        return Answer(heads[0].status, httpx2.Headers(heads[0].headers), bytes(body[:MAX_ANSWER_BYTES]), is_whole)

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
            if len(body) > MAX_ANSWER_BYTES:
                return

    async def _unless_given_up(self, work: Awaitable[_T]) -> _T:
        self._task = task = asyncio.current_task()
        if task and self._is_given_up:
            task.cancel()
        return await work
