"""Sends to Slack: chat.postMessage, chat.update and views.open. `slack_events` reads Slack's events, `slack_text` and
`slack_blocks` make texts and blocks, `slack_forms` makes modals.

Each post carries an opaque id in its metadata, by which we find it in the history when its outcome is unknown. The
whole workspace can read metadata, so it holds nothing else. slack_sdk builds the requests. It would repeat a
dropped request by itself, so it gets no retry handlers. `infra.egress` carries the requests, with its deadlines and
without proxies from the environment.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import Request
from uuid import UUID

from django.conf import settings
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from channels_integration.messages import (
    Change,
    DeliveryError,
    Form,
    FormPress,
    Lookup,
    LookupPaused,
    Outgoing,
    PermanentDeliveryError,
    Receipt,
    Target,
    TemporaryDeliveryError,
    UnknownOutcome,
)
from channels_integration.models import Installation
from channels_integration.platforms import slack_blocks, slack_events, slack_forms, slack_text
from channels_integration.platforms.base import Heard
from infra import prepared_sql
from infra.egress import requests_client
from infra.sealing import SealingError

EVENT_TYPE = "agent_jobs_message"
_CHANNEL = re.compile(r"[CGD][A-Z0-9]{1,30}\Z")
_PAGE = 200
_MOST_PAGES = 50
_DEFAULT_RETRY_AFTER = 30.0
# Slack waits 3 s for the answer to a press, and its ticket for a form is valid for the same time.
_FORM_SECONDS = 2.0
# A test sets another address (settings.SLACK_API_URL).
_OWN = "https://slack.com/"

# Slack says of these errors: "It's possible some aspect of the operation succeeded before the error was raised".
_MAY_HAVE_POSTED = {"fatal_error", "internal_error"}
# Surely not posted, for reasons that pass by themselves. A person has to fix any other named error.
_PASSES = {
    "ratelimited",
    "rate_limited",
    "service_unavailable",
    "team_added_to_org",
    "request_timeout",
    "accesslimited",
}
_RATE_LIMITS = {"ratelimited", "rate_limited"}
# Surely not posted, because the thread does not exist any more.
_THREAD_GONE = {"thread_not_found", "message_not_found", "cannot_reply_to_message"}


class Slack:
    name = "slack"
    title = "Slack"
    has_channel_names = False
    accepts_on_commit = False
    is_paced = True
    can_change = True
    has_forms = True
    can_look_up = True
    is_registered_by_name = False

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        team_id = target.data.get("team_id", "")
        if not isinstance(team_id, str):
            return "target_channel.data.team_id", "must be a Slack workspace's id, such as T0123ABCD"
        if not _CHANNEL.match(target.code):
            return "target_channel.code", "must be a Slack channel's id, such as C0123ABCD (not its name)"
        teams = [row[0] for row in prepared_sql.all_rows(_TEAMS, {"org": target.org_id})]
        if team_id and team_id not in teams:
            return "target_channel.data.team_id", f"names the team {team_id!r}, for which Slack is not installed"
        if not teams:
            return "target_channel.platform", "is slack, but Slack is not installed for this organization"
        if not team_id and len(teams) > 1:
            return "target_channel.data.team_id", f"is required: Slack is installed for {len(teams)} teams"
        return None

    def parts(self, text: str) -> tuple[str, ...]:
        return tuple(slack_text.parts(text)) or (text,)  # Slack refuses an empty text, and its sender hears of that

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        if outgoing.change:
            return _change(outgoing, outgoing.change, before_post)
        blocks = slack_blocks.with_buttons(outgoing) if outgoing.buttons else None
        text = slack_text.short(outgoing.text) if blocks else slack_text.mrkdwn(outgoing.text, outgoing.mentions)
        client = _client(outgoing.target, before_post)

        def post() -> dict[str, Any]:
            return _call(
                lambda: client.chat_postMessage(
                    channel=outgoing.target.code,
                    text=text,
                    blocks=blocks,
                    thread_ts=thread or None,
                    metadata=_metadata(outgoing.id),
                    unfurl_links=False,
                    unfurl_media=False,
                    link_names=False,
                )
            )

        try:
            answer = post()
        except PermanentDeliveryError as error:
            if not thread or error.code not in _THREAD_GONE:
                raise
            thread = ""  # open a new one
            answer = post()
        posted_as = answer.get("ts")
        if not isinstance(posted_as, str) or not posted_as:
            raise UnknownOutcome("Slack answered ok without a time stamp", code="odd_answer")
        return Receipt(platform_message_id=posted_as, thread=thread or posted_as)

    def find(self, lookup: Lookup) -> Receipt | None:
        if lookup.outgoing.change:
            return None  # repeating a change is safe
        client = _client(lookup.outgoing.target, None)
        wanted = str(lookup.outgoing.id)
        cursor = lookup.cursor
        for _ in range(_MOST_PAGES):
            page = _page(client, lookup, cursor)
            for message in page.get("messages") or ():
                if _metadata_id(message) == wanted:
                    return Receipt(message["ts"], message.get("thread_ts") or message["ts"])
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return None
        raise LookupPaused("the history is long", code="history_long", retry_after=1, cursor=cursor)

    def hear(self, headers: Mapping[str, str], body: bytes, *, installation_id: UUID | None = None) -> Heard:
        return slack_events.events(headers, body, installation_id=installation_id)

    def hear_press(self, headers: Mapping[str, str], body: bytes) -> Heard:
        return slack_events.presses(headers, body)

    def open_form(self, asked: FormPress, form: Form) -> None:
        press = asked.press
        target = Target(press.org_id, self.name, press.code, data={"team_id": press.team})
        client = _client(target, None)
        client.seconds = _FORM_SECONDS
        _call(lambda: client.views_open(trigger_id=asked.ticket, view=slack_forms.view(form, asked.context)))

    def refusal(self, complaint: str) -> Mapping[str, Any]:
        return slack_forms.refusal(complaint)


# --- Calling ---------------------------------------------------------------------------------------------------
class _Client(WebClient):
    """slack_sdk's client over our own transport."""

    before_post: Callable[[], None] | None = None
    seconds: float | None = None

    def _perform_urllib_http_request_internal(self, url: str, req: Request) -> dict[str, Any]:
        answer = requests_client.post(
            url,
            body=req.data if isinstance(req.data, bytes) else b"",
            headers={name: str(value) for name, value in req.header_items()},
            is_guarded=url.startswith(_OWN),
            before_post=self.before_post,
            seconds=self.seconds,
        )
        if not answer.is_whole:
            raise requests_client.NoAnswer("the answer is incomplete")
        return {
            "status": answer.status,
            "headers": answer.headers,
            "body": answer.body.decode("utf-8", "replace"),
        }


