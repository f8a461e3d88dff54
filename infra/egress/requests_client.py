"""One blocking request to another's server, under the rules of the settings. `exchanges` sends it.

Only requests to an address that the operator set are unguarded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.conf import settings

from infra.egress import addresses, exchanges
from infra.egress.exchanges import MAX_ANSWER_BYTES, Answer, HttpError, NoAnswer, NotConnected, Refused, SlowAnswer

__all__ = [
    "MAX_ANSWER_BYTES",
    "Answer",
    "HttpError",
    "NoAnswer",
    "NotConnected",
    "Refused",
    "SlowAnswer",
    "post",
    "refusal",
    "refusal_of_shape",
    "request",
    "rules",
    "send_seconds",
]
# For the name, the connection and TLS together: a message's first byte must leave within 2 s of its claim.
CONNECT_SECONDS = 1.5
READ_SECONDS = 5.0


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
    return exchanges.make(
        "POST",
        url,
        body=body,
        headers=headers,
        seconds=seconds or send_seconds(),
        connect_seconds=CONNECT_SECONDS,
        read_seconds=READ_SECONDS,
        rules=rules() if is_guarded else None,
        before_post=before_post,
    )


def request(
    method: str,
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    seconds: float,
    on_start: Callable[[Callable[[], None]], object] | None = None,
) -> Answer:
    """One guarded request that may take `seconds` in all; `on_start` as in `exchanges.make`. Raises HttpError."""
    return exchanges.make(
        method,
        url,
        body=body,
        headers=headers,
        seconds=seconds,
        connect_seconds=CONNECT_SECONDS,
        rules=rules(),
        on_start=on_start,
    )


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
