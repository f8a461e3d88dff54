"""Rate limits: answers 429 with Retry-After, and states the limits in the headers of every response.

A token and its organisation each have a limit. Requests without a valid token count against their address, and an
address that fails too often is barred. Valid tokens still work from a barred address, so that a stranger behind the
same proxy does not lock a customer out. To recognise them, the process looks up well-formed tokens that it does not
know: at most _LOOK_UPS_A_SECOND for each barred address, and a refused token never again. Each web process learns by
itself which addresses are barred, at their first failure in it. A valid request therefore costs one round trip to
Redis, not two. Platform events without a valid signature count against their address as well. `login_limits` has the
limits of password log-ins.

The headers are those of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy: "token";q=6000;w=60` and
`RateLimit: "token";r=5999;t=60`, with one item for each limit.
"""

import hashlib
import ipaddress
import math
import secrets
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from agent_jobs.tenants import app_tokens, rate_limits
from agent_jobs.tenants.rate_limits import Limit, LimitState
from infra.bounded_cache import BoundedCache

_MOST_REMEMBERED = 10_000
_LOOK_UPS_A_SECOND = 10
_WORDS = {
    "token": "with this token",
    "org": "of this organization",
    "address": "without a valid token from this address",
    "login": "to log in from this address",
    "signature": "without a valid signature from this address",
}


class TooManyRequests(APIException):
    status_code = 429
    default_code = "throttled"

    def __init__(self, name: str, *, wait: float) -> None:
        super().__init__(f"too many requests {_WORDS[name]}; try again in {math.ceil(wait) or 1} s")
        self.wait = max(0.0, math.ceil(wait) - 1)  # `errors` adds one second


class ByToken(BaseThrottle):
    """Counts requests against the token and its organisation. Raises TooManyRequests."""

    def allow_request(self, request: Request, view: Any) -> bool:
        token: Any = request.auth
        if token is None:  # becomes a 401, which `failed` has counted
            return True
        own = token.org.requests_per_minute
        take(
            request,
            Limit("token", token.public_id, settings.RATE_TOKEN),
            Limit("org", token.org_id, f"{own}/minute" if own else settings.RATE_ORG),
        )
        return True


class ByPerson(BaseThrottle):
    """Counts requests of a signed-in person (`request.auth.user_pk`). Raises TooManyRequests."""

    def allow_request(self, request: Request, view: Any) -> bool:
        login: Any = request.auth
        if login is not None:
            take(request, Limit("token", f"user:{login.user_pk}", settings.RATE_TOKEN))
        return True


class ByAddress(BaseThrottle):
    """Counts requests against their address: for costly pages that need no token. Raises TooManyRequests."""

    def allow_request(self, request: Request, view: Any) -> bool:
        take(request, _of_address(address_of(request.META)))
        return True


def check_address(request: Request, plain_token: str) -> None:
    """Call this before looking up a token. Raises TooManyRequests if the address is barred, unless this process knows
    that the token is valid or may still look it up."""
    address = address_of(request.META)
    until = _barred.get(address)
    if until is None or (wait := until - time.monotonic()) <= 0 or not rate_limits.is_on(settings.RATE_ADDRESS):
        return
    mark = _mark(plain_token)
    if _valid.get(mark):
        return
    if _refused.get(mark) or not app_tokens.is_well_formed(plain_token):
        raise TooManyRequests("address", wait=wait)
    if not _may_look_up(address):
        raise TooManyRequests("address", wait=1)


def failed(request: Request, plain_token: str = "") -> None:
    """Count missing or invalid credentials. Raises TooManyRequests if the address has failed too often."""
    mark = _mark(plain_token)
    _valid.drop(mark)
    _refused.put(mark, True)
    address = address_of(request.META)
    try:
        take(request, _of_address(address))
    except TooManyRequests as refusal:
        _barred.put(address, time.monotonic() + refusal.wait + 1)
        raise


