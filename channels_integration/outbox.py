"""Writes outgoing messages in the transaction of the state that causes them, and sends them by a loop.

A message is claimed (committed), sent once without library retries, and marked. A message that was surely not posted
waits and is tried again. One that was perhaps posted waits longer, and is first looked up in the platform's history.
Exactly-once delivery is impossible. Two gaps remain: a worker that is stopped between its last look at the clock and
the socket, and a platform that applies a post later than the grace.

Lock order everywhere: the owner's row first, then the message's. `send_order` has the statements of claims,
`send_results` those of ends.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from structlog.contextvars import bound_contextvars
from uuid_utils.compat import uuid7

from channels_integration import platforms, send_order, send_results
from channels_integration.messages import (
    Change,
    Lookup,
    LookupPaused,
    Outgoing,
    PermanentDeliveryError,
    Target,
    TemporaryDeliveryError,
    UnknownOutcome,
)
from channels_integration.models import OutboundMessage
from infra import doorbell, tracing
from infra.egress import requests_client

log = logging.getLogger(__name__)
QUEUE = "deliveries"
TASK = "channels.deliver"
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

# The body of a statement (or of a data-modifying CTE) that reads `outgoing_rows (record json)`, made by `as_record`.
# Messages of one thread get their positions in the order in which that CTE yields them.
INSERT_FROM_JSON = """
    INSERT INTO channels_integration_outboundmessage
        (id, org_id, platform, code, type, details, text, owner_key, thread_key, lane, status, sent_at,
        trace, buttons, change, mentions)
    SELECT o.id, o.org_id, o.platform, o.code, o.type, o.details, o.text, o.owner_key, o.thread_key, o.lane, o.status,
        CASE WHEN o.status = 'sent' THEN now() END, coalesce(o.trace, ''), coalesce(o.buttons, '[]'),
        o.change, coalesce(o.mentions, '[]')
    FROM outgoing_rows, json_to_record(outgoing_rows.record) AS o(
        id uuid, org_id text, platform text, code text, type text, details json, text text, owner_key text,
        thread_key text, lane text, status text, trace text, buttons jsonb, change jsonb, mentions jsonb)
    ON CONFLICT (id) DO NOTHING
"""
_ENQUEUE = f"""
WITH outgoing_rows AS (
    SELECT record FROM json_array_elements(%s::json) WITH ORDINALITY AS r(record, place) ORDER BY place
) {INSERT_FROM_JSON}"""  # noqa: S608

_RECALL = """
UPDATE channels_integration_outboundmessage SET
    status = CASE WHEN status = 'sending' OR platform_message_id <> '' THEN status
        WHEN status = 'unknown' OR unknown_outcomes > 0 THEN 'unknown' ELSE 'withdrawn' END,
    is_in_lane = false, is_recalled = true
