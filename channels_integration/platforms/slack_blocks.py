"""Slack's Block Kit: a message with buttons, and its text after a press. Limits are Slack's own.

Blocks hold the words of people and agents as plain messages do: escaped and `verbatim`, so that no word becomes a
mention or a link. We make mentions ourselves, from ids only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from channels_integration.messages import Button, Change, Outgoing, PermanentDeliveryError
from channels_integration.platforms.slack_text import escaped, is_person, longest

MOST_SECTION = 3_000
# Characters of all sections. Slack refuses more than about 13,000 (`msg_blocks_too_long`, bolt-js#2867), and documents
# no limit.
_MOST_OF_ALL = 12_000
_MOST_BUTTONS = 20  # 25 in one block of them
_MOST_LABEL = 75
_MOST_VALUE = 2_000
_MOST_LINE = 2_000


def with_buttons(outgoing: Outgoing) -> list[dict[str, Any]]:
    """The blocks of a message with buttons. `block_id` is the message's own id, and comes back with a press.

    Raises PermanentDeliveryError.
    """
    if len(outgoing.buttons) > _MOST_BUTTONS or any(len(button.value) > _MOST_VALUE for button in outgoing.buttons):
        raise PermanentDeliveryError("Slack cannot show such buttons", code="buttons_too_large")
    elements = [_button(number, button) for number, button in enumerate(outgoing.buttons)]
    return [*_sections(outgoing.text), {"type": "actions", "block_id": str(outgoing.id), "elements": elements}]


def changed(outgoing: Outgoing, change: Change) -> list[dict[str, Any]]:
    note = {"type": "mrkdwn", "text": line(change), "verbatim": True}
    return [*_sections(outgoing.text), {"type": "context", "elements": [note]}]


def line(change: Change) -> str:
    """The line that a change appends; it mentions the person if their id is known. Slack notifies nobody of an edit."""
    person = f"<@{change.person}>" if is_person(change.person) else escaped(change.person)
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
    shown: list[str] = []
    room = _MOST_OF_ALL
    for piece in _pieces(text):
        room -= len(piece)
        if room < 0:
            shown.append("… (the rest is not shown)")
            break
        shown.append(piece)
    return [{"type": "section", "text": {"type": "mrkdwn", "text": piece, "verbatim": True}} for piece in shown]


def _pieces(text: str) -> Iterator[str]:
    """The escaped text in pieces that fit into a section, cut at a line's end or a space where there is one."""
    while text:
        size = longest(text, MOST_SECTION)
        if size < len(text):
            breaks = max(text.rfind("\n", 1, size), text.rfind(" ", 1, size))
            size = breaks + 1 if breaks > size // 2 else size
        if text[:size].strip():
            yield escaped(text[:size])
        text = text[size:]
