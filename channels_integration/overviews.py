"""Lists for people: an organisation's channels with their last words, its outbox, and its Slack workspaces."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from uuid_utils.compat import uuid7

from channels_integration import outbox
from channels_integration.errors import InvalidField, UnknownChannel
from channels_integration.messages import Outgoing, Target
from channels_integration.models import OutboundMessage
from infra import raw_sql

Row = Mapping[str, Any]
MOST_CHANNELS = 200
_MOST_TEXT = 200
_MOST_FAILED = 1_000
# The outbox's views: messages in these states.
VIEWS: Mapping[str, tuple[str, ...]] = {
    "dead": (OutboundMessage.Status.DEAD,),
    "waiting": OutboundMessage.UNDELIVERED,
    "sent": (OutboundMessage.Status.SENT,),
}
OUTBOX_COLUMNS = (
    *("id", "platform", "code", "text", "owner_key", "status", "due_at", "failures", "error_code", "error_message"),
    *("created_at", "sent_at"),
)
_CHANNELS = """
SELECT c.platform, c.code, c.name, c.address, last.direction, last.author, left(last.text, %(text)s) AS text,
    last.created_at, c.last_position
FROM channels_integration_channel c
LEFT JOIN LATERAL (
    SELECT direction, author, text, created_at FROM channels_integration_webmessage
    WHERE channel_id = c.id ORDER BY position DESC LIMIT 1
) last ON true
WHERE c.org_id = %(org)s ORDER BY last.created_at DESC NULLS LAST, c.platform, c.code LIMIT %(most)s
"""

_WORKSPACES = """
SELECT i.team_id, i.name, i.created_at, i.updated_at, heard.received_at AS heard_at, coalesce(dead.number, 0) AS failed,
    dead.code AS error_code, dead.message AS error_message, dead.at AS failed_at
FROM channels_integration_installation i
LEFT JOIN LATERAL (
    SELECT received_at FROM channels_integration_inboundevent
    WHERE org_id = i.org_id AND team = i.team_id AND team <> '' ORDER BY id DESC LIMIT 1
) heard ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS number, (array_agg(error_code ORDER BY position DESC))[1] AS code,
        (array_agg(left(error_message, %(text)s) ORDER BY position DESC))[1] AS message, max(created_at) AS at
    FROM (
        SELECT position, error_code, error_message, created_at FROM channels_integration_outboundmessage
        WHERE org_id = i.org_id AND status = 'dead' AND platform = 'slack'
            AND coalesce(details ->> 'team_id', '') IN ('', i.team_id) AND created_at > now() - interval '1 day'
        ORDER BY position DESC LIMIT %(most)s
    ) lately
) dead ON true
WHERE i.org_id = %(org)s ORDER BY i.name, i.team_id
"""


def workspaces(org_id: str) -> Sequence[Row]:
    """The connected Slack workspaces: when something was heard from each last, and what failed in the last day."""
    return raw_sql.rows_by_name(_WORKSPACES, {"org": org_id, "text": _MOST_TEXT, "most": _MOST_FAILED})


def channels(org_id: str) -> Sequence[Row]:
    """The registered channels with their last line, the newest on top."""
    return raw_sql.rows_by_name(_CHANNELS, {"org": org_id, "text": _MOST_TEXT, "most": MOST_CHANNELS})


def messages(org_id: str, view: str) -> QuerySet[OutboundMessage]:
    """The messages of one view, the newest on top."""
    return OutboundMessage.objects.filter(org_id=org_id, status__in=VIEWS[view]).order_by("-position")


def message(org_id: str, message_id: UUID) -> Row:
    """One message of the outbox. Raises UnknownChannel for another organisation's message as for a missing one."""
    row: Row | None = OutboundMessage.objects.filter(org_id=org_id, pk=message_id).values(*OUTBOX_COLUMNS).first()
    if row is None:
        raise UnknownChannel(f"there is no message {message_id}")
    return row


def send_again(org_id: str, message_id: UUID) -> UUID:
    """Send the words of a dead message as a new one. Returns its id.

    The new message has no owner and no buttons: its owner was told that the old one died, and went on. Raises
    UnknownChannel for a missing message, and InvalidField for one that is not dead.
    """
    with transaction.atomic():
        found = OutboundMessage.objects.select_for_update().filter(org_id=org_id, pk=message_id).first()
        if found is None:
            raise UnknownChannel(f"there is no message {message_id}")
        if found.status != OutboundMessage.Status.DEAD:
            raise InvalidField("message", f"is {found.status}, and only a dead message can be sent again")
        target = Target(org_id, found.platform, found.code, found.type, found.details)
        again = Outgoing(uuid7(), target, found.text, "", found.thread_key)
        outbox.enqueue([again])
    return again.id


def lines(org_id: str, platform: str, code: str, *, most: int) -> Sequence[Row]:
    """The newest lines of a channel whose transcript is kept, oldest first."""
    where = {"org": org_id, "platform": platform, "code": code, "most": most}
    return raw_sql.rows_by_name(_LINES, where)[::-1]


_LINES = """
SELECT m.id, m.direction, m.author, m.text, m.owner_key, m.created_at FROM channels_integration_webmessage m
JOIN channels_integration_channel c ON c.id = m.channel_id
WHERE c.org_id = %(org)s AND c.platform = %(platform)s AND c.code = %(code)s ORDER BY m.position DESC LIMIT %(most)s
"""
