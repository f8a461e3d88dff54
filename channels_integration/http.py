"""The only client to other people's servers: one request, no retries, no redirects, no proxies, one deadline.

Guarded requests (addresses that an organisation names) go through AntiSSRF: the name is resolved once, every address it
has must be public, and the connection is made to the address that was judged. The caller learns which of three things
happened: nothing was written, something may have been written, or there is an answer.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, IPAddressRanges, PolicyConfigOptions
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

# The time from the claim of a message to its first byte has to stay under 2 s, so this is less than the usual 2 s.
CONNECT_SECONDS = 1.5
READ_SECONDS = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
_PORTS = (443, 8443)
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_PRIVATE = tuple(ipaddress.ip_network(block) for block in IPAddressRanges.recommended_latest)


class HttpError(Exception):
    """
    HttpError
    ├── Refused       the guard does not let this address through
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
    """The longest that one request may take: well within the grace, or a message might be looked up in mid-flight."""
    return min(CONNECT_SECONDS + READ_SECONDS + 0.3, settings.DELIVERY_GRACE_SECONDS / 2)


def post(
    url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    is_guarded: bool,
    before_post: Callable[[], None] | None = None,
) -> Answer:
    """POST once. `before_post` runs when the connection stands, before the first byte; what it raises, comes out.

    Raises HttpError.
    """
    if is_guarded and (reason := refusal_of_shape(url)):
        raise Refused(reason)
    exchange = _Exchange(before_post, send_seconds())
    with _session(is_guarded) as session, exchange.running():
        try:
            response = session.post(
                url,
                data=body,
                headers={"Accept-Encoding": "identity", "User-Agent": "agent-jobs", **headers},
                timeout=(min(CONNECT_SECONDS, send_seconds()), READ_SECONDS),
                allow_redirects=False,
                stream=True,
            )
        except AntiSSRFError as error:
            raise Refused(str(error)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if exchange.has_connected:
                raise NoAnswer(f"no answer: {type(error).__name__}") from error
            raise NotConnected(f"cannot connect: {type(error).__name__}") from error
        content, is_whole = _read(response)
        return Answer(response.status_code, response.headers, content, is_whole)


def refusal(url: str) -> str | None:
    """Why a message may not be sent to this address, as the end of a sentence; None if it may.

    Looks the name up, too; one that does not resolve now may do so later. Looked at again at each attempt.
    """
    if reason := refusal_of_shape(url):
        return reason
    if settings.ALLOW_PRIVATE_ADDRESSES:
        return None
    host = (urlsplit(url).hostname or "").strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    if all(_is_public(str(address[4][0])) for address in found):
        return None
    return "points into a private network"


def refusal_of_shape(url: str) -> str | None:
    if len(url) > 2_000 or _ODD.search(url):
        return "must be an address without spaces or control characters, of at most 2,000 characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        judged = parse_url(url)
    except ValueError:
        return "is not a valid address"
    schemes = ("https", "http") if settings.ALLOW_PRIVATE_ADDRESSES else ("https",)
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    # Two readings of one address are how a guard is fooled.
    if not host or (judged.host or "").strip("[]").lower() != host.lower() or "%" in host:
        return "must name a host"
    if "@" in parts.netloc:
        return "must not contain a user name or password"
    if parts.fragment:
        return "must not contain a fragment"
    if port == 0 or (port is not None and port not in _PORTS and not settings.ALLOW_PRIVATE_ADDRESSES):
        return f"must use port {' or '.join(str(allowed) for allowed in _PORTS)}"
    return None


# --- One exchange ----------------------------------------------------------------------------------------------
class _Exchange:
    """What one request of this thread has come to. Its socket is cut when the time is over, however slowly it drips."""

    current = threading.local()

    def __init__(self, before_post: Callable[[], None] | None, seconds: float) -> None:
        self.has_connected = False
        self._before_post = before_post
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self.current.exchange = self
        try:
            yield
        finally:
            del self.current.exchange
            if self._timer:
                self._timer.cancel()

    def connected(self, sock: socket.socket) -> None:
        if self._before_post:
            self._before_post()
        self.has_connected = True
        self._timer = threading.Timer(self._seconds, _cut, [sock])
        self._timer.daemon = True
        self._timer.start()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not the TLS socket's own method, which takes the session away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _Exchange.current.exchange.connected(self.sock)


class _SecureConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _Exchange.current.exchange.connected(self.sock)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _session(is_guarded: bool) -> requests.Session:
    """A new session for each request: nothing is shared between threads, and an address is judged every time."""
    session: requests.Session = requests.Session()
    if is_guarded:
        session = _policy(bool(settings.ALLOW_PRIVATE_ADDRESSES)).get_antissrf_session()
    session.trust_env = False
    for scheme in ("https://", "http://"):
        adapter = session.get_adapter(scheme)
        assert isinstance(adapter, HTTPAdapter)
        adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return session


@lru_cache(maxsize=2)
def _policy(allows_private: bool) -> Any:
    if allows_private:
        policy = AntiSSRFPolicy(PolicyConfigOptions.NONE)
        policy.allow_plain_text_http = True
        return policy
    return AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)


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


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return not any(ip in block for block in _PRIVATE if block.version == ip.version)
