"""Reads and writes, as a person, channels whose messages we keep: web chats, webhooks and bridges."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from uuid_utils.compat import uuid7

from channels_integration import inbound, transcript
from channels_integration.errors import InvalidField
from channels_integration.messages import Incoming
from channels_integration.models import WebMessage
from infra import raw_sql


def read(org_id: str, platform: str, code: str, *, after: UUID | None = None, limit: int = 50) -> Sequence[WebMessage]:
    """The messages of a channel after `after`, oldest first. A web chat without messages is empty, not unknown.

    Raises UnknownChannel, and InvalidField where `after` is no message of this channel.
    """
    messages = WebMessage.objects.filter(
        channel__org_id=org_id, channel__platform=platform, channel__code=code
    ).order_by("position")
    if after is not None:
        position = messages.filter(pk=after).values_list("position", flat=True).first()
        if position is None:
            _check_channel(org_id, platform, code)
            raise InvalidField("after", f"is not a message of the channel {code!r}: {after}")
        messages = messages.filter(position__gt=position)
    found = list(messages[:limit])
    if not found and after is None:
        _check_channel(org_id, platform, code)
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of a channel who has seen everything up to `after`, or nothing."""

    org_id: str
    platform: str
    code: str
    after: UUID | None


_WITH_NEWS = """
SELECT asked.place FROM unnest(%s::text[], %s::text[], %s::text[], %s::uuid[]) WITH ORDINALITY
    AS asked (org_id, platform, code, after, place)
JOIN channels_integration_channel c
    ON c.org_id = asked.org_id AND c.platform = asked.platform AND c.code = asked.code
WHERE EXISTS (
    SELECT FROM channels_integration_webmessage m WHERE m.channel_id = c.id AND m.position > coalesce(
        (SELECT position FROM channels_integration_webmessage WHERE id = asked.after AND channel_id = c.id), -1))
"""


def with_news(readers: Collection[Reader]) -> set[Reader]:
    """The readers whose channel has a message that they have not read. One statement."""
    asked = list(readers)
    if not asked:
        return set()
    columns = [[getattr(reader, name) for reader in asked] for name in ("org_id", "platform", "code", "after")]
    return {asked[place - 1] for (place,) in raw_sql.all_rows(_WITH_NEWS, columns)}


def say(
    org_id: str,
    platform: str,
    code: str,
    *,
    text: str,
    author: str,
    owner_key: str = "",
    message_id: UUID | None = None,
) -> WebMessage:
    """Store a person's message: a line of the transcript, and an event for the job that waits for it.

    With a `message_id`, a repeated call changes nothing. Raises UnknownChannel.
    """
    message_id = message_id or uuid7()
    with transaction.atomic():
        message, is_new = transcript.append(
            org_id, platform, code, message_id, WebMessage.Direction.IN, author=author, text=text, owner_key=owner_key
        )
        if is_new:
            inbound.record(
                Incoming(
                    org_id=org_id,
                    platform=platform,
                    code=code,
                    event_id=str(message_id),
                    author=author,
                    text=text,
                    sent_at=message.created_at,
                    owner_key=owner_key,
                    is_direct=True,
                    message_id=str(message_id),
                )
            )
    return message


def _check_channel(org_id: str, platform: str, code: str) -> None:
    if not transcript.exists(org_id, platform, code):
        raise transcript.unknown_channel(platform, code)
