"""Slack's modals: a form with one text, and its submission. Limits are Slack's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from channels_integration.messages import MOST_FORM_TEXT, Form, Incoming
from infra.storable_text import storable

# The answer to a form that we accept, or that is not ours.
CLOSED: Mapping[str, Any] = {"response_action": "clear"}
_OURS = "agent_jobs_form"
_NAME = "text"  # of the input, and of its block
_MOST_TITLE = 24
_MOST_NOTICE = 3_000
_MOST_LABEL = 2_000
_MOST_COMPLAINT = 500


@dataclass(frozen=True, slots=True)
class SentBack:
    """A submitted form. `context` wrote `value`, `channel` and `org_id`.

    Somebody who could make Slack sign other values could also press any button.
    """

    id: str
    text: str
    value: str
    channel: str
    org_id: str


def context(press: Incoming) -> str:
    """The form's private metadata, which its sender cannot see (3,000 characters at most)."""
    return json.dumps({"value": press.text[:1_000], "channel": press.code, "org_id": press.org_id})


def view(form: Form, context: str) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [{"type": "section", "text": _plain(form.notice, _MOST_NOTICE)}]
    shown = {
        "type": "modal",
        "callback_id": _OURS,
        "private_metadata": context,
        "title": _plain(form.title, _MOST_TITLE),
        "close": _plain("Close" if form.text is None else "Cancel", _MOST_TITLE),
        "blocks": blocks,
    }
    if form.text is None:
        return shown
    entry = {
        "type": "plain_text_input",
        "action_id": _NAME,
        "multiline": True,
        "initial_value": form.text,
        "max_length": MOST_FORM_TEXT,
    }
    blocks.append({"type": "input", "block_id": _NAME, "label": _plain(form.label, _MOST_LABEL), "element": entry})
    return shown | {"submit": _plain(form.submit, _MOST_TITLE)}


def read(sent: Any) -> SentBack | None:
    """Read a submitted view; None where it is not ours."""
    if not isinstance(sent, dict) or sent.get("callback_id") != _OURS:
        return None
    try:
        carried = storable(json.loads(sent["private_metadata"]))
        text = sent["state"]["values"][_NAME][_NAME]["value"]
        found = SentBack(str(sent.get("id", "")), text, carried["value"], carried["channel"], carried["org_id"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    words = (found.text, found.value, found.channel, found.org_id)
    return found if all(isinstance(word, str) for word in words) else None


def refusal(complaint: str) -> dict[str, Any]:
    return {"response_action": "errors", "errors": {_NAME: complaint[:_MOST_COMPLAINT]}}


def _plain(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": text if len(text) <= most else f"{text[: most - 1]}…", "emoji": False}
