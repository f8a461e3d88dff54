"""The words of a person's message in Slack, as an agent reads them.

Slack writes links and mentions as markup (`<https://…|label>`, `<@U…>`), and puts files and forwarded messages beside
the text. All of it becomes plain text here. `slack_files` fetches the texts of small files; of other text files we have
the beginning that Slack puts into the event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

WORDLESS = "(a message without text)"
_MOST_FILES = 10
_MOST_ATTACHMENTS = 10
_MOST_PREVIEW = 4_000
_MOST_TEXT = 20_000
_MOST_BLOCKS = 200
_MARKUP = re.compile(r"<([^<>\s][^<>\n]*)>")
_UNITS = ("bytes", "kB", "MB", "GB")


def words(message: Mapping[str, Any], texts: Mapping[str, str] = MappingProxyType({})) -> str:
    """Text, forwarded messages and files of a message; WORDLESS if it has none of them. `texts` are of files, by id."""
    pieces = [_text(message), *_forwarded(message), *_files(message, texts)]
    return "\n".join(piece for piece in pieces if piece) or WORDLESS


def plain(text: str) -> str:
    """Resolve Slack's markup, then its entities: `&lt;@U1&gt;` was typed, `<@U1>` is a mention."""
    return _unescaped(_MARKUP.sub(lambda found: _resolved(found[1]), text))


def _text(message: Mapping[str, Any]) -> str:
    text = message.get("text")
    if isinstance(text, str) and text.strip():
        return plain(text)
    return plain("".join(_of_blocks(message.get("blocks"), [_MOST_BLOCKS]))).strip()


def _of_blocks(value: Any, left: list[int]) -> Iterator[str]:
    """The texts in blocks of any kind, at most as many parts as are `left`."""
    left[0] -= 1
    if left[0] < 0:
        return
    if isinstance(value, list):
        for item in value:
            yield from _of_blocks(item, left)
    elif isinstance(value, Mapping):
        kind, text = value.get("type"), value.get("text")
        if isinstance(text, str):
            yield text
        elif kind == "link" and isinstance(value.get("url"), str):
            yield value["url"]
        elif kind in ("user", "channel") and isinstance(value.get(f"{kind}_id"), str):
            yield f"{'@' if kind == 'user' else '#'}{value[f'{kind}_id']}"
        else:
            for name in ("text", "elements", "fields"):
                yield from _of_blocks(value.get(name), left)
            yield "\n" if kind in ("section", "rich_text_section", "header") else ""


def _forwarded(message: Mapping[str, Any]) -> Iterator[str]:
    """Messages that the person forwarded. Previews of links are no words of theirs."""
    for attachment in _objects(message.get("attachments"), _MOST_ATTACHMENTS):
        if not (attachment.get("is_share") or attachment.get("is_msg_unfurl")):
            continue
        said = _text(attachment) or plain(_string(attachment, "fallback"))
        author = _string(attachment, "author_name") or _string(attachment, "author_id") or "somebody"
        yield "\n".join((f"(forwarded from {author}:) {said}".strip(), *_files(attachment, {})))


def _files(message: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    for file in _objects(message.get("files"), _MOST_FILES):
        name = _string(file, "name") or _string(file, "title") or _string(file, "id") or "without a name"
        if file.get("mode") == "tombstone":
            yield "(file: deleted)"
            continue
        kind = _string(file, "mimetype") or _string(file, "filetype")
        shown = ", ".join(fact for fact in (name, kind, _size(file.get("size"))) if fact)
        yield f"(file: {shown})"
        whole, preview = texts.get(_string(file, "id"), ""), _string(file, "preview")
        text, most = (whole, _MOST_TEXT) if whole else (preview, _MOST_PREVIEW)
        if text.strip():
            is_cut = len(text) > most or (
                not whole and bool(file.get("preview_is_truncated") or file.get("lines_more"))
            )
            yield f"(its {'beginning' if is_cut else 'text'}:)\n{text[:most].strip()}"


def _resolved(markup: str) -> str:
    target, _, label = markup.partition("|")
    if target[:1] == "@":
        return f"@{label or target[1:]}"
    if target[:1] == "#":
        return f"#{label or target[1:]}"
    if target[:1] == "!":
        return _special(target[1:], label)
    scheme, _, rest = target.partition(":")
    if scheme in ("mailto", "tel"):
        return rest if label in ("", rest) else f"{label} ({rest})"
    return target if not label or target.endswith(f"://{label}") or target == label else f"{label} ({target})"


def _special(target: str, label: str) -> str:
    """`<!here>`, `<!subteam^S1|@team>`, `<!date^…|fallback>`."""
    return label or f"@{target.partition('^')[2] or target}"


def _size(stated: Any) -> str:
    if not isinstance(stated, int | float) or isinstance(stated, bool) or not 0 <= stated < 1e15:
        return ""
    size, unit = float(stated), 0
    while size >= 1_000 and unit < len(_UNITS) - 1:
        size, unit = size / 1_000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if size >= 10 or not unit else f"{size:.1f} {_UNITS[unit]}"


def _objects(value: Any, most: int) -> list[Mapping[str, Any]]:
    return [item for item in value[:most] if isinstance(item, Mapping)] if isinstance(value, list) else []


def _string(holder: Mapping[str, Any], name: str) -> str:
    found = holder.get(name)
    return found if isinstance(found, str) else ""


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
