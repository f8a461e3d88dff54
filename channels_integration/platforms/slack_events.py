"""Reads Slack's requests: the Events API (messages, edits, deletions) and interactivity (pressed buttons, sent forms).

Slack signs the raw bytes of both with the secret of the app that an organisation has installed. A request that no
secret of its workspace signed is refused, and the refusal does not say why.

In a channel that is shared with another company (Slack Connect), the outer team may be theirs. Slack then names our
workspace in `authorizations` or beside it; the first one whose app signed is the one that heard.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from channels_integration.messages import OPENS_FORM, Did, FormPress, Incoming, Submission
from channels_integration.models import Installation, OutboundMessage
from channels_integration.platforms import slack_files, slack_forms, slack_words
from channels_integration.platforms.base import Heard
from infra.sealing import SealingError
from infra.storable_text import storable

log = logging.getLogger(__name__)
_PLATFORM = "slack"
_SKEW_SECONDS = 300
_REFUSED = Heard(401, {"code": "invalid_signature", "message": "the request is not signed by a known Slack app"})
_TAKEN = Heard(200, {"ok": True})
# A person's message has no subtype, or one of these. Joins, bots and future subtypes are no person's message.
_SPOKEN = (None, "file_share", "thread_broadcast", "me_message")
_EVENT_ID_LENGTH = 200
# Slack's ids and times are far shorter; the database's indexes refuse long values.
_LONGEST_NAME = 255
_MOST_VERIFIABLE = 100
_MOST_TEAMS = 5
TEAM = re.compile(r"[TE][A-Z0-9]{1,30}")


# --- Events ----------------------------------------------------------------------------------------------------
def events(headers: Mapping[str, str], body: bytes, *, installation_id: UUID | None = None) -> Heard:
    """Read a request of the Events API. `installation_id` is set if it came to an installation's own address."""
    event = _json_object(body)
    kind = event.get("type") if event else None
    if event is None or not _is_recent(headers):
        return _REFUSED
    if kind == "url_verification":
        if next(_signers(_verifiable(event, installation_id), headers, body), None) is None:
            return _REFUSED
        return Heard(200, {"challenge": str(event.get("challenge", ""))})
    team_id, org_ids = _signed_for(_teams(event), headers, body, installation_id)
    if not org_ids:
        return _REFUSED
    if kind != "event_callback":
        return _TAKEN
    return Heard(200, _TAKEN.answer, tuple(_done(_sound(event), team_id, org_ids)))


def _verifiable(event: Mapping[str, Any], installation_id: UUID | None) -> Iterable[Installation]:
    """The installations that may have signed a `url_verification`, which usually names no team.

    At the shared address these are few, so that an unsigned request costs little. Each organisation has one candidate,
    its latest installation, so that none crowds out others.
    """
    if installation_id is not None:
        return Installation.objects.filter(pk=installation_id)
    if _is_team(team_id := event.get("team_id")):
        return Installation.objects.filter(team_id=team_id)
    latest = Installation.objects.order_by("org_id", "-updated_at").distinct("org_id").values("pk")
    return Installation.objects.filter(pk__in=latest).order_by("-updated_at")[:_MOST_VERIFIABLE]


def _done(event: Mapping[str, Any], team_id: str, org_ids: list[str]) -> Iterator[Incoming]:
    happened = event.get("event")
    if not isinstance(happened, dict) or happened.get("type") != "message":
        return
    did, message = _read(happened)
    if did is None or (_is_of_a_bot(message) and not _is_gone_message_of(event, happened, message)):
        return
    words = {name: message.get(name) or "" for name in ("user", "ts", "text", "thread_ts")}
    words["channel"] = happened.get("channel", "")
    words["at"] = words["ts"] if did == Did.SAID else happened.get("ts", "")
    if not all(isinstance(word, str) for word in words.values()) or not words["channel"] or not words["user"]:
        return
    if any(len(word) > _LONGEST_NAME for name, word in words.items() if name != "text"):
        return
    sent_at = _time_of(words["at"])
    if sent_at is None or _time_of(words["ts"]) is None:
        return
    # A reply that is also sent to the channel comes as two events: what was said has one name, by its time.
    named = f"{did}:{words['channel']}:{words['at']}"
    event_id = named if did == Did.SAID else str(event.get("event_id") or named)
    for org_id in org_ids:
        heard = Incoming(
            org_id=org_id,
            platform=_PLATFORM,
            code=words["channel"],
            event_id=event_id[:_EVENT_ID_LENGTH],
            author=words["user"],
            text="" if did == Did.DELETED else slack_words.words(message),
            sent_at=sent_at,
            thread=words["thread_ts"],
            team=team_id,
            is_direct=happened.get("channel_type") == "im",
            did=did,
            message_id=words["ts"],
        )
        texts = {} if did == Did.DELETED else slack_files.texts(message, heard)
        yield replace(heard, text=slack_words.words(message, texts)) if texts else heard


