"""Where requests to other people's servers may go: the shape of an address, what its name leads to, what is public.
What is alike in both clients, `http` and `egress`, stands here too.

Knows no settings and no Django, so that clients which may not know them keep the same rules (`egress`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

from AntiSSRF import IPAddressRanges
from urllib3.util import parse_url

PRIVATE = "points into a private network"
# The most look-ups under way: of all, and of one organisation. The system's resolver gives up an unanswered one when it
# likes, so whoever has many slow names waits for their own alone.
MOST_LOOK_UPS = 64
MOST_LOOK_UPS_OF_ONE = 8
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
# Beside the list: IPv4 addresses in the form that IPv6 began with.
_PRIVATE = tuple(ipaddress.ip_network(block) for block in (*IPAddressRanges.recommended_latest, "::/96"))
_asker: ContextVar[str] = ContextVar("asker", default="")
_under_way: dict[str, tuple[str, Future[list[str]]]] = {}  # of each host: whose look-up it is, and its outcome
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Rules:
    """`allow_private`: any address, any port, and plain http: in development, and where the operator states it."""

    ports: tuple[int, ...] = (443, 8443)
    allow_private: bool = False


class NoAddress(Exception):
    """A name leads nowhere, or is not looked up in time."""


def refusal_of_shape(url: str, rules: Rules) -> str | None:
    """Why no request may go to this address, as the end of a sentence, by its looks alone; None if it may."""
    if len(url) > 2_000 or _ODD.search(url):
        return "must be an address without spaces or control characters, of at most 2,000 characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        judged = parse_url(url)
    except ValueError:
        return "is not a valid address"
    schemes = ("https", "http") if rules.allow_private else ("https",)
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    # Two readings of one address are how a guard is fooled.
    if not host or (judged.host or "").strip("[]").lower() != host.lower() or "%" in host:
        return "must name a host"
    if "@" in parts.netloc:
        return "must not contain a user name or password"
    if parts.fragment:
        return "must not contain a fragment"
    if port == 0 or (port is not None and port not in rules.ports and not rules.allow_private):
        return f"must use port {' or '.join(str(allowed) for allowed in rules.ports)}"
    return None


def host_of(url: str) -> str:
    return (parse_url(url).host or "").strip("[]")


def is_inside(host: str) -> bool:
    """Whether a host is this machine or not public by its text alone: as an address, in whichever notation, or as
    `localhost`. Nothing is looked up."""
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
    """Look-ups of this thread, and of what it begins in an event loop, are this organisation's."""
    token = _asker.set(org_id)
    try:
        yield
    finally:
        _asker.reset(token)


class NoCookies(DefaultCookiePolicy):
    """Keeps no cookie and sends none: what a server sets would go along with the requests of other organisations."""

    def __init__(self) -> None:
        super().__init__(allowed_domains=())


def are_allowed(addresses: Sequence[str], rules: Rules) -> bool:
    """Whether every one of them is public, or the rules ask for no such thing."""
    return rules.allow_private or all(map(_is_public, addresses))


def look_up(host: str, *, seconds: float) -> list[str]:
    """Every address of a name, once each, in the system's order. Raises NoAddress."""
    try:
        return _begin(host).result(max(seconds, 0))
    except TimeoutError:
        raise NoAddress("the name is not looked up in time") from None


async def look_up_beside(host: str, *, seconds: float) -> list[str]:
    """The same for an event loop, which goes on meanwhile."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(_begin(host)), max(seconds, 0))
    except TimeoutError:
        raise NoAddress("the name is not looked up in time") from None


def _begin(host: str) -> Future[list[str]]:
    """The look-up of this host that is under way, or a new one. Whoever gives up waiting cancels nothing."""
    asker = _asker.get()
    with _lock:
        if host in _under_way:
            return _under_way[host][1]
        own = sum(1 for other, _ in _under_way.values() if other == asker)
        if len(_under_way) >= MOST_LOOK_UPS or (asker and own >= MOST_LOOK_UPS_OF_ONE):
            raise NoAddress("too many names are being looked up")
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
