"""Chooses the next message to send: fair between organisations, in order within a thread, paced per channel.

Each channel has a lane: the queue of its messages. A message costs one statement to enter its lane and one to leave it,
however many wait. A lane with nothing to give, or not open yet, is looked at by its own time, not once per message. A
paced lane has one post in flight. It opens one second after that post's answer, so no burst follows a stall.

Threads of several processes run this at once. Locks: a claim takes the lane, then the message (and skips locked
messages); entering takes messages, then lanes in order. Neither holds an owner's row.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from uuid_utils.compat import uuid7

from channels_integration import platforms
from channels_integration.messages import Button, Change, Outgoing, Target
from infra import prepared_sql

PACE_SECONDS = 1.0
# Delay of the next look at a lane whose messages all wait for an earlier one of their thread.
_BLOCKED_SECONDS = 1.0
_ENTER_AT_ONCE = 500

# Due messages enter their lane. The lane's next look is now, or when it opens.
_ENTER = f"""
WITH arriving AS (
    SELECT id FROM channels_integration_outboundmessage
    WHERE status = 'pending' AND NOT is_in_lane AND due_at <= now()
    ORDER BY due_at LIMIT {_ENTER_AT_ONCE} FOR UPDATE SKIP LOCKED
), entered AS (
    UPDATE channels_integration_outboundmessage m SET is_in_lane = true
    FROM arriving a WHERE m.id = a.id AND m.status = 'pending'
    RETURNING m.lane, m.org_id
), woken AS (
    INSERT INTO channels_integration_lane AS l (lane, org_id, opens_at, look_at)
    SELECT DISTINCT lane, org_id, now(), now() FROM entered ORDER BY lane
    ON CONFLICT (lane) DO UPDATE SET look_at = LEAST(l.look_at, GREATEST(l.opens_at, now()))
)
SELECT count(*) FROM entered
"""  # noqa: S608

_LANE = """
SELECT lane, org_id FROM channels_integration_lane
WHERE look_at <= clock_timestamp() AND org_id {after} %(after)s
ORDER BY org_id, look_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_LANE_AFTER, _LANE_FROM_THE_START = _LANE.replace("{after}", ">"), _LANE.replace("{after}", "<=")

# All columns that an attempt or a history look-up needs; `m` is the message.
CLAIM_COLUMNS = """
    m.id, m.org_id, m.platform, m.code, m.type, m.details, m.text, m.owner_key, m.thread_key, m.lane, m.status,
    m.claimed_at, m.first_claimed_at, m.failures, m.unknown_outcomes, m.created_at, m.history_cursor,
    m.platform_message_id, m.thread, m.trace, m.buttons, m.change, m.mentions, clock_timestamp() AS taken_on, (
        SELECT changed.platform_message_id FROM channels_integration_outboundmessage changed
        WHERE changed.id = (m.change->>'of')::uuid AND changed.org_id = m.org_id) AS changed_id, (
        SELECT opener.thread FROM channels_integration_outboundmessage opener
        WHERE opener.thread_key = m.thread_key AND m.thread_key <> '' AND opener.org_id = m.org_id
            AND opener.status = 'sent' AND opener.thread <> ''
        ORDER BY opener.position DESC LIMIT 1) AS opened_thread
"""

# A later statement than the lane's lock, so that it sees messages that entered before the lock was taken.
_CLAIM = f"""
WITH first AS (
    SELECT id FROM channels_integration_outboundmessage m
    WHERE m.lane = %(lane)s AND m.status = 'pending' AND m.is_in_lane
        AND (m.thread_key = '' OR NOT EXISTS (
            SELECT FROM channels_integration_outboundmessage earlier
            WHERE earlier.thread_key = m.thread_key AND earlier.position < m.position
                AND earlier.status IN ('pending', 'sending', 'unknown') AND earlier.org_id = m.org_id))
        AND (m.change IS NULL OR NOT EXISTS (
            SELECT FROM channels_integration_outboundmessage changed
            WHERE changed.id = (m.change->>'of')::uuid AND changed.status IN ('pending', 'sending', 'unknown')))
    ORDER BY m.position LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE channels_integration_outboundmessage m SET
    status = 'sending', is_in_lane = false, claim_token = %(token)s, claimed_at = clock_timestamp(),
    first_claimed_at = coalesce(m.first_claimed_at, clock_timestamp()),
    due_at = clock_timestamp() + make_interval(secs => %(grace)s)
FROM first WHERE m.id = first.id
RETURNING {CLAIM_COLUMNS}
"""  # noqa: S608

_AFTER_CLAIM = """
UPDATE channels_integration_lane SET
    opens_at = clock_timestamp() + make_interval(secs => %(closed)s),
    look_at = clock_timestamp() + make_interval(secs => %(closed)s), holder = %(token)s
WHERE lane = %(lane)s
"""

