"""The places that an organisation can reach: its Slack installations and its registered channels.

Callers hand in secrets, which are sealed. No function returns one, except a new webhook's generated secret, once.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from channels_integration import platforms, transcript
from channels_integration.errors import InvalidField
from channels_integration.messages import Target
from channels_integration.models import Channel, Installation
from infra import invisible_text, sealing
from infra.egress import requests_client
from infra.sealing import SealingError

_SECRET_PREFIX = "whsec_"  # noqa: S105
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_CODE = re.compile(r"[^\x00-\x20\x7f/](?:[^\x00-\x1f\x7f/]{0,253}[^\x00-\x20\x7f/])?\Z")
_TEAM = re.compile(r"[TE][A-Z0-9]{1,30}\Z")
_BOT_TOKEN = re.compile(r"xox[a-z]-[\x21-\x7e]{1,480}\Z")
# After a change of a channel's secret, its old secret signs too for this long.
SECRET_OVERLAP = timedelta(hours=24)
_REGISTERED = ("name", "address", "sealed_secret", "sealed_previous_secret", "previous_secret_until")
_WITHOUT_ADDRESS = tuple(platform.name for platform in platforms.PLATFORMS if platform.is_registered_by_name)


# --- Slack -----------------------------------------------------------------------------------------------------
def install_slack(org_id: str, *, team_id: str, bot_token: str, signing_secret: str, name: str = "") -> Installation:
    """Install, or install again with new secrets. Raises InvalidField, and SealingError where no key is set."""
    if not _TEAM.match(team_id):
        raise InvalidField("team_id", "must be a Slack workspace's id, such as T0123ABCD")
    if not _BOT_TOKEN.match(bot_token):
        raise InvalidField("bot_token", "must be a Slack bot token, such as xoxb-…")
    if not signing_secret.isascii() or not signing_secret.isprintable() or not 8 <= len(signing_secret) <= 200:
        raise InvalidField("signing_secret", "must be the Slack app's signing secret")
    with transaction.atomic():
        known = Installation.objects.select_for_update().filter(org_id=org_id, team_id=team_id).first()
        installation = known or Installation(id=uuid7(), org_id=org_id, team_id=team_id)
        installation.name = name or installation.name
        installation.sealed_bot_token = sealing.seal_for(installation, "sealed_bot_token", bot_token)
        installation.sealed_signing_secret = sealing.seal_for(installation, "sealed_signing_secret", signing_secret)
        if known:
            installation.save()
            return installation
        try:
            with transaction.atomic():
                installation.save(force_insert=True)
        except IntegrityError:
            # Another request installed it at the same moment; replace that row like any older one.
            return install_slack(org_id, team_id=team_id, bot_token=bot_token, signing_secret=signing_secret, name=name)
        installation.refresh_from_db()
        return installation


def uninstall_slack(org_id: str, team_id: str) -> bool:
    """Remove the installation with its secrets. False if there was none."""
    return Installation.objects.filter(org_id=org_id, team_id=team_id).delete()[0] > 0


def locked_installation(org_id: str, team_id: str) -> Installation | None:
    """The installation's row, locked until the transaction ends."""
    return Installation.objects.select_for_update(no_key=True).filter(org_id=org_id, team_id=team_id).first()


def installations(org_id: str) -> QuerySet[Installation]:
    return Installation.objects.filter(org_id=org_id)


# --- Registered channels ---------------------------------------------------------------------------------------
def register_channel(
    org_id: str, *, platform: str, code: str, name: str = "", address: str = "", secret: str = ""
) -> tuple[Channel, str | None]:
    """Register a channel, or change its registration. Returns the secret only if it was generated here.

    A given secret is `whsec_` and base64 of 24 to 64 bytes. Without one, an existing secret stays. For SECRET_OVERLAP
    after a change, messages are signed with both secrets, if the old one can be read. Raises InvalidField, and
    SealingError where no key is set.
    """
    _check_names(platform, code)
    if platform in _WITHOUT_ADDRESS:
        if code == transcript.EVERY:
            raise InvalidField("code", f"{code} stands for all codes of a webhook or a bridge, not of {platform}")
        if address or secret:
            raise InvalidField("address" if address else "secret", f"must be left out: a {platform} channel has none")
    else:
        _check_address(address)
        _check_secret(secret)
    with transaction.atomic():
        channel, _ = Channel.objects.get_or_create(org_id=org_id, platform=platform, code=code)
        channel = Channel.objects.select_for_update(no_key=True).get(pk=channel.pk)
        channel.name = name or channel.name
        made: str | None = None
        if platform not in _WITHOUT_ADDRESS:
            channel.address = address
            if not secret and not channel.sealed_secret:
                secret = made = _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
            if secret:
                _replace_secret(channel, secret)
        channel.save(update_fields=[*_REGISTERED, "updated_at"])
    return channel, made