_TEAMS = "SELECT team_id FROM channels_integration_installation WHERE org_id = %(org)s LIMIT 100"
_OF_TARGET = "org_id = %(org)s AND (%(team)s = '' OR team_id = %(team)s) ORDER BY created_at"
_quiet = logging.getLogger("channels_integration.slack_sdk")
_quiet.setLevel(logging.CRITICAL)


def _client(target: Target, before_post: Callable[[], None] | None) -> _Client:
    where = {"org": target.org_id, "team": target.data.get("team_id") or ""}
    installation = prepared_sql.instance(Installation, _OF_TARGET, where)
    if installation is None:
        raise PermanentDeliveryError("Slack is not installed any more", code="not_installed")
    try:
        token = installation.opened("sealed_bot_token")
    except SealingError as error:
        raise TemporaryDeliveryError(error.message, code="secret_unreadable") from error
    client = _Client(token=token, base_url=settings.SLACK_API_URL, retry_handlers=[], logger=_quiet)
    client.before_post = before_post
    return client


def _change(outgoing: Outgoing, change: Change, before_post: Callable[[], None]) -> Receipt:
    if not change.posted_as:
        raise PermanentDeliveryError("the message was not posted", code="message_not_found")
    client = _client(outgoing.target, before_post)
    _call(
        lambda: client.chat_update(
            channel=outgoing.target.code,
            ts=change.posted_as,
            text=f"{slack_text.short(outgoing.text)}\n\n{slack_blocks.line(change)}",
            blocks=slack_blocks.changed(outgoing, change),
            metadata=_metadata(change.of),
            link_names=False,
        )
    )
    return Receipt(platform_message_id=change.posted_as)


