"""Lines of the transcript of channels whose messages are kept here: web chats, webhooks and bridges.

Readers ask for what comes after a line they have. Positions are given out under the channel row's lock, held until the
commit, so no later position is ever visible before an earlier one.
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


def channel_of(org_id: str, platform: str, code: str) -> QuerySet[Channel]:
    return Channel.objects.filter(org_id=org_id, platform=platform, code=code)


def unknown_channel(platform: str, code: str) -> UnknownChannel:
    return UnknownChannel(f"there is no channel {platform[:32]}:{code[:64]!r}")


def ensure_web_channel(org_id: str, code: str) -> tuple[Channel, bool]:
    """A web chat needs no registration: it is there when it is first spoken in. True if it is new."""
    return Channel.objects.get_or_create(org_id=org_id, platform=WEB, code=code)


def show(outgoing: Outgoing) -> WebMessage:
    """A message of ours, once. Raises UnknownChannel where the channel is gone."""
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


def change(outgoing: Outgoing, change: Change) -> None:
    """A line of ours becomes another: no buttons, some words more. Who has read it sees that by reading again."""
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
    """Write a line, unless this id is there already. True if it is new. Raises UnknownChannel."""
    channel = channel_of(org_id, platform, code).select_for_update(no_key=True).first()
    if channel is None:
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