def forged(request: HttpRequest) -> tuple[str, int]:
    """Count a platform event with an invalid signature.

    Returns the refusal's text and the seconds to wait if there were too many; else ("", 0). These events have a limit
    of their own, so that forged ones from a proxy do not lock out tokens behind it. Only forged events count, after the
    signature check, because genuine events of a platform come from the same addresses as forged ones sent through it.
    """
    try:
        take(request, Limit("signature", address_of(request.META), settings.RATE_ADDRESS))
    except TooManyRequests as refusal:
        return str(refusal.detail), int(refusal.wait) + 1
    return "", 0


def succeeded(plain_token: str) -> None:
    mark = _mark(plain_token)
    _refused.drop(mark)
    _valid.put(mark, True)


def take(request: HttpRequest | Request, *limits: Limit) -> None:
    """Count the request against these limits, and keep their states for `add_headers`. Raises TooManyRequests."""
    states = rate_limits.take(*limits)
    asked: Any = getattr(request, "_request", request)
    asked.rate_standings = states
    for state in states:
        if state.is_refused:
            raise TooManyRequests(state.name, wait=state.wait_seconds)


def add_headers(request: HttpRequest | Request, response: HttpResponseBase) -> None:
    states: Iterable[LimitState] = getattr(getattr(request, "_request", request), "rate_standings", ())
    if states:
        response["RateLimit-Policy"] = ", ".join(f'"{at.name}";q={at.quota};w={at.window_seconds}' for at in states)
        response["RateLimit"] = ", ".join(
            f'"{at.name}";r={at.remaining};t={math.ceil(at.wait_seconds or at.reset_seconds)}' for at in states
        )


def address_of(meta: Mapping[str, Any]) -> str:
    """The client's address: IPv4, or an IPv6 /64, because one subscriber has a whole /64.

    X-Forwarded-For counts only if the peer is one of settings.TRUSTED_PROXIES. It is read from the right, up to the
    first address that is not a proxy: the client may have written everything left of that itself.
    """
    nearest = _read(meta.get("REMOTE_ADDR"))
    if nearest is None:
        return ""
    for text in reversed(str(meta.get("HTTP_X_FORWARDED_FOR") or "").split(",")):
        if not _is_proxy(nearest):
            break
        found = _read(text)
        if found is None:
            break
        nearest = found
    if isinstance(nearest, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((nearest, 64), strict=False))
    return str(nearest)


def is_proxy(address: str) -> bool:
    """Whether this peer is one of settings.TRUSTED_PROXIES."""
    found = _read(address)
    return found is not None and _is_proxy(found)


# --- Private helpers -------------------------------------------------------------------------------------------
def _may_look_up(address: str) -> bool:
    second = int(time.monotonic())
    last, count = _looked_up.get(address) or (second, 0)
    count = count if last == second else 0
    if count >= _LOOK_UPS_A_SECOND:
        return False
    _looked_up.put(address, (second, count + 1))
    return True


def _of_address(address: str) -> Limit:
    return Limit("address", address, settings.RATE_ADDRESS)


def _read(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(str(text).strip().partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_proxy(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in _proxies(tuple(settings.TRUSTED_PROXIES)))


@lru_cache(maxsize=8)
def _proxies(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_PROCESS_KEY = secrets.token_bytes(16)


def _mark(plain_token: str) -> bytes:
    """A keyed hash that stands for a token, so that this process keeps no plain token in memory."""
    return hashlib.blake2b(plain_token.encode(), digest_size=16, key=_PROCESS_KEY).digest()


# By address: the end of its bar, and the tokens looked up for it in this second. By token: known valid, known refused.
_barred: BoundedCache[float] = BoundedCache(_MOST_REMEMBERED)
_looked_up: BoundedCache[tuple[int, int]] = BoundedCache(_MOST_REMEMBERED)
_valid: BoundedCache[bool] = BoundedCache(_MOST_REMEMBERED)
_refused: BoundedCache[bool] = BoundedCache(_MOST_REMEMBERED)
