"""Writes outgoing messages in the transaction of the state that causes them, and withdraws them.

`send_loop` sends them. Lock order everywhere: the owner's row first, then the message's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from channels_integration import platforms, send_results
from channels_integration.messages import Change, Outgoing, Target
from channels_integration.models import OutboundMessage
from infra import doorbell, raw_sql

QUEUE = "deliveries"
TASK = "channels.deliver"

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
    raw_sql.run(_ENQUEUE, [json.dumps(records)])
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
    found = raw_sql.all_rows(_WITHDRAW, [list(owner_keys), org_id])
    return [message_id for message_id, status in found if status == OutboundMessage.Status.WITHDRAWN]


def withdraw_all(org_id: str) -> int:
    """As `withdraw`, for all unsent messages of an organisation. Returns their number."""
    return raw_sql.run(_WITHDRAW_ALL, [org_id])


def look_again(org_id: str) -> int:
    """Make the messages due that quiet hours hold; closed hours hold them again. Returns the number of messages."""
    held = OutboundMessage.objects.filter(org_id=org_id, status=OutboundMessage.Status.PENDING, is_in_lane=False)
    count = held.filter(error_code=send_results.HELD).update(due_at=Now())
    if count:
        transaction.on_commit(ring, robust=True)
    return count


def forget_thread(org_id: str, thread_key: str) -> int:
    """Forget a thread that is gone on the platform: the next message with this key opens a new one. Returns the number
    of messages changed.
    """
    opened = OutboundMessage.objects.filter(org_id=org_id, thread_key=thread_key, status=OutboundMessage.Status.SENT)
    return opened.exclude(thread="").update(thread="")


def failure_of(message_id: UUID) -> tuple[str, str]:
    """Why a message was given up: its code and a sentence."""
    found = OutboundMessage.objects.filter(pk=message_id).values_list("error_code", "error_message").first()
    return found or ("unknown", "the message does not exist any more")


def undelivered(org_id: str, owner_key: str, *, most: int = 1_000) -> list[OutboundMessage]:
    """An owner's messages that are neither sent nor given up, in order, with those withdrawn during a send."""
    found = OutboundMessage.objects.filter(org_id=org_id, owner_key=owner_key, status__in=OutboundMessage.UNDELIVERED)
    return list(found.order_by("position")[:most])
