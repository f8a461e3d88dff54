"""The text of an approval question.

It shows everything that is approved; invisible characters appear as escapes. If a question is too long for a message,
it says so and only the API can approve it: pressing *Approve* is refused.
"""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from agent_jobs.models import Approval
from agent_jobs.tools.types import Declared
from channels_integration.platforms.slack_text import longest, size

NOT_WHOLE = "Not all of this is shown here"
# Slack refuses some long messages with `msg_blocks_too_long` but documents no limit; this is far below it.
_MOST_CHARACTERS = 7_500
# Long texts among the arguments are shortened to each of these in turn, until the question fits.
_SHORTER = (2_000, 1_000, 500, 250, 100)
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
# Blank letters, a joiner, and variation selectors except the one for coloured emoji.
_INVISIBLE = {*map(chr, (0x034F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE0F)))}
_INVISIBLE |= {chr(selector) for selector in (*range(0x180B, 0x1810), *range(0xE0100, 0xE01F0))}


def worded(tool: Declared, arguments: Mapping[str, Any], *, address: str) -> str:
    """The question. `address` is where people read and approve the whole of it if it does not fit."""
    whole = _said_of(tool, arguments)
    if size(whole) <= _MOST_CHARACTERS:
        return whole
    shown = ""
    for most in _SHORTER:
        shown = _said_of(tool, _shortened(arguments, most))
        if size(shown) <= _MOST_CHARACTERS:
            break
    else:
        shown = _cut(shown, _MOST_CHARACTERS)
    return (
        f"{shown}\n\n{NOT_WHOLE}: it has {len(whole):,} characters. The whole is at GET {address}."
        " It can be denied here, and approved by API alone."
    )


def is_whole(approval: Approval) -> bool:
    """Whether the question shows everything that is approved."""
    return NOT_WHOLE not in approval.question


def visible(text: str) -> str:
    """Escape invisible characters and those that reorder visible text. JSON text keeps its meaning.

    `"a\u202eb"` in JSON for an `a`, a right-to-left override and a `b`.
    """
    return "".join(json.dumps(each)[1:-1] if _is_invisible(each) else each for each in text)


def _is_invisible(character: str) -> bool:
    if character in "\n\t" or " " <= character <= "~":
        return False
    return character in _INVISIBLE or unicodedata.category(character) in _INVISIBLE_CATEGORIES


def _said_of(tool: Declared, arguments: Mapping[str, Any]) -> str:
    if tool.kind == "ask_approval":
        return visible(f"{arguments['question']}\n{arguments.get('details') or ''}".strip())
    return f"May I use {tool.name}?\n{visible(json.dumps(arguments, ensure_ascii=False, indent=1, sort_keys=True))}"


def _shortened(value: Any, most: int) -> Any:
    """Cut the middle of long texts and say so: the end of a script matters as much as its beginning."""
    match value:
        case str():
            return _cut(value, most)
        case Mapping():
            return {key: _shortened(item, most) for key, item in value.items()}
        case list() | tuple():
            return [_shortened(item, most) for item in value]
    return value


def _cut(text: str, most: int) -> str:
    """Keep about `most` characters of a text, as Slack counts them: most of them from its beginning."""
    if size(text) <= most:
        return text
    head, tail = longest(text, most * 3 // 5), longest(text[::-1], most * 2 // 5)
    return f"{text[:head]} … [{len(text) - head - tail:,} characters are not shown] … {text[len(text) - tail :]}"
