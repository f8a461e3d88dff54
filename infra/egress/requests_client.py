"""Our own HTTP client to other people's servers: one request, no retries, no redirects, no proxies, one deadline.

It resolves a name once, and connects to one of its addresses, under the name's certificate. For guarded requests every
address must be public, by AntiSSRF's list (`addresses`). Only requests to an address that the operator set are
unguarded. AntiSSRF's session is not used: it looks names up without a deadline, and a silent name server would hold a
thread for half a minute. The caller learns one of three facts: nothing was written, something may have been written, or
there is an answer.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from infra.egress import addresses

# For the name, the connection and TLS together: a message's first byte must leave within 2 s of its claim.
CONNECT_SECONDS = 1.5
READ_SECONDS = 5.0
MAX_ANSWER_BYTES = 1024 * 1024


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
    seconds = seconds or send_seconds()
    exchange = _Exchange(seconds, read_seconds=min(seconds, READ_SECONDS), before_post=before_post)
    return _exchanged(exchange, "POST", url, body=body, headers=headers, is_guarded=is_guarded)


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

    `on_start` gets a function that cancels the request, from any thread. With a connection it ends at once, else when
    the time to connect is over. It then ends as NotConnected or NoAnswer, whichever is true, or with an answer that is
    not whole.
    """
    exchange = _Exchange(seconds, read_seconds=seconds)
    if on_start:
        on_start(exchange.give_up)
    return _exchanged(exchange, method, url, body=body, headers=headers, is_guarded=True)


def _exchanged(
    exchange: _Exchange, method: str, url: str, *, body: bytes | None, headers: Mapping[str, str], is_guarded: bool
) -> Answer:
    if is_guarded and (reason := refusal_of_shape(url)):
        raise Refused(reason)
    found = _look_up(url, seconds=exchange.seconds_to_connect())
    if is_guarded and not addresses.are_allowed(found, rules()):
        raise Refused(addresses.PRIVATE)
    with exchange.running():
        for address in found[:-1]:
            with suppress(NotConnected):
                return _send_to(address, exchange, method, url, body, headers)
        return _send_to(found[-1], exchange, method, url, body, headers)


def _send_to(
    address: str, exchange: _Exchange, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    if (seconds := exchange.seconds_to_connect()) <= 0:
        raise NotConnected("cannot connect in time")
    with _session(address) as session:
        try:
            response = session.request(
                method,
                url,
                data=body,
                headers={"Accept-Encoding": "identity", "User-Agent": "agent-jobs", **headers},
                timeout=(seconds, exchange.read_seconds),
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if exchange.has_connected:
                raise NoAnswer(f"no answer: {type(error).__name__}") from error
            raise NotConnected(f"cannot connect: {type(error).__name__}") from error
        content, is_whole = _read(response)
        return Answer(response.status_code, response.headers, content, is_whole and not exchange.is_cut)


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
    return addresses.Rules(ports=settings.EGRESS_PORTS, allow_private=settings.ALLOW_PRIVATE_ADDRESSES)


def _look_up(url: str, *, seconds: float) -> list[str]:
    """All addresses of the host's name. Raises NotConnected."""
    try:
        return addresses.look_up(addresses.host_of(url), seconds=seconds)
    except addresses.NoAddress as error:
        raise NotConnected(str(error)) from None


# --- One exchange ----------------------------------------------------------------------------------------------
class _Exchange:
    """The state of this thread's request. It cuts the socket when the time to connect, or the whole time, is over.

    That also stops a slow drip of bytes, and a TLS handshake in small pieces.
    """

    current = threading.local()

    def __init__(self, seconds: float, *, read_seconds: float, before_post: Callable[[], None] | None = None) -> None:
        self.has_connected = False
        self.is_cut = False
        self.read_seconds = read_seconds
        self._before_post = before_post
        self._is_given_up = False
        self._ends_at = time.monotonic() + seconds
        self._connected_by = time.monotonic() + min(CONNECT_SECONDS, seconds)
        self._handles: list[socket.socket] = []
        self._timer: threading.Timer | None = None

    def seconds_to_connect(self) -> float:
        return 0.0 if self._is_given_up else self._connected_by - time.monotonic()

    def give_up(self) -> None:
        """Cancel, from any thread. A socket that opens later is cut at once."""
        self._is_given_up = True
        for handle in self._handles:
            self._cut(handle)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.current.exchange = self
        try:
            yield
        finally:
            del self.current.exchange
            self._time_out(None)
            for handle in self._handles:
                handle.close()

    def opened(self, sock: socket.socket) -> None:
        # Keep a duplicate: TLS takes over the socket, and closing that would not wake the thread that waits in it.
        self._handles.append(sock.dup())
        self._time_out(self._connected_by)
        if self._is_given_up:
            self._cut(self._handles[-1])

    def connected(self) -> None:
        if self._is_given_up:
            raise NotConnected("the request was canceled")
        if self._before_post:
            self._before_post()
        self.has_connected = True
        self._time_out(self._ends_at)

    def _time_out(self, at: float | None) -> None:
        if self._timer:
            self._timer.cancel()
        if at is not None:
            self._timer = threading.Timer(max(at - time.monotonic(), 0), self._cut, [self._handles[-1]])
            self._timer.daemon = True
            self._timer.start()

    def _cut(self, handle: socket.socket) -> None:
        self.is_cut = True
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        _Exchange.current.exchange.opened(sock)
        return sock

    def connect(self) -> None:
        super().connect()
        _Exchange.current.exchange.connected()


class _SecureConnection(_Connection, HTTPSConnection):
    """A separate class, because `super()` in the methods above must mean TLS' own class here."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Pinned(HTTPAdapter):
    """Connects to an address that was looked up and judged before, under the request's host name."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        place, options = super().build_connection_pool_key_attributes(request, verify, cert)
        name = place["host"]
        request.headers["Host"] = urlsplit(str(request.url)).netloc
        verified = {}
        if place["scheme"] == "https":
            verified = {"server_hostname": name, "assert_hostname": name}
        place["host"] = self._address
        return place, {**options, **verified}


def _session(address: str) -> requests.Session:
    """A new session per request: threads share nothing, and every request judges its address."""
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(addresses.NoCookies())
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Pinned(address))
    return session


def _read(response: requests.Response) -> tuple[bytes, bool]:
    content = b""
    try:
        for chunk in response.raw.stream(16_384, decode_content=False):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                return content[:MAX_ANSWER_BYTES], False
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return content, False
    finally:
        response.close()
    return content, True