def _replace_secret(channel: Channel, secret: str) -> None:
    previous = ""
    if channel.sealed_secret:
        with suppress(SealingError):
            previous = channel.opened("sealed_secret")
    if previous == secret:
        return
    channel.sealed_previous_secret = sealing.seal_for(channel, "sealed_previous_secret", previous) if previous else ""
    channel.previous_secret_until = Now() + SECRET_OVERLAP if previous else None
    channel.sealed_secret = sealing.seal_for(channel, "sealed_secret", secret)


def unregister_channel(org_id: str, platform: str, code: str) -> bool:
    """Delete a channel and its transcript. For `*`, also the transcripts of all codes that it stood for.

    False if it was not registered.
    """
    known = channels(org_id).filter(platform=platform, code=code)
    if code == transcript.EVERY and platform not in _WITHOUT_ADDRESS and known.exists():
        Channel.objects.filter(org_id=org_id, platform=platform, address="").delete()
    return known.delete()[0] > 0


def locked_channel(org_id: str, platform: str, code: str) -> Channel | None:
    """The channel's row, locked until the transaction ends."""
    return channels(org_id).select_for_update(no_key=True).filter(platform=platform, code=code).first()


def channels(org_id: str) -> QuerySet[Channel]:
    """Registered channels, without the rows that exist only because somebody spoke under a platform's `*`."""
    return Channel.objects.filter(org_id=org_id).filter(Q(platform__in=_WITHOUT_ADDRESS) | ~Q(address=""))


def names(org_id: str, places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
    """The names of channels by (platform, code), without channels that have none."""
    platforms, codes = {platform for platform, _ in places}, {code for _, code in places}
    named = Channel.objects.filter(org_id=org_id, platform__in=platforms, code__in=codes).exclude(name="")
    return {(platform, code): name for platform, code, name in named.values_list("platform", "code", "name")}


# --- Reaching --------------------------------------------------------------------------------------------------
def unreachable_reason(target: Target) -> tuple[str, str] | None:
    """Why the organisation cannot reach this place, as (field, predicate): `must be …`; None if it can."""
    if not _NAME.match(target.platform):
        return "target_channel.platform", "must be the name of a platform, such as slack, web or webhook"
    if complaint := _code_complaint(target.code):
        return "target_channel.code", complaint
    return platforms.get(target.platform).unreachable_reason(target)


# --- Checks ----------------------------------------------------------------------------------------------------
def _check_names(platform: str, code: str) -> None:
    if not _NAME.match(platform):
        raise InvalidField("platform", "must be at most 32 small letters, digits, - and _, beginning with a letter")
    if platform == "slack":
        raise InvalidField("platform", "Slack's channels need no registration: install Slack for their team")
    if complaint := _code_complaint(code):
        raise InvalidField("code", complaint)


def _code_complaint(code: str) -> str:
    if not _CODE.match(code):
        return "must be 1 to 255 characters without slashes or control characters"
    return invisible_text.in_code(code)


def _check_address(address: str) -> None:
    if not address:
        raise InvalidField("address", "is required: where messages are POSTed")
    if reason := requests_client.refusal(address):
        raise InvalidField("address", reason)


def _check_secret(secret: str) -> None:
    if not secret:
        return
    try:
        size = len(base64.b64decode(secret.removeprefix(_SECRET_PREFIX) + "==", validate=False))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith(_SECRET_PREFIX) or not 24 <= size <= 64:
        raise InvalidField("secret", "must be whsec_ and 24 to 64 bytes in base64")
