"""Slack's Block Kit: a message with buttons, and its text after a press. Limits are Slack's own.

Blocks hold the words of people and agents as plain messages do: escaped and `verbatim`, so that no word becomes a
mention or a link. We make mentions ourselves, from ids only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from channels_integration.messages import Button, Change, Outgoing, PermanentDeliveryError

MOST_SECTION = 3_000
_MOST_SECTIONS = 40  # 50 blocks in a message
_MOST_BUTTONS = 20  # 25 in one block of them
_MOST_LABEL = 75
_MOST_VALUE = 2_000
_MOST_LINE = 2_000
_PERSON = re.compile(r"[UW][A-Z0-9]{2,30}\Z")


def escaped(text: str) -> str:
    """Slack reads only <…> as a mention or a link, so an escaped `<!channel>` calls nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def with_buttons(outgoing: Outgoing) -> list[dict[str, Any]]:
    """`block_id` is the message's own id, and comes back with a press. Raises PermanentDeliveryError."""
    if len(outgoing.buttons) > _MOST_BUTTONS or any(len(button.value) > _MOST_VALUE for button in outgoing.buttons):
        raise PermanentDeliveryError("Slack cannot show such buttons", code="buttons_too_large")
    elements = [_button(number, button) for number, button in enumerate(outgoing.buttons)]
    return [*_sections(outgoing.text), {"type": "actions", "block_id": str(outgoing.id), "elements": elements}]


def changed(outgoing: Outgoing, change: Change) -> list[dict[str, Any]]:
    note = {"type": "mrkdwn", "text": line(change), "verbatim": True}
    return [*_sections(outgoing.text), {"type": "context", "elements": [note]}]


def line(change: Change) -> str:
    """The line that a change appends; it mentions the person if their id is known. Slack notifies nobody of an edit."""
    person = f"<@{change.person}>" if _PERSON.match(change.person) else escaped(change.person)
    return f"{escaped(change.line)[:_MOST_LINE]} {person}".strip()


def _button(number: int, button: Button) -> dict[str, Any]:
    label = button.label if len(button.label) <= _MOST_LABEL else f"{button.label[: _MOST_LABEL - 1]}…"
    return {
        "type": "button",
        "action_id": f"press-{number}",
        "text": {"type": "plain_text", "text": label, "emoji": False},
        "value": button.value,
    }


def _sections(text: str) -> list[dict[str, Any]]:
    pieces = list(_pieces(text))
    if len(pieces) > _MOST_SECTIONS:
        pieces = [*pieces[: _MOST_SECTIONS - 1], "…"]
    return [{"type": "section", "text": {"type": "mrkdwn", "text": piece, "verbatim": True}} for piece in pieces]


def _pieces(text: str) -> Iterator[str]:
    """The escaped text in pieces that fit into a section, cut at a line's end or a space where there is one."""
    while text:
        size = min(len(text), MOST_SECTION)
        while len(escaped(text[:size])) > MOST_SECTION:
            size -= max(1, (len(escaped(text[:size])) - MOST_SECTION) // 4)
        if size < len(text):
            breaks = max(text.rfind("\n", 1, size), text.rfind(" ", 1, size))
            size = breaks + 1 if breaks > size // 2 else size
        if text[:size].strip():
            yield escaped(text[:size])
        text = text[size:]
