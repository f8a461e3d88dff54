"""Transcripts of channels whose messages we keep: web chats, webhooks and bridges.

Readers ask for the lines after one that they have. Positions are assigned under the channel row's lock, held until the
commit. So no later position is ever visible before an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from channels_integration.errors import UnknownChannel
from channels_integration.messages import Button, Change, Outgoing
from channels_integration.models import Channel, WebMessage

WEB = "web"
# A registration with this code stands for every code of a webhook or bridge that has none of its own.
EVERY = "*"
# Bytes on disk of an organisation's transcripts.
STORED_BYTES = """
SELECT sum(pg_column_size(w.text)) FROM channels_integration_webmessage w
JOIN channels_integration_channel c ON c.id = w.channel_id WHERE c.org_id = %(org)s
"""


def channel_of(org_id: str, platform: str, code: str) -> QuerySet[Channel]:
    return Channel.objects.filter(org_id=org_id, platform=platform, code=code)


def registered(org_id: str, platform: str, code: str) -> Channel | None:
    """The channel whose address gets the messages to this code: its own, or else the platform's `*`."""
    found = Channel.objects.filter(org_id=org_id, platform=platform, code__in=(code, EVERY)).exclude(address="")
    return min(found, key=lambda channel: channel.code == EVERY, default=None)


def exists(org_id: str, platform: str, code: str) -> bool:
    """Whether people can read and write there."""
    if platform == WEB:
        return True
    if code == EVERY:
        return False
    return registered(org_id, platform, code) is not None or channel_of(org_id, platform, code).exists()


def unknown_channel(platform: str, code: str) -> UnknownChannel:
    return UnknownChannel(f"there is no channel {platform[:32]}:{code[:64]!r}")


def show(outgoing: Outgoing) -> WebMessage:
    """Append a message of ours, once. Raises UnknownChannel where the channel is gone."""
    target = outgoing.target
    with transaction.atomic():
        return append(
            target.org_id,
            target.platform,
            target.code,
            outgoing.id,
            WebMessage.Direction.OUT,
            author="agent",
            text=outgoing.text,
            owner_key=outgoing.owner_key,
            buttons=outgoing.buttons,
        )[0]


def is_shown(message_id: UUID) -> bool:
    return WebMessage.objects.filter(pk=message_id, direction=WebMessage.Direction.OUT).exists()


def change(outgoing: Outgoing, change: Change) -> None:
    """Change a line of ours: remove its buttons, append some words. Readers see it when they read the line again."""
    target = outgoing.target
    told = f"{change.line} {change.person}".strip()
    of_channel = channel_of(target.org_id, target.platform, target.code)
    WebMessage.objects.filter(pk=change.of, channel__in=of_channel).update(
        text=f"{outgoing.text}\n\n{told}", buttons=[]
    )


def append(
    org_id: str,
    platform: str,
    code: str,
    message_id: UUID,
    direction: WebMessage.Direction,
    *,
    author: str,
    text: str,
    owner_key: str,
    buttons: Sequence[Button] = (),
) -> tuple[WebMessage, bool]:
    """Write a line, unless this id is there already. True if it is new. Raises UnknownChannel.

    A web chat, and a code under a bridge's `*`, gets its row when somebody first writes there.
    """
    channel = _lock(org_id, platform, code)
    if channel is None or (code == EVERY and platform != WEB):
        if not exists(org_id, platform, code):
            raise unknown_channel(platform, code)
        Channel.objects.get_or_create(org_id=org_id, platform=platform, code=code)
        channel = _lock(org_id, platform, code)
        if channel is None:  # removed meanwhile
            raise unknown_channel(platform, code)
    if known := WebMessage.objects.filter(pk=message_id, channel=channel).first():
        return known, False
    position = channel.last_position + 1
    Channel.objects.filter(pk=channel.pk).update(last_position=F("last_position") + 1)
    message = WebMessage.objects.create(
        id=message_id,
        channel=channel,
        position=position,
        direction=direction,
        author=author,
        text=text,
        owner_key=owner_key,
        buttons=[[button.label, button.value] for button in buttons],
        created_at=timezone.now(),
    )
    return message, True


def _lock(org_id: str, platform: str, code: str) -> Channel | None:
    return channel_of(org_id, platform, code).select_for_update(no_key=True).first()
