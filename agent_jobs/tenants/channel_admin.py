"""Changes an organisation's channels and writes an audit entry for each change. API handlers call this module.

`channels_integration` knows no actors. Its errors (`channels_integration.errors`) pass through unchanged.
"""

from typing import Any
from uuid import UUID

from django.db import transaction

from agent_jobs.audit import audit_log
from agent_jobs.models import Job, JobType, ModelKey, Schedule, ScheduleVersion, ToolSecret, WebhookEndpoint
from agent_jobs.specs import Actor
from agent_jobs.tenants import row_limits, stored_bytes
from channels_integration import directory, overviews, rotation, transcript, web_messages
from channels_integration.models import Channel, Installation, WebMessage

# Every table that stores secrets: those of the channels and of the core.
SEALED: rotation.Sealed = (
    *rotation.SEALED,
    (ToolSecret, ("sealed_value",)),
    (ModelKey, ("sealed_key",)),
    (Job, ("sealed_work",)),
    (JobType, ("sealed_work",)),
    (WebhookEndpoint, ("sealed_secret", "sealed_previous_secret")),
    (Schedule, ("sealed_work",)),
    (ScheduleVersion, ("sealed_work",)),
)


def register(
    org_id: str, *, actor: Actor, platform: str, code: str, name: str = "", address: str = "", secret: str = ""
) -> tuple[Channel, str | None]:
    """Register a channel, or change its registration (`directory`). One that changes nothing leaves no audit entry."""
    with transaction.atomic():
        known = directory.locked_channel(org_id, platform, code)
        before = _channel(known) if known else None
        if known is None:
            _require_room(org_id, platform)
        channel, made = directory.register_channel(
            org_id, platform=platform, code=code, name=name, address=address, secret=secret
        )
        after = _channel(channel) | ({"is_new_secret": True} if secret or made else {})
        audit_log.record_change(org_id, "channel", f"{platform}:{code}", actor=actor, before=before, after=after)
    return channel, made


def unregister(org_id: str, platform: str, code: str, *, actor: Actor) -> bool:
    """Delete a registered channel with its transcript (`directory`)."""
    with transaction.atomic():
        known = directory.locked_channel(org_id, platform, code)
        if known is None or not directory.unregister_channel(org_id, platform, code):
            return False
        audit_log.record(org_id, "channel.removed", f"{platform}:{code}", actor=actor, before=_channel(known))
    return True


def install_slack(
    org_id: str, *, actor: Actor, team_id: str, bot_token: str, signing_secret: str, name: str = ""
) -> Installation:
    """Install a Slack workspace (`directory`), or replace the secrets of an installation."""
    with transaction.atomic():
        known = directory.locked_installation(org_id, team_id)
        before = _installation(known) if known else None
        if known is None:
            there = Installation.objects.filter(org_id=org_id)
            most = row_limits.MOST_INSTALLATIONS
            row_limits.require(org_id, there, most, what="Slack installations", code="too_many_installations")
        installation = directory.install_slack(
            org_id, team_id=team_id, bot_token=bot_token, signing_secret=signing_secret, name=name
        )
        after = _installation(installation) | {"is_new_secret": True}
        audit_log.record_change(org_id, "slack_installation", team_id, actor=actor, before=before, after=after)
    return installation


def uninstall_slack(org_id: str, team_id: str, *, actor: Actor) -> bool:
    """Remove an installation with its secrets (`directory`)."""
    with transaction.atomic():
        known = directory.locked_installation(org_id, team_id)
        if known is None or not directory.uninstall_slack(org_id, team_id):
            return False
        audit_log.record(org_id, "slack_installation.removed", team_id, actor=actor, before=_installation(known))
    return True


def say(
    org_id: str, platform: str, code: str, *, actor: Actor, text: str, author: str, owner_key: str = ""
) -> WebMessage:
    """Store a person's message that a token sent (`web_messages`). The audit entry names person and channel, not the
    words.
    """
    with transaction.atomic():
        if not transcript.channel_of(org_id, platform, code).exists():
            _require_room(org_id, transcript.WEB)
        stored_bytes.admit_text(org_id, text)
        message = web_messages.say(org_id, platform, code, text=text, author=author, owner_key=owner_key)
        audit_log.record(
            org_id,
            "message.brought_in",
            f"{platform}:{code}",
            object_type="channel",
            actor=actor,
            after={"message_id": str(message.pk), "author": author, "job_id": owner_key},
        )
    return message


def send_again(org_id: str, message_id: UUID, *, actor: Actor) -> UUID:
    """Send a dead message again as a new one (`overviews`)."""
    with transaction.atomic():
        again = overviews.send_again(org_id, message_id)
        audit_log.record(org_id, "message.redelivered", message_id, actor=actor, after={"message_id": str(again)})
    return again


def rotate_secrets(*, actor: Actor, batch: int = 100) -> tuple[int, list[rotation.Cell], int]:
    """Seal all secrets with the newest key. Returns how many were sealed, which could not be opened, and how many are
    left.

    Raises SealingError if no key is set. Several runs may overlap, and an interrupted run may be repeated.
    """
    count, failed = 0, []

    def note(cell: rotation.Cell) -> None:
        nonlocal count
        if cell.problem:
            failed.append(cell)
            return
        count += 1
        audit_log.record(
            cell.org_id,
            "secret.resealed",
            f"{cell.table}|{cell.column}|{cell.key}",
            object_type="sealed_secret",
            actor=actor,
            before={"sealing_key": cell.old_key_id},
            after={"sealing_key": cell.new_key_id},
        )

    rotation.reseal(note, batch=batch, tables=SEALED)
    return count, failed, rotation.left(SEALED)


def _require_room(org_id: str, platform: str) -> None:
    """Raises Conflict if the organisation may not have another channel: a registered one or, on `web`, a new chat.

    A job's first message may always open a chat; there are no more of these than jobs.
    """
    if platform == transcript.WEB:
        there, most, what = Channel.objects.filter(org_id=org_id), row_limits.MOST_CHATS, "channels"
    else:
        registered = directory.channels(org_id).exclude(platform=transcript.WEB)
        there, most, what = registered, row_limits.MOST_CHANNELS, "registered channels"
    row_limits.require(org_id, there, most, what=what, code="too_many_channels")


def _channel(channel: Channel) -> dict[str, Any]:
    return {"name": channel.name, "address": channel.address, "secret": audit_log.MASK if channel.sealed_secret else ""}


def _installation(installation: Installation) -> dict[str, Any]:
    return {"name": installation.name, "bot_token": audit_log.MASK, "signing_secret": audit_log.MASK}