"""
_WITHDRAW_ALL = f"""{_RECALL}
WHERE org_id = %s AND status IN ('pending', 'sending', 'unknown') AND NOT is_recalled
"""
_WITHDRAW = f"""{_RECALL}
WHERE owner_key = ANY(%s) AND org_id = %s AND status IN ('pending', 'sending', 'unknown')
RETURNING id, status
"""


# --- Writing ---------------------------------------------------------------------------------------------------
def as_record(outgoing: Outgoing) -> dict[str, Any]:
    """The JSON of one row for INSERT_FROM_JSON. `status` is 'sent' where writing the row is the delivery."""
    target, is_sent = outgoing.target, is_sent_on_commit(outgoing)
    return {
        "id": str(outgoing.id),
        "org_id": target.org_id,
        "platform": target.platform,
        "code": target.code,
        "type": target.type,
        "details": dict(target.data),
        "text": outgoing.text,
        "owner_key": outgoing.owner_key,
        "thread_key": outgoing.thread_key,
        "trace": outgoing.trace,
        "buttons": [[button.label, button.value] for button in outgoing.buttons],
        **({"change": _as_json(outgoing.change)} if outgoing.change else {}),
        **({"mentions": list(outgoing.mentions)} if outgoing.mentions else {}),
        # One lane per organisation, even if two share a Slack channel: a stranger must not be able to slow ours.
        "lane": "/".join(quote(part, safe="") for part in (target.org_id, target.platform, target.code)),
        "status": OutboundMessage.Status.SENT if is_sent else OutboundMessage.Status.PENDING,
    }


def is_sent_on_commit(outgoing: Outgoing) -> bool:
    """Whether the message counts as sent once its row is committed."""
    return platforms.get(outgoing.target.platform).accepts_on_commit


def _as_json(change: Change) -> dict[str, str]:
    return {"of": str(change.of), "line": change.line, "person": change.person}


def enqueue(outgoing: Sequence[Outgoing]) -> None:
    """Store messages, in this order, and ring on commit. An id that exists already is left as it is."""
    records = [as_record(message) for message in outgoing]
    if not records:
        return
    with connection.cursor() as cursor:
        cursor.execute(_ENQUEUE, [json.dumps(records)])
    if any(record["status"] == OutboundMessage.Status.PENDING for record in records):
        transaction.on_commit(ring, robust=True)


def change(org_id: str, message_id: UUID, *, line: str, person: str = "") -> bool:
    """Take the buttons off a message of ours and put `line` below it. False where the message or platform allows none.

    Sent after that message, outside its thread's order and without an owner: it may be lost, and nothing waits for it.
    """
    message = OutboundMessage.objects.filter(org_id=org_id, pk=message_id).first()
    if message is None or message.status in (OutboundMessage.Status.WITHDRAWN, OutboundMessage.Status.DEAD):
        return False
    if not platforms.get(message.platform).can_change:
        return False
    target = Target(org_id, message.platform, message.code, message.type, message.details)
    enqueue([Outgoing(uuid7(), target, message.text, "", "", message.trace, change=Change(message_id, line, person))])
    return True


def ring() -> None:
    doorbell.ring(QUEUE, TASK)


def withdraw(org_id: str, *owner_keys: str) -> list[UUID]:
    """Withdraw the messages that these owners have not sent yet. Returns their ids.

    Call it with the owners' rows locked. A message in flight is out within POST_SECONDS or never: there is no further
    attempt (its owner is then told `withdrawn`). A message that may have been posted is still looked up. Its owner
    then gets sent, `withdrawn`, or `delivery_unknown` if the platform cannot tell.
    """
    with connection.cursor() as cursor:
        cursor.execute(_WITHDRAW, [list(owner_keys), org_id])
        return [row[0] for row in cursor.fetchall() if row[1] == OutboundMessage.Status.WITHDRAWN]


def withdraw_all(org_id: str) -> int:
    """As `withdraw`, for all unsent messages of an organisation. Returns their number."""
    with connection.cursor() as cursor:
        cursor.execute(_WITHDRAW_ALL, [org_id])
        return int(cursor.rowcount)


def look_again(org_id: str) -> int:
    """Make the messages due that quiet hours hold; closed hours hold them again. Returns the number of messages."""
    held = OutboundMessage.objects.filter(org_id=org_id, status=OutboundMessage.Status.PENDING, is_in_lane=False)
    count = held.filter(error_code=send_results.HELD).update(due_at=Now())
    if count:
        transaction.on_commit(ring, robust=True)
    return count


def forget_thread(org_id: str, thread_key: str) -> int:
    """The thread is gone: the next message with this key opens a new one. Returns the number of messages changed."""
    opened = OutboundMessage.objects.filter(org_id=org_id, thread_key=thread_key, status=OutboundMessage.Status.SENT)
    return opened.exclude(thread="").update(thread="")


def failure_of(message_id: UUID) -> tuple[str, str]:
    """Why a message was given up: its code and a sentence."""
    found = OutboundMessage.objects.filter(pk=message_id).values_list("error_code", "error_message").first()
    return found or ("unknown", "the message does not exist any more")


def undelivered(org_id: str, owner_key: str, *, most: int = 1_000) -> list[OutboundMessage]:
    """An owner's messages that are neither sent nor given up, in order, with those withdrawn during a send."""
    return list(_undelivered(org_id, owner_key).order_by("position")[:most])


def _undelivered(org_id: str, owner_key: str) -> QuerySet[OutboundMessage]:
    return OutboundMessage.objects.filter(org_id=org_id, owner_key=owner_key, status__in=OutboundMessage.UNDELIVERED)


# --- Sending ---------------------------------------------------------------------------------------------------
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
                ring()
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
    """Ring if a message is due. Returns the number of doorbells."""
    seconds = send_order.seconds_until_due()
    if seconds is None or seconds > 0:
        return 0
    ring()
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
