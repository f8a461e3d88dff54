"""Decides where requests to other people's servers may go: the form of an address, the lookup of its name, and which
addresses are public. Both clients, `requests_client` and `async_client`, use it.

Knows no settings and no Django, so that clients without them can apply the same rules.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpx2
from AntiSSRF import IPAddressRanges

PRIVATE = "points into a private network"
# Limits of concurrent look-ups: of all, and of one organisation. The system's resolver times out when it likes, so an
# organisation with many slow names must delay only itself.
MOST_LOOK_UPS = 64
MOST_LOOK_UPS_OF_ONE = 8
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
# Beside the list: IPv4-compatible IPv6 addresses, an old form.
_PRIVATE = tuple(ipaddress.ip_network(block) for block in (*IPAddressRanges.recommended_latest, "::/96"))
_asker: ContextVar[str] = ContextVar("asker", default="")
_under_way: dict[str, tuple[str, Future[list[str]]]] = {}  # by host: the asking organisation, and the result
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Rules:
    """`allow_private` permits any address, any port and plain http: in development, or where the operator says so."""

    ports: tuple[int, ...] = (443, 8443)
    allow_private: bool = False


class NoAddress(Exception):
    """A name has no address, or its look-up timed out."""


def refusal_of_shape(url: str, rules: Rules) -> str | None:
    """Why no request may go to this address, as the end of a sentence, judged by its text alone; None if it may."""
    if len(url) > 2_000 or _ODD.search(url):
        return "must be an address without spaces or control characters, of at most 2,000 characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        judged = httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        return "is not a valid address"
    schemes = ("https", "http") if rules.allow_private else ("https",)
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    # Two parsers that read one address differently are how attackers get past a guard.
    if not host or judged.host.lower() != host.lower() or "%" in host:
        return "must name a host"
    if "@" in parts.netloc:
        return "must not contain a user name or password"
    if parts.fragment:
        return "must not contain a fragment"
    if port == 0 or (port is not None and port not in rules.ports and not rules.allow_private):
        return f"must use port {' or '.join(str(allowed) for allowed in rules.ports)}"
    return None


def host_of(url: str) -> str:
    """The host that the clients would connect to."""
    return httpx2.URL(url).host


def is_inside(host: str) -> bool:
    """Whether a host is `localhost`, or this machine's or a private address in any notation, by its text alone.

    Looks nothing up.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not _is_public(name)
    except ValueError:
        pass
    try:
        return not _is_public(socket.inet_ntoa(socket.inet_aton(name)))  # as 2130706433, 0x7f.1 and 017700000001
    except OSError:
        return False


@contextmanager
def asking_for(org_id: str) -> Iterator[None]:
    """Count DNS look-ups within the block (of this thread, or of its coroutines in an event loop) for this
    organisation.
    """
    token = _asker.set(org_id)
    try:
        yield
    finally:
        _asker.reset(token)


class NoCookies(DefaultCookiePolicy):
    """Stores no cookie and sends none: a cookie would go along with the requests of other organisations."""

    def __init__(self) -> None:
        super().__init__(allowed_domains=())


def are_allowed(addresses: Sequence[str], rules: Rules) -> bool:
    """Whether all addresses are public, or the rules allow private ones."""
    return rules.allow_private or all(map(_is_public, addresses))


async def look_up(host: str, *, seconds: float) -> list[str]:
    """All addresses of a name, each once, in the system's order. An address stands for itself. Raises NoAddress."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    try:
        return await asyncio.wait_for(asyncio.wrap_future(_begin(host)), max(seconds, 0))
    except TimeoutError:
        raise NoAddress("the DNS look-up took too long") from None


def _begin(host: str) -> Future[list[str]]:
    """The running look-up of this host, or a new one. A caller that stops waiting cancels nothing."""
    asker = _asker.get()
    with _lock:
        if host in _under_way:
            return _under_way[host][1]
        own = sum(1 for other, _ in _under_way.values() if other == asker)
        if len(_under_way) >= MOST_LOOK_UPS or (asker and own >= MOST_LOOK_UPS_OF_ONE):
            raise NoAddress("too many DNS look-ups are under way")
        found: Future[list[str]] = Future()
        found.set_running_or_notify_cancel()
        threading.Thread(target=_look, args=[host, found], name="look-up", daemon=True).start()
        _under_way[host] = asker, found
    return found


def _look(host: str, found: Future[list[str]]) -> None:
    entries: Sequence[Any] = ()
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        pass
    finally:
        with _lock:
            _under_way.pop(host, None)
    if entries:
        found.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
    else:
        found.set_exception(NoAddress("the name is not known"))


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return not any(ip in block for block in _PRIVATE if block.version == ip.version)
