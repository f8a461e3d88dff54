"""Reads JSON and tool calls that models write as text: in fences, with raw line breaks, or in markup.

Small and open models often write a call into their text, each family in its own markup. A text that consists of calls
only is read as these calls. If other words surround the markup, the model is told, and people never see it.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agent_jobs.llm.base import RESPOND

_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)
# `<tool_call>{…}</tool_call>` of Qwen and Hermes, `<function=name>…</function>` of Llama and Qwen Coder.
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([\w.-]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([\w.-]+)>(.*?)</parameter>", re.DOTALL)
# The tokens with which Mistral, Llama 3 and others begin calls, and those that end Llama's.
_OPENING = re.compile(r"\A(?:\[TOOL_CALLS\]|<\|(?:python_tag|tool_call)\|>)|<\|(?:eom_id|eot_id|/tool_call)\|>\Z")
_MARKUP = re.compile(
    r"<tool_calls?[\s>]|<function=|<function_calls?[\s>]|<invoke name=|\[TOOL_CALLS\]|```tool_code"
    r"|<[|｜](?:tool[_▁]call|python_tag|channel[|])"  # DeepSeek, Kimi and gpt-oss among them
)
_RESPONSE = {"say", "next", "result", "result_data"}
_ARGUMENTS = ("arguments", "parameters", "input")
_BESIDE_ARGUMENTS = {"name", "id", "type"}
_EXCERPT = 80
_MEND = f"Do not write calls as text: call {RESPOND} or another tool."


class Misread(Exception):
    """An answer that cannot be read: why, within a sentence, and how the model should correct it."""

    def __init__(self, why: str, mend: str = "Answer again.") -> None:
        super().__init__(why)
        self.mend = mend


@dataclass(frozen=True, slots=True)
class TextToolCall:
    """A call as the model wrote it: `arguments` is JSON text, or already decoded."""

    id: str
    name: str
    arguments: str | Mapping[str, Any] | None


def object_of(raw: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Decode a JSON object. Raises Misread.

    Repairs a fence around it, raw control characters in its strings, and JSON encoded twice.
    """
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return {}
    value = _json(raw) if isinstance(raw, str) else raw
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, Mapping):
        raise Misread(f"are a JSON {_KINDS.get(type(value), 'value')}, and have to be an object")
    return dict(value)


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _json(text: str) -> Any:
    text = text.strip().removeprefix("\ufeff").strip()
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1].strip()
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        begin = max(0, error.pos - _EXCERPT)
        excerpt = json.dumps(text[begin : error.pos + _EXCERPT], ensure_ascii=False)
        raise Misread(f"are not JSON: {error.msg} at character {error.pos} of {len(text)}, near {excerpt}") from None
    except RecursionError:
        raise Misread("are nested too deep") from None
    except ValueError:  # Python converts no number of more than 4,300 digits
        raise Misread("hold a number with too many digits") from None


def calls(text: str, offered: Collection[str]) -> tuple[TextToolCall, ...]:
    """The calls that a text consists of; none if it is a text for people.

    Raises Misread if it looks like a call, but cannot be made.
    """
    if not text:
        return ()
    fenced = _FENCE.fullmatch(text)
    found = _tagged(text) or _bare(fenced[1] if fenced else _OPENING.sub("", text))
    if found:
        for call in found:
            if call.name not in offered:
                raise Misread(f"there is no tool {call.name[:64]!r}", f"The tools are: {', '.join(sorted(offered))}.")
        return tuple(found)
    if _MARKUP.search(text) or any(_bare(block) for block in _FENCE.findall(text)):
        raise Misread("a call was written as text", _MEND)
    return ()


def _tagged(text: str) -> list[TextToolCall]:
    """Calls in markup, if the text has nothing else."""
    if "<tool_call>" in text and not _TAGGED.sub("", text).strip():
        bodies = _TAGGED.findall(text)
        return [call for body in bodies for call in _tagged(body.strip()) or _bare(body) or _unreadable()]
    if "<function=" in text and not _FUNCTION.sub("", text).strip():
        return [TextToolCall("", name, _parameters(body)) for name, body in _FUNCTION.findall(text)]
    return []


def _parameters(body: str) -> str | Mapping[str, Any]:
    found = _PARAMETER.findall(body)
    return {name: _loosely(value.strip("\n")) for name, value in found} if found else body


def _loosely(value: str) -> Any:
    """Strings may lack quotes; everything else is JSON."""
    try:
        return json.loads(value) if value[:1] in "[{" else value
    except (ValueError, RecursionError):
        return value


def _unreadable() -> list[TextToolCall]:
    raise Misread("a call was written as text, and cannot be read", _MEND)


def _bare(text: str) -> list[TextToolCall]:
    """A JSON object that is a call, or a list of such objects. Raises Misread if it is broken."""
    text = text.strip()
    if text[:1] not in ("{", "["):
        return []
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        if text[:1] == "{" and re.search(r'"(say|next|arguments)"\s*:', text):
            _unreadable()
        return []
    entries = value if isinstance(value, list) else [value]
    if len(entries) == 1 and isinstance(entries[0], dict) and isinstance(entries[0].get("tool_calls"), list):
        entries = entries[0]["tool_calls"]
    found = [_call_of(entry) for entry in entries]
    return [call for call in found if call] if found and all(found) else []


def _call_of(value: Any) -> TextToolCall | None:
    if not isinstance(value, dict):
        return None
    if value.keys() & {"say", "next"} and value.keys() <= _RESPONSE:
        return TextToolCall("", RESPOND, value)
    if isinstance(inner := value.get("function"), dict):
        value = inner
    name, under = value.get("name"), [key for key in _ARGUMENTS if key in value]
    if not isinstance(name, str) or len(under) != 1 or not value.keys() <= {*_BESIDE_ARGUMENTS, *under}:
        return None
    arguments = value[under[0]]
    return TextToolCall("", name, arguments) if isinstance(arguments, str | dict | None) else None
