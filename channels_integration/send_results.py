"""Writes the result of an attempt. Every write names its claim; under another claim it changes nothing.

An end (sent, dead) is one transaction. The owner notes it first, because that locks the owner's row. Then we write the
message's row. If the owner fails, the end is undone. The message is settled again later: with the receipt
that we have already, or by an attempt that is safe to repeat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from uuid_utils.compat import uuid7

from channels_integration import inbound, message_owner, platforms, send_order
from channels_integration.messages import (
    Delivery,
    DeliveryError,
    Hold,
    Receipt,
    TemporaryDeliveryError,
    UnknownOutcome,
)
from infra import meters, prepared_sql, raw_sql
from infra.storable_text import storable

log = logging.getLogger(__name__)
# 1, 2, 4, … 60 s between them: about four minutes in all.
MOST_FAILURES = 10
MOST_UNKNOWN_OUTCOMES = 3
HELD = "held"
DELIVERY_UNKNOWN = "delivery_unknown"
_WITHDRAWN = ("withdrawn", "it was withdrawn while it was being sent")
_WITHDRAWN_UNKNOWN = (DELIVERY_UNKNOWN, "it was withdrawn during the send, and may have been received")
_NOTE_UNKNOWN = """
UPDATE channels_integration_outboundmessage SET error_code = %(code)s, error_message = %(said)s
WHERE id = %(id)s AND status = 'withdrawn'
"""
# A platform that says "later" for longer than this has refused.
GIVE_UP_AFTER = timedelta(hours=24)
_LONGEST_BACKOFF_SECONDS = 60.0
_LONGEST_RETRY_AFTER_SECONDS = 3600.0
# The platforms' error codes for too many requests.
_TOO_MANY = ("ratelimited", "http_429")
# A reply cannot be older than what it answers, but clocks differ.
_CLOCK_SLACK = timedelta(seconds=5)

# A message in flight when its worker died is treated like one whose send timed out.
_CLAIM_UNSETTLED = f"""
WITH due AS (
    SELECT id, status AS status_before FROM channels_integration_outboundmessage
    WHERE status IN ('sending', 'unknown') AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE channels_integration_outboundmessage m SET
    status = 'unknown', claim_token = %(token)s,
    unknown_outcomes = m.unknown_outcomes + (status_before = 'sending')::int,
    failures = CASE status_before WHEN 'sending' THEN 0 ELSE m.failures END,
    due_at = clock_timestamp() + make_interval(secs => %(grace)s)
FROM due WHERE m.id = due.id
RETURNING {send_order.CLAIM_COLUMNS}
"""  # noqa: S608


class _Overtaken(Exception):
    pass


def claim_unsettled(*, grace_seconds: float) -> send_order.SendClaim | None:
    """Claim one message of unknown outcome whose grace is over, to look it up."""
    token, taken_at = uuid7(), time.monotonic()
    row = prepared_sql.first_by_name(_CLAIM_UNSETTLED, {"token": token, "grace": grace_seconds})
    return None if row is None else send_order.claim_of(row, token=token, taken_at=taken_at)


def receipt_of(claim: send_order.SendClaim) -> Receipt | None:
    """The receipt of a message that was posted, but that its owner has not recorded yet."""
    posted_as = claim.row["platform_message_id"]
    return Receipt(posted_as, claim.row["thread"]) if posted_as else None


# --- Ends ------------------------------------------------------------------------------------------------------
def sent(claim: send_order.SendClaim, receipt: Receipt) -> None:
    target = claim.outgoing.target
    known = {"platform_message_id": receipt.platform_message_id, "thread": receipt.thread}

    def after_mark() -> None:
        inbound.retry_unmatched(
            target.org_id,
            target.platform,
            target.code,
            receipt.thread,
            since=claim.row["claimed_at"] - _CLOCK_SLACK,
            is_opened=receipt.thread != claim.thread,
        )

    delivery = Delivery(claim.outgoing.id, claim.outgoing.owner_key, _at(claim), receipt=receipt)
    mark = {"status": "sent", "sent_at": delivery.at, "error_code": "", "error_message": "", **known}
    if not _end(claim, delivery, mark, after_mark):
        # Keep the receipt, so that the next try needs no look into the history.
        _put_off(claim, status="unknown", **known)


def given_up(claim: send_order.SendClaim, error: DeliveryError) -> None:
    """Record that the message was surely not posted and never will be: a dead letter."""
    if not _give_up(claim, error.code, str(error)):
        _put_off(claim, status="pending")


def given_up_unknown(claim: send_order.SendClaim, message: str) -> None:
    """Record that the message may have been posted, and will not be sent again."""
    if not _give_up(claim, DELIVERY_UNKNOWN, message):
        _put_off(claim, status="unknown")


# --- Not the end -----------------------------------------------------------------------------------------------
def given_back(claim: send_order.SendClaim) -> None:
    """Put the message back as it was: the attempt did not begin."""
    _wait(claim, {"status": "pending"}, in_seconds=0)


def hold(claim: send_order.SendClaim) -> Hold | None:
    """Ask the quiet hours of the message's owner. A message without an owner is never held."""
    if not claim.outgoing.owner_key:
        return None
    return message_owner.get().hold(claim.outgoing, claim.row["created_at"])


def held(claim: send_order.SendClaim, hold: Hold) -> None:
    """Delay a message, and the later ones of its thread, until its owner's quiet hours end. Nothing was sent.

    If the later ones stayed in the lane, workers would poll it all night for messages that wait behind this one.
    """
    fields: dict[str, Any] = {"status": "pending", "error_code": HELD, "error_message": "waits for hours to open"}
    if not claim.row["unknown_outcomes"]:
        fields["first_claimed_at"] = None
    _count(claim, "put_off", HELD)
    _wait(claim, fields, in_seconds=hold.seconds)
    if claim.outgoing.thread_key:
        raw_sql.run(
            """UPDATE channels_integration_outboundmessage SET is_in_lane = false, error_code = %(code)s,
                due_at = clock_timestamp() + make_interval(secs => %(seconds)s)
            WHERE thread_key = %(thread)s AND org_id = %(org)s AND status = 'pending' AND id <> %(id)s""",
            {
                "code": HELD,
                "seconds": hold.seconds,
                "thread": claim.outgoing.thread_key,
                "org": claim.outgoing.target.org_id,
                "id": claim.outgoing.id,
            },
        )


def try_later(claim: send_order.SendClaim, error: TemporaryDeliveryError) -> None:
    failures = claim.row["failures"]
    _count_429(claim, error)
    if error.retry_after is None:
        failures += 1
    if failures >= MOST_FAILURES or _is_old(claim):
        given_up(claim, error)
        return
    fields: dict[str, Any] = {"status": "pending", "failures": failures, **_said(error)}
    if error.is_doubtful:
        fields["unknown_outcomes"] = max(claim.row["unknown_outcomes"], 1)
    elif not claim.row["unknown_outcomes"]:
        fields["first_claimed_at"] = None
    _count(claim, "put_off", error.code)
    _wait(claim, fields, in_seconds=_wait_seconds(error, failures))


def unknown(claim: send_order.SendClaim, error: UnknownOutcome) -> None:
    """Record that the message may have been posted: it is looked up when the grace since the claim is over."""
    outcomes = claim.row["unknown_outcomes"] + 1
    _count(claim, "unknown", error.code)
    fields = {"status": "unknown", "unknown_outcomes": outcomes, "failures": 0, "history_cursor": "", **_said(error)}
    _write(claim, fields, in_seconds=max(0.0, settings.DELIVERY_GRACE_SECONDS - claim.age))


def not_posted(claim: send_order.SendClaim) -> None:
    """The history does not contain the message: it may be sent again, a limited number of times."""
    if claim.row["unknown_outcomes"] >= MOST_UNKNOWN_OUTCOMES:
        given_up_unknown(claim, f"{MOST_UNKNOWN_OUTCOMES} attempts ended without an answer")
        return
    _wait(claim, {"status": "pending", "failures": 0, "history_cursor": ""}, in_seconds=0)


def look_later(claim: send_order.SendClaim, error: TemporaryDeliveryError, *, cursor: str = "") -> None:
    failures = claim.row["failures"]
    _count_429(claim, error)
    if error.retry_after is None:
        failures += 1
    if failures >= MOST_FAILURES:
        given_up_unknown(claim, f"cannot tell whether it was posted: {error}")
        return
    fields = {"status": "unknown", "failures": failures, "history_cursor": cursor, **_said(error)}
    _write(claim, fields, in_seconds=_wait_seconds(error, failures))


def _is_old(claim: send_order.SendClaim) -> bool:
    """Whether the message is too old to be tried again. Time in quiet hours does not count."""
    age: timedelta = _at(claim) - claim.row["created_at"]
    if age <= GIVE_UP_AFTER:
        return False
    hours = hold(claim)
    return age - timedelta(seconds=hours.closed_seconds if hours else 0) > GIVE_UP_AFTER


# --- Writing ---------------------------------------------------------------------------------------------------
def _give_up(claim: send_order.SendClaim, code: str, message: str) -> bool:
    said = _text(message)
    at = _at(claim)
    delivery = Delivery(claim.outgoing.id, claim.outgoing.owner_key, at, error_code=code, error_message=said)
    return _end(claim, delivery, {"status": "dead", "error_code": code or "unknown", "error_message": said})


def _end(
    claim: send_order.SendClaim, delivery: Delivery, mark: dict[str, Any], after_mark: Callable[[], None] | None = None
) -> bool:
    """End the message. False, and nothing is written, if its owner failed to note the end."""
    try:
        with transaction.atomic():
            if delivery.owner_key:
                message_owner.get().settle_delivery(delivery)
            if not _write(claim, mark):
                raise _Overtaken
            if after_mark:
                after_mark()
        _count(claim, mark["status"], delivery.error_code)
    except _Overtaken:
        log.info("message %s was already settled or withdrawn", claim.outgoing.id)
    except Exception:
        log.exception(
            "message %s has ended, but its end could not be written: it will be tried again", claim.outgoing.id
        )
        return False
    return True


def _put_off(claim: send_order.SendClaim, **fields: Any) -> None:
    failures = min(claim.row["failures"] + 1, 1_000)
    _write(claim, {**fields, "failures": failures}, in_seconds=_backoff_seconds(failures))


def _wait(claim: send_order.SendClaim, fields: dict[str, Any], *, in_seconds: float) -> None:
    """Makes the message pending again; if its owner has withdrawn it meanwhile, end it."""
    if _write(claim, fields, in_seconds=in_seconds) == "withdrawn":
        _withdrawn(claim, is_doubtful=bool(fields.get("unknown_outcomes", claim.row["unknown_outcomes"])))


def _withdrawn(claim: send_order.SendClaim, *, is_doubtful: bool) -> None:
    """End a withdrawn message. If `is_doubtful`, it may have been received, and some platforms cannot look that up."""
    can_tell = platforms.get(claim.outgoing.target.platform).can_look_up or not is_doubtful
    code, said = _WITHDRAWN if can_tell else _WITHDRAWN_UNKNOWN
    _count(claim, "withdrawn", "" if can_tell else code)
    if not can_tell:
        prepared_sql.run(_NOTE_UNKNOWN, {"id": claim.outgoing.id, "code": code, "said": said})
    # After the write, so that the message row's lock is free again when this locks the owner's row.
    try:
        with transaction.atomic():
            message_owner.get().settle_delivery(
                Delivery(
                    claim.outgoing.id,
                    claim.outgoing.owner_key,
                    _at(claim),
                    error_code=code,
                    error_message=said,
                )
            )
    except Exception:
        log.exception("message %s was withdrawn, but its owner could not note it", claim.outgoing.id)


def _write(claim: send_order.SendClaim, fields: dict[str, Any], *, in_seconds: float | None = None) -> str:
    """One guarded UPDATE. Returns the message's new status, '' if the claim is no longer ours."""
    others = "".join(f", {name} = %({name})s" for name in fields if name != "status")
    due = ", due_at = clock_timestamp() + make_interval(secs => %(in_seconds)s)" if in_seconds is not None else ""
    written = prepared_sql.first(
        f"""UPDATE channels_integration_outboundmessage SET
            status = CASE WHEN is_recalled AND %(status)s = 'pending' THEN 'withdrawn' ELSE %(status)s END,
            is_in_lane = false{others}{due}
        WHERE id = %(id)s AND claim_token = %(token)s AND status = %(held_as)s
        RETURNING status""",  # noqa: S608
        {
            **fields,
            "in_seconds": in_seconds,
            "id": claim.outgoing.id,
            "token": claim.token,
            "held_as": claim.row["status"],
        },
    )
    return str(written[0]) if written else ""


def _count(claim: send_order.SendClaim, outcome: str, code: str) -> None:
    meters.add("deliveries", platform=_label(claim), outcome=outcome, code=code)


def _label(claim: send_order.SendClaim) -> str:
    """The platform for metrics. Bridges count as webhooks, because tenants choose their names."""
    return platforms.get(claim.outgoing.target.platform).name


def _count_429(claim: send_order.SendClaim, error: TemporaryDeliveryError) -> None:
    if error.code in _TOO_MANY:
        meters.add("platform_429s", platform=_label(claim))


def _at(claim: send_order.SendClaim) -> datetime:
    """Now, by the database's clock."""
    taken: datetime = claim.row["taken_on"]
    return taken + timedelta(seconds=claim.age)


def _wait_seconds(error: TemporaryDeliveryError, failures: int) -> float:
    if error.retry_after is None:
        return _backoff_seconds(failures)
    return min(max(error.retry_after, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


def _backoff_seconds(failures: int) -> float:
    return float(min(2 ** min(max(failures - 1, 0), 10), _LONGEST_BACKOFF_SECONDS))


def _said(error: DeliveryError) -> dict[str, str]:
    return {"error_code": error.code, "error_message": _text(str(error))}


def _text(message: str) -> str:
    """Makes text from outside storable."""
    return str(storable(message))[:500]
