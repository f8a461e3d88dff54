"""The text of a message as Slack takes it: escaped, Markdown as mrkdwn, and in parts of a size that Slack takes whole.

Agents and templates write Markdown. Slack reads only <…> as a mention or a link, so no escaped word calls anybody. We
write <…> ourselves in two cases: links of Markdown, and mentions of people and channels that the message may mention.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

# Slack recommends at most 4,000 characters in a text, refuses more in chat.update, and cuts a post at 40,000. It counts
# after escaping. The rest is for what converting Markdown may add.
MOST_CHARACTERS = 3_900
_MOST_SHORT = 1_000
_FENCE = "```"
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_LANGUAGE = re.compile(r"\A```[\w+#.-]{1,30}\n")
_PERSON = re.compile(r"[UW][A-Z0-9]{2,30}\Z")
_MENTION = re.compile(r"&lt;([@#])([UWCG][A-Z0-9]{2,30})&gt;")
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S[^\n]*)$", re.MULTILINE)
_BULLET = re.compile(r"^([ \t]*)[*+][ \t]+(?=\S)", re.MULTILINE)
_LINK = re.compile(
    r"!?\[([^\[\]\n]+)\]"
    r"\(((?:https?://|mailto:)[^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)*)(?:[ \t]+\"[^\"\n]*\")?\)"
)
_LIKE_AN_ADDRESS = re.compile(r"\S\.\S|://|@")
_BOLD_ITALIC = re.compile(r"\*\*\*([^\s*](?:[^\n*]*[^\s*])?)\*\*\*")
_BOLD = re.compile(r"\*\*([^\s*](?:[^\n*]*[^\s*])?)\*\*")
_STRUCK = re.compile(r"~~([^\s~](?:[^\n~]*[^\s~])?)~~")


def escaped(text: str) -> str:
    """Slack reads only <…> as a mention or a link, so an escaped `<!channel>` calls nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def is_person(text: str) -> bool:
    """Whether the text is the id of a member of Slack."""
    return _PERSON.match(text) is not None


def mrkdwn(text: str, mentions: Collection[str] = ()) -> str:
    """Convert Markdown, outside of code. `mentions` are the ids that `<@U…>` and `<#C…>` may name."""
    pieces = _CODE.split(text)
    return "".join(_code(piece) if at % 2 else _prose(piece, mentions) for at, piece in enumerate(pieces))


def short(text: str) -> str:
    """Escape the beginning of a text: the notification of a message whose blocks show all of it."""
    return escaped(text if size(text) <= _MOST_SHORT else f"{text[: longest(text, _MOST_SHORT - 1)]}…")


def size(text: str) -> int:
    """The length as Slack counts it: after escaping."""
    return len(text) + 4 * text.count("&") + 3 * (text.count("<") + text.count(">"))


def longest(text: str, most: int) -> int:
    """The number of characters of a text that fit."""
    for at, character in enumerate(text):
        most -= size(character)
        if most < 0:
            return at
    return len(text)


def parts(text: str) -> Iterator[str]:
    """Split a text into messages, at paragraphs where possible, else at lines, spaces, or anywhere.

    A block of code that is cut is closed in its part and opened again in the next.
    """
    is_code = False
    while size(text) > MOST_CHARACTERS - len(_FENCE) * is_code:
        most = longest(text, MOST_CHARACTERS - 2 * len(_FENCE) - 2)
        cut = _break(text, most)
        part = text[:cut].rstrip()
        begins = f"{_FENCE}\n" if is_code else ""
        is_code ^= part.count(_FENCE) % 2 == 1
        text = text[cut:].lstrip("\n" if is_code else None)
        if part:
            yield f"{begins}{part}\n{_FENCE}" if is_code else f"{begins}{part}"
    if text:
        yield f"{_FENCE}\n{text}" if is_code else text


def _break(text: str, most: int) -> int:
    """The best place for a cut within the first `most` characters, not in their first half."""
    for separator in ("\n\n", "\n", ". ", " "):
        if (at := text.rfind(separator, most // 2, most)) >= 0:
            return at + len(separator)
    return most


def _code(piece: str) -> str:
    """Slack shows the language of a block as its first line."""
    return escaped(_LANGUAGE.sub(f"{_FENCE}\n", piece))


def _prose(piece: str, mentions: Collection[str]) -> str:
    text = _HEADING.sub(lambda found: f"*{found[1].replace('**', '').rstrip(' #')}*", escaped(piece))
    text = _BULLET.sub(r"\1• ", text)
    text = _BOLD_ITALIC.sub(r"*_\1_*", text)
    text = _BOLD.sub(r"*\1*", text)
    text = _STRUCK.sub(r"~\1~", text)
    text = _LINK.sub(_link, text)
    return _MENTION.sub(lambda found: _mention(found, mentions), text)


def _link(found: re.Match[str]) -> str:
    """A label that looks like an address does not hide the true one."""
    label, address = found[1], found[2]
    if "|" in label + address or (_LIKE_AN_ADDRESS.search(label) and label != address):
        return f"{label} ({address})"
    return f"<{address}|{label}>"


def _mention(found: re.Match[str], mentions: Collection[str]) -> str:
    sign, stated = found[1], found[2]
    is_sound = is_person(stated) == (sign == "@")
    return f"<{sign}{stated}>" if stated in mentions and is_sound else found[0]