def _read(happened: Mapping[str, Any]) -> tuple[Did | None, Mapping[str, Any]]:
    """A person's act, and the message that it concerns; None where it is no person's, or does not concern us."""
    subtype = happened.get("subtype")
    now, before = (
        found if isinstance(found, dict) else {} for found in map(happened.get, ("message", "previous_message"))
    )
    if subtype == "message_deleted":
        return Did.DELETED, before
    if subtype == "message_changed":
        # A deleted message that has replies is replaced by a tombstone.
        if now.get("subtype") == "tombstone":
            return Did.DELETED, before
        # Without an editor this is no edit: Slack added the preview of a link, say.
        is_edited = isinstance(now.get("edited"), dict) and slack_words.words(now) != slack_words.words(before)
        return (Did.EDITED, now) if is_edited and now.get("subtype") in _SPOKEN else (None, now)
    return (Did.SAID, happened) if subtype in _SPOKEN else (None, happened)


def _is_of_a_bot(message: Mapping[str, Any]) -> bool:
    return bool(message.get("bot_id") or message.get("bot_profile") or message.get("app_id"))


def _is_gone_message_of(event: Mapping[str, Any], happened: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Whether a message of this very app was deleted, and its thread with it. One with replies leaves a tombstone."""
    is_ours = message.get("app_id") == event.get("api_app_id") is not None
    return is_ours and happened.get("subtype") == "message_deleted"


# --- Buttons ---------------------------------------------------------------------------------------------------
def presses(headers: Mapping[str, str], body: bytes) -> Heard:
    """A form body with one field, `payload`. A request without a button of ours is accepted and ignored."""
    try:
        sent = parse_qs(body.decode(), max_num_fields=10, errors="strict").get("payload", [""])[0]
    except ValueError:
        return _REFUSED
    payload = _json_object(sent)
    if payload is None or not _is_recent(headers):
        return _REFUSED
    team_id, org_ids = _signed_for(_teams_of_press(payload), headers, body)
    if not org_ids:
        return _REFUSED
    payload = _sound(payload)
    if payload.get("type") == "view_submission":
        return Heard(200, slack_forms.CLOSED, submissions=tuple(_sent_back(payload, team_id, org_ids)))
    if payload.get("type") != "block_actions":
        return _TAKEN
    pressed = list(_pressed(payload, team_id, org_ids))
    ticket = payload.get("trigger_id")
    return Heard(
        200,
        _TAKEN.answer,
        tuple(press for press in pressed if not press.text.startswith(OPENS_FORM)),
        form_presses=tuple(
            FormPress(press, ticket, slack_forms.context(press))
            for press in pressed
            if press.text.startswith(OPENS_FORM) and isinstance(ticket, str)
        ),
    )


def _pressed(payload: Mapping[str, Any], team_id: str, org_ids: list[str]) -> Iterator[Incoming]:
    container = payload.get("container")
    message = payload.get("message")
    message = message if isinstance(message, dict) else {}
    words = {
        "channel": _id_in(payload, "channel"),
        "user": _id_in(payload, "user"),
        "ts": container.get("message_ts", "") if isinstance(container, dict) else "",
        "thread_ts": message.get("thread_ts") or "",
    }
    actions = payload.get("actions")
    if not all(isinstance(word, str) for word in words.values()) or not (words["channel"] and words["user"]):
        return
    if any(len(word) > _LONGEST_NAME for word in words.values()):
        return
    for number, action in enumerate(actions[:5] if isinstance(actions, list) else ()):
        if not isinstance(action, dict) or action.get("type") != "button":
            continue
        value, at = action.get("value"), action.get("action_ts")
        pressed_at = _time_of(at) if isinstance(at, str) else None
        if not isinstance(value, str) or not value or pressed_at is None:
            continue
        for org_id in _posters(action.get("block_id"), org_ids):
            yield Incoming(
                org_id=org_id,
                platform=_PLATFORM,
                code=words["channel"],
                # A press has no id, so make one: a person presses one button at most once in a microsecond.
                event_id=f"press:{words['channel']}:{words['ts']}:{words['user']}:{at}:{number}"[:_EVENT_ID_LENGTH],
                author=words["user"],
                text=value,
                sent_at=pressed_at,
                thread=words["thread_ts"],
                team=team_id,
                is_direct=words["channel"].startswith("D"),
                is_outsider=_is_outsider(payload, team_id),
                did=Did.PRESSED,
                message_id=words["ts"],
            )


def _sent_back(payload: Mapping[str, Any], team_id: str, org_ids: list[str]) -> Iterator[Submission]:
    author, form = _id_in(payload, "user"), slack_forms.read(payload.get("view"))
    if not author or form is None or len(author) > _LONGEST_NAME:
        return
        # Several organisations may have installed the app; one of them opened the form.
    for org_id in [org_id for org_id in org_ids if org_id == form.org_id] or org_ids:
        press = Incoming(
            org_id=org_id,
            platform=_PLATFORM,
            code=form.channel,
            event_id=f"form:{form.id}:{author}"[:_EVENT_ID_LENGTH],
            author=author,
            text=form.value,
            sent_at=datetime.now(UTC),
            team=team_id,
            is_direct=form.channel.startswith("D"),
            is_outsider=_is_outsider(payload, team_id),
            did=Did.PRESSED,
        )
        yield Submission(press, form.text)


def _posters(block_id: Any, org_ids: list[str]) -> list[str]:
    """The organisation whose message it was. Several organisations may have installed one app in one workspace."""
    if len(org_ids) == 1:
        return org_ids
    try:
        message_id = UUID(str(block_id))
    except ValueError:
        return org_ids
    found = OutboundMessage.objects.filter(pk=message_id, org_id__in=org_ids).values_list("org_id", flat=True)
    return list(found) or org_ids


def _is_outsider(payload: Mapping[str, Any], team_id: str) -> bool:
    """Whether the person belongs to another workspace. In a shared channel Slack names their own."""
    user = payload.get("user")
    home = user.get("team_id") if isinstance(user, dict) else None
    return home not in (None, "", team_id)


def _id_in(payload: Mapping[str, Any], name: str) -> str:
    found = payload.get(name)
    stated = found.get("id") if isinstance(found, dict) else None
    return stated if isinstance(stated, str) else ""


# --- Signatures ------------------------------------------------------------------------------------------------
def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of the X-Slack-Signature header."""
    signed = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _teams(event: Mapping[str, Any]) -> list[Any]:
    """The workspaces that may have heard the event, the likeliest first."""
    authorizations = event.get("authorizations")
    found = authorizations[:_MOST_TEAMS] if isinstance(authorizations, list) else []
    named = [one.get(name) for one in found if isinstance(one, dict) for name in ("team_id", "enterprise_id")]
    return [*named, event.get("context_team_id"), event.get("team_id")]


def _teams_of_press(payload: Mapping[str, Any]) -> list[Any]:
    parts = [found if isinstance(found, dict) else {} for found in map(payload.get, ("view", "message"))]
    return [parts[0].get("app_installed_team_id"), _id_in(payload, "team"), parts[1].get("team")]


def _signed_for(
    teams: Iterable[Any], headers: Mapping[str, str], body: bytes, installation_id: UUID | None = None
) -> tuple[str, list[str]]:
    """The first of these workspaces whose app signed the request, and the organisations that installed it."""
    for team_id in dict.fromkeys(team for team in teams if isinstance(team, str)):
        if org_ids := _org_ids(team_id, headers, body, installation_id):
            return team_id, org_ids
    return "", []


def _org_ids(team_id: Any, headers: Mapping[str, str], body: bytes, installation_id: UUID | None = None) -> list[str]:
    """The organisations whose secret signed this request."""
    if not _is_team(team_id):
        return []
    installed = Installation.objects.filter(team_id=team_id)
    if installation_id is not None:
        installed = installed.filter(pk=installation_id)
    return [signer.org_id for signer in _signers(installed, headers, body)]


def _is_team(team_id: Any) -> bool:
    return isinstance(team_id, str) and TEAM.fullmatch(team_id) is not None


def _is_recent(headers: Mapping[str, str]) -> bool:
    stated = headers.get("X-Slack-Request-Timestamp", "")
    if not stated.isascii() or not stated.isdigit() or len(stated) > 12:
        return False
    return abs(time.time() - int(stated)) <= _SKEW_SECONDS


def _signers(candidates: Any, headers: Mapping[str, str], body: bytes) -> Iterator[Installation]:
    """The installations whose secret signed this body."""
    stated = headers.get("X-Slack-Signature", "").encode("utf-8", "replace")
    timestamp = headers.get("X-Slack-Request-Timestamp", "")
    for installation in candidates:
        try:
            secret = installation.opened("sealed_signing_secret")
        except SealingError as error:
            log.error(
                "cannot verify a request of Slack for %s, team %s: cannot open its signing secret: %s",
                *(installation.org_id, installation.team_id, error.message),
            )
            continue
        if hmac.compare_digest(signature(secret, timestamp, body).encode(), stated):
            yield installation


# --- Reading ---------------------------------------------------------------------------------------------------
def _time_of(ts: str) -> datetime | None:
    if not re.fullmatch(r"[0-9]{1,10}\.[0-9]{1,6}", ts):
        return None
    return datetime.fromtimestamp(float(ts), UTC)


def _sound(signed: dict[str, Any]) -> dict[str, Any]:
    """The same without characters that the database refuses; empty where it is nested too deeply to examine."""
    try:
        found: dict[str, Any] = storable(signed)
    except RecursionError:
        return {}
    return found


def _json_object(body: bytes | str) -> dict[str, Any] | None:
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None
