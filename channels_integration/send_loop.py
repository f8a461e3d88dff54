"""Sends the messages of the outbox: claims one, sends it once, and records what came of it.

A message is claimed (committed), sent once without library retries, and marked. A message that was surely not posted
waits and is tried again. One that was perhaps posted waits longer (settings.DELIVERY_GRACE_SECONDS), and is first
looked up in the platform's history. Exactly-once delivery is impossible. Two gaps remain: a worker that is stopped
between its last look at the clock and the socket, and a platform that applies a post later than the grace.

`send_order` has the statements of claims, `send_results` those of ends.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

from django.conf import settings
from structlog.contextvars import bound_contextvars

from channels_integration import outbox, platforms, send_order, send_results
from channels_integration.messages import (
    Lookup,
    LookupPaused,
    PermanentDeliveryError,
    TemporaryDeliveryError,
    UnknownOutcome,
)
from infra import tracing
from infra.egress import requests_client

log = logging.getLogger(__name__)
# An attempt that has not begun by then is given back: its worker was paused, and a cancel may have come meanwhile.
CLAIM_SECONDS = 0.3
# No byte of a message leaves later than this after its claim: a canceled job is silent within 2 s.
POST_SECONDS = 1.8
_MOST_SECONDS_WAITED = 1.0
_SHORTEST_PAUSE = 0.02
_LOOK_SECONDS = 0.05
# A thread that has sent so many due messages in a row wakes one more thread, which does the same.
_MANY = 2
# One thread per process waits for messages that are due soon. Otherwise all would wake for the same message.
_waiting = threading.Lock()


def deliver_due(*, until: float, stop: threading.Event | None = None) -> int:
    """Send messages that are due, or become due within a second, until `until` (time.monotonic()) or `stop`.

    Returns the number of messages it handled. Safe to run in any number of threads and processes at once.
    """
    handled = in_a_row = 0
    org_id = ""
    pause = stop or threading.Event()
    look_again_at = 0.0
    while (now := time.monotonic()) < until and not pause.is_set():
        # Not before each of many messages: that saves two statements.
        if now >= look_again_at:
            send_order.enter()
            if settle_one():
                handled += 1
                continue
            look_again_at = now + _LOOK_SECONDS
        claim = send_order.claim(
            after_org=org_id, grace_seconds=_grace(), flight_seconds=requests_client.send_seconds()
        )
        if isinstance(claim, send_order.SendClaim):
            org_id = claim.outgoing.target.org_id
            with _told_of(claim), _traced("deliver", claim):
                _attempt(claim)
            handled += 1
            in_a_row += 1
            if in_a_row == _MANY:
                outbox.ring()
            continue
        look_again_at = 0.0
        if isinstance(claim, str):
            org_id = claim
            continue
        seconds = send_order.seconds_until_due()
        left = until - time.monotonic()
        if seconds is None or seconds > min(_MOST_SECONDS_WAITED, left):
            break
        if not _waiting.acquire(blocking=False):
            return handled
        try:
            # If a message is due by now, and none can be claimed, another thread has it.
            pause.wait(min(max(seconds, _SHORTEST_PAUSE), max(left, 0)))
        finally:
            _waiting.release()
        in_a_row = 0
    return handled


def settle_one() -> bool:
    """Look up one message of unknown outcome, if one is due. False if none is."""
    claim = send_results.claim_unsettled(grace_seconds=_grace())
    if claim is None:
        return False
    with _told_of(claim), _traced("look up", claim):
        _look_up(claim)
    return True


def _look_up(claim: send_order.SendClaim) -> None:
    if posted := send_results.receipt_of(claim):
        send_results.sent(claim, posted)
        return
    lookup = Lookup(claim.outgoing, claim.thread, claim.row["first_claimed_at"], claim.row["history_cursor"])
    try:
        receipt = platforms.get(claim.outgoing.target.platform).find(lookup)
    except LookupPaused as error:
        send_results.look_later(claim, error, cursor=error.cursor)
    except TemporaryDeliveryError as error:
        send_results.look_later(claim, error)
    except PermanentDeliveryError as error:
        send_results.given_up_unknown(claim, f"cannot tell whether it was posted: {error}")
    except Exception as error:
        log.exception("could not look up message %s", claim.outgoing.id)
        send_results.look_later(claim, TemporaryDeliveryError(str(error), code="lookup_failed"))
    else:
        if receipt is None:
            send_results.not_posted(claim)
        else:
            send_results.sent(claim, receipt)


def sweep() -> int:
    """The duty: ring the doorbell if a message is due. Returns the number of doorbells."""
    seconds = send_order.seconds_until_due()
    if seconds is None or seconds > 0:
        return 0
    outbox.ring()
    return 1


def _attempt(claim: send_order.SendClaim) -> None:
    if claim.age > CLAIM_SECONDS:
        send_results.given_back(claim)
        return
    has_posted = False

    def before_post() -> None:
        nonlocal has_posted
        if claim.age > POST_SECONDS:
            raise TemporaryDeliveryError("the connection took too long", code="claim_too_old", retry_after=0)
        has_posted = True

    platform = platforms.get(claim.outgoing.target.platform)
    opens_in = 0.0
    try:
        hold = send_results.hold(claim)
        if hold and hold.seconds > 0:
            send_results.held(claim, hold)
            return
        receipt = platform.send(claim.outgoing, thread=claim.thread, before_post=before_post)
    except TemporaryDeliveryError as error:
        opens_in = error.retry_after or 0.0
        send_results.try_later(claim, error)
    except PermanentDeliveryError as error:
        send_results.given_up(claim, error)
    except UnknownOutcome as error:
        send_results.unknown(claim, error)
    except Exception as error:
        log.exception("could not send message %s", claim.outgoing.id)
        if has_posted:
            send_results.unknown(claim, UnknownOutcome(repr(error), code="unexpected_error"))
        else:
            send_results.try_later(claim, TemporaryDeliveryError(repr(error), code="unexpected_error"))
    else:
        send_results.sent(claim, receipt)
    finally:
        if platform.is_paced and has_posted:
            # Counted from the answer, not from the request: the platform counts from some moment between them.
            opens_in = max(opens_in, send_order.PACE_SECONDS)
        send_order.open_after(claim, seconds=opens_in)


def _told_of(claim: send_order.SendClaim) -> AbstractContextManager[Any]:
    """Binds the message's ids to every log line while this process handles it."""
    outgoing = claim.outgoing
    return bound_contextvars(org=outgoing.target.org_id, owner=outgoing.owner_key, message=str(outgoing.id))


def _traced(name: str, claim: send_order.SendClaim) -> AbstractContextManager[Any]:
    outgoing, row = claim.outgoing, claim.row
    return tracing.span(
        name,
        parent=outgoing.trace,
        kind="client",
        **{
            "job.id": outgoing.owner_key,
            "message.id": str(outgoing.id),
            "platform": outgoing.target.platform,
            "attempt": row["failures"] + row["unknown_outcomes"] + 1,
        },
    )


def _grace() -> float:
    return float(settings.DELIVERY_GRACE_SECONDS)