def _metadata(message_id: UUID) -> dict[str, Any]:
    return {"event_type": EVENT_TYPE, "event_payload": {"id": str(message_id)}}


def _call(call: Callable[[], Any]) -> dict[str, Any]:
    """One call of the Web API. Raises DeliveryError."""
    try:
        answer = call().data
    except requests_client.NotConnected as error:
        raise TemporaryDeliveryError(str(error), code="slack_unreachable") from error
    except requests_client.HttpError as error:
        raise UnknownOutcome(str(error), code="no_answer") from error
    except SlackApiError as error:
        raise _refusal(error) from error
    except (SlackClientError, AttributeError, TypeError, ValueError) as error:
        raise UnknownOutcome(f"unreadable answer: {type(error).__name__}", code="odd_answer") from error
    return answer if isinstance(answer, dict) else {}


def _refusal(error: SlackApiError) -> DeliveryError:
    status = int(error.response.status_code)
    content = error.response.data if isinstance(error.response.data, dict) else {}
    code = str(content.get("error", ""))
    if status == 429 or code in _RATE_LIMITS:
        wait = _retry_after(error.response.headers)
        return TemporaryDeliveryError("Slack's rate limit is reached", code="ratelimited", retry_after=wait)
    is_named = re.fullmatch(r"[a-z][a-z0-9_]{1,60}", code) is not None
    if status != 200 and not (is_named and 400 <= status < 500):
        return UnknownOutcome(f"Slack answered {status}", code=f"http_{status}")
    if not is_named or code in _MAY_HAVE_POSTED:
        return UnknownOutcome(f"Slack answered {code[:80] or 'nothing'}", code=code if is_named else "odd_answer")
    if code in _PASSES:
        return TemporaryDeliveryError(f"Slack answered {code}", code=code)
    return PermanentDeliveryError(f"Slack answered {code}", code=code)


def _page(client: _Client, lookup: Lookup, cursor: str) -> dict[str, Any]:
    """A page of the channel's history, or of the thread's replies; of the history, too, if the thread is gone."""
    asked: dict[str, Any] = {
        "channel": lookup.outgoing.target.code,
        "oldest": f"{lookup.since.timestamp() - 5:.6f}",
        "limit": _PAGE,
        "include_all_metadata": True,
        "cursor": cursor or None,
    }
    try:
        if lookup.thread:
            try:
                return _call(lambda: client.conversations_replies(ts=lookup.thread, **asked))
            except PermanentDeliveryError as error:
                if cursor or error.code != "thread_not_found":
                    raise
        return _call(lambda: client.conversations_history(**asked))
    except TemporaryDeliveryError as error:
        if error.retry_after is None:
            raise
        # Apps outside the Marketplace get one page a minute: continue from here, not from the start.
        raise LookupPaused(str(error), code=error.code, retry_after=error.retry_after, cursor=cursor) from error
    except UnknownOutcome as error:
        # A look-up changes nothing, so repeating it is safe.
        raise TemporaryDeliveryError(str(error), code=error.code) from error
    except PermanentDeliveryError as error:
        if error.code in ("invalid_cursor", "thread_not_found"):
            raise TemporaryDeliveryError(str(error), code=error.code) from error
        raise


def _retry_after(headers: Mapping[str, Any]) -> float:
    for name, value in headers.items():
        if name.lower() == "retry-after":
            stated = str(value[0] if isinstance(value, list) else value)
            return float(stated[:6]) if stated.isascii() and stated.isdigit() else _DEFAULT_RETRY_AFTER
    return _DEFAULT_RETRY_AFTER


def _metadata_id(message: Any) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("ts"), str):
        return ""
    metadata = message.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("event_type") != EVENT_TYPE:
        return ""
    payload = metadata.get("event_payload")
    return str(payload.get("id", "")) if isinstance(payload, dict) else ""
