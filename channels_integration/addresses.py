"""Where requests to other people's servers may go: the shape of an address, what its name leads to, what is public.

Knows no settings and no Django, so that clients which may not know them keep the same rules (`egress`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from AntiSSRF import IPAddressRanges
from urllib3.util import parse_url

PRIVATE = "points into a private network"
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
# Beside the list: IPv4 addresses in the form that IPv6 began with.
_PRIVATE = tuple(ipaddress.ip_network(block) for block in (*IPAddressRanges.recommended_latest, "::/96"))
# Look-ups that nobody answers keep their threads for as long as the system's resolver likes.
_looking_up = threading.BoundedSemaphore(64)


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
    places = _looking_up
    if not places.acquire(blocking=False):
        raise NoAddress("too many names are being looked up")
    found: Future[list[str]] = Future()

    def look() -> None:
        entries: Sequence[Any] = ()
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            pass
        finally:
            places.release()
        if not found.set_running_or_notify_cancel():
            return  # nobody waits any more
        if entries:
            found.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
        else:
            found.set_exception(NoAddress("the name is not known"))

    threading.Thread(target=look, name="look-up", daemon=True).start()
    return found


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return not any(ip in block for block in _PRIVATE if block.version == ip.version)
