"""Guarded HTTP client for the SDKs of providers and of MCP, which bring code of their own.

It looks up the name for each connection, judges every address of it, and connects to one of these, under the name's
certificate. So a name that changes its address a moment later gains nothing. It follows no redirects, and uses no
proxies, cookies or passwords of the environment. It asks for uncompressed answers, and unpacks those that come
compressed all the same. Answers are limited in size, counted after unpacking.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterable
from functools import cache
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore2
import httpx2

from infra import threads
from infra.egress import addresses, unpacking
from infra.egress.addresses import Rules

CONNECT_SECONDS = 5.0
_CONNECTIONS = 1_000
_IDLE_CONNECTIONS = 100
_IDLE_SECONDS = 30.0
_MOST_TARGET = 200

Client = httpx2.AsyncClient
Request = httpx2.Request
Response = httpx2.Response
ByteStream = httpx2.AsyncByteStream
FAILURES = (httpx2.HTTPError, httpx2.InvalidURL)


class RefusedByGuard(httpcore2.ConnectError):
    """The guard refuses this address, or the answer is a redirect."""


class Unfit(httpcore2.ReadError):
    """The answer is longer than allowed, or compressed in a way that we cannot unpack."""


_loops: list[asyncio.AbstractEventLoop] = []
_loops_lock = threading.Lock()


def loop() -> asyncio.AbstractEventLoop:
    """The event loop of all such clients in this process. An open connection belongs to its loop, so all callers must
    get the same one, even if they first ask at the same time."""
    with _loops_lock:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            threads.start_vital("egress", _loops[0].run_forever)
        return _loops[0]


def client(rules: Rules, *, max_bytes: int) -> Client:
    """A client for one event loop, which many callers may share. Each request states its time-outs."""
    return httpx2.AsyncClient(
        transport=_Guarded(rules, max_bytes),
        timeout=httpx2.Timeout(60.0, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(addresses.NoCookies()),
    )


def refused(error: BaseException | None) -> str | None:
    """Why the guard refused the request behind this error, as the end of a sentence; None if it did not."""
    return _found(error, RefusedByGuard)


def unfit(error: BaseException | None) -> str | None:
    """Why the answer behind this error was refused (size or compression); None if it was not."""
    return _found(error, Unfit)


def _found(error: BaseException | None, kind: type[Exception]) -> str | None:
    while error is not None:
        if isinstance(error, kind):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


@cache
def trusted() -> ssl.SSLContext:
    """The trusted certificate authorities: slow to load, and the same for all clients."""
    context = httpx2.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Guarded(httpx2.AsyncHTTPTransport):
    def __init__(self, rules: Rules, max_bytes: int) -> None:
        super().__init__(verify=trusted(), trust_env=False)
        self._rules = rules
        self._max_bytes = max_bytes
        # The transport accepts no network backend, but its pool does. The discarded pool has opened nothing.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            retries=0,
            network_backend=Network(rules),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if reason := addresses.refusal_of_shape(str(request.url), self._rules):
            raise httpx2.ConnectError(reason) from RefusedByGuard(reason)
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)
        if 300 <= response.status_code < 400:
            await response.aclose()
            raise httpx2.ReadError("the answer is a redirect") from RefusedByGuard(
                f"redirects to {_target(response, request)}"
            )
        coding = response.headers.pop("Content-Encoding", "").strip().lower()
        if coding not in unpacking.IDENTITY and not unpacking.is_supported(coding):
            await response.aclose()
            raise httpx2.ReadError("the answer is compressed") from Unfit(
                f"is compressed as {coding[:20]!r}, although the request forbids that"
            )
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        is_packed = coding not in unpacking.IDENTITY
        response.stream = _Bounded(_Unpacked(response.stream) if is_packed else response.stream, self._max_bytes)
        return response


def _target(response: httpx2.Response, request: httpx2.Request) -> str:
    """Where a redirect leads, without its query, which may hold credentials."""
    try:
        parts = urlsplit(urljoin(str(request.url), response.headers.get("Location", "")))
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:_MOST_TARGET]
    except ValueError:
        return "another address"
    return shown if response.headers.get("Location") and shown.isprintable() else "another address"


class _Unpacked(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpacker = unpacking.Unpacker()
        is_empty = True
        async for chunk in self._stream:
            is_empty = is_empty and not chunk
            try:
                for piece in unpacker.pieces(chunk):
                    yield piece
            except unpacking.Damaged:
                raise httpx2.ReadError("the answer is damaged") from Unfit("cannot be unpacked")
        if not (is_empty or unpacker.is_finished):
            raise httpx2.ReadError("the answer is damaged") from Unfit("is packed, and its end is missing")

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._max_bytes:
                raise httpx2.ReadError("the answer is too long") from Unfit(f"is longer than {self._max_bytes:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class Network(httpcore2.AsyncNetworkBackend):
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        until = time.monotonic() + min(timeout or CONNECT_SECONDS, CONNECT_SECONDS)
        try:
            found = await addresses.look_up(host, seconds=until - time.monotonic())
        except addresses.NoAddress as error:
            raise httpcore2.ConnectError(str(error)) from error
        if not addresses.are_allowed(found, self._rules):
            raise RefusedByGuard(addresses.PRIVATE)
        failed: Exception = httpcore2.ConnectTimeout("cannot connect in time")
        for address in found:
            if (left := until - time.monotonic()) <= 0:
                break
            try:
                return await self._network.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise RefusedByGuard("is not a network address")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)