_AFTER_NOTHING = """
UPDATE channels_integration_lane SET look_at = CASE WHEN EXISTS (
        SELECT FROM channels_integration_outboundmessage m
        WHERE m.lane = %(lane)s AND m.status = 'pending' AND m.is_in_lane)
    THEN clock_timestamp() + make_interval(secs => %(blocked)s) END
WHERE lane = %(lane)s
"""

_OPEN_LATER = """
UPDATE channels_integration_lane SET
    opens_at = clock_timestamp() + make_interval(secs => %(seconds)s), holder = NULL,
    look_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE lane = %(lane)s AND (holder = %(token)s OR opens_at < clock_timestamp())
"""

_LOOK_NOW = """
UPDATE channels_integration_lane SET look_at = clock_timestamp()
WHERE lane = %(lane)s AND look_at > clock_timestamp() AND opens_at <= clock_timestamp()
"""

# Seconds until anything is due; NULL where nothing waits.
_NEXT = """
SELECT extract(epoch FROM LEAST(
    (SELECT min(look_at) FROM channels_integration_lane WHERE look_at IS NOT NULL),
    (SELECT due_at FROM channels_integration_outboundmessage
        WHERE status = 'pending' AND NOT is_in_lane ORDER BY due_at LIMIT 1),
    (SELECT due_at FROM channels_integration_outboundmessage
        WHERE status IN ('sending', 'unknown') ORDER BY due_at LIMIT 1)) - clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class SendClaim:
    """A claimed message. `age` is the time since the claim, by this process's monotonic clock."""

    outgoing: Outgoing
    token: UUID
    lane: str
    thread: str
    taken_at: float
    row: dict[str, Any]

    @property
    def age(self) -> float:
        return time.monotonic() - self.taken_at


def enter() -> int:
    """Put a batch of due messages into the lanes of their channels. Returns their number."""
    return int(prepared_sql.first(_ENTER)[0])


def claim(*, after_org: str, grace_seconds: float, flight_seconds: float) -> SendClaim | str | None:
    """Claim the next message, from the next organisation after `after_org` and its lane that has waited longest.

    Returns None if no lane is due, and the organisation's name if its lane had nothing to give. Commits before it
    returns. `flight_seconds`: how long a paced lane stays closed if the claimer dies.
    """
    with transaction.atomic():
        after = {"after": after_org}
        found = prepared_sql.first(_LANE_AFTER, after) or prepared_sql.first(_LANE_FROM_THE_START, after)
        if found is None:
            return None
        lane, org_id = found
        token = uuid7()
        # Until this statement the message can still be withdrawn, so its age does not count the time before.
        taken_at = time.monotonic()
        row = prepared_sql.first_by_name(_CLAIM, {"lane": lane, "token": token, "grace": grace_seconds})
        if row is None:
            prepared_sql.run(_AFTER_NOTHING, {"lane": lane, "blocked": _BLOCKED_SECONDS})
            return str(org_id)
        closed = flight_seconds if platforms.get(row["platform"]).is_paced else 0
        prepared_sql.run(_AFTER_CLAIM, {"lane": lane, "token": token, "closed": closed})
    return claim_of(row, token=token, taken_at=taken_at)


def open_after(claim: SendClaim, *, seconds: float) -> None:
    """End a claim: a paced lane opens in `seconds`; an unpaced lane is looked at now, for messages it blocked."""
    is_paced = platforms.get(claim.outgoing.target.platform).is_paced
    if is_paced or seconds > 0:
        prepared_sql.run(_OPEN_LATER, {"seconds": max(seconds, 0.0), "lane": claim.lane, "token": claim.token})
    else:
        prepared_sql.run(_LOOK_NOW, {"lane": claim.lane})


def seconds_until_due() -> float | None:
    """Seconds until something is due: 0 or less if now, None if nothing waits."""
    (seconds,) = prepared_sql.first(_NEXT)
    return None if seconds is None else float(seconds)


def claim_of(row: dict[str, Any], *, token: UUID, taken_at: float) -> SendClaim:
    target = Target(row["org_id"], row["platform"], row["code"], row["type"], details_of(row["details"]))
    buttons = tuple(Button(*button) for button in details_of(row["buttons"]))
    change = details_of(row["change"])
    if change:
        change = Change(UUID(change["of"]), change["line"], change["person"], row["changed_id"] or "")
    mentions = tuple(details_of(row["mentions"]))
    outgoing = Outgoing(
        row["id"], target, row["text"], row["owner_key"], row["thread_key"], row["trace"], buttons, change, mentions
    )
    thread = row["opened_thread"] or ""
    return SendClaim(outgoing=outgoing, token=token, lane=row["lane"], thread=thread, taken_at=taken_at, row=row)


def details_of(value: Any) -> Any:
    """Decode a jsonb column of a raw statement: Django registers no loader for it, so psycopg returns text."""
    return json.loads(value) if isinstance(value, str) else value
