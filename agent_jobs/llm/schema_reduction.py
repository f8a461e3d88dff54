"""Reduces JSON schemas to what providers accept. The service checks arguments and results by the whole schema later.

OpenAI and Anthropic refuse a request if any tool's schema has anyOf, oneOf, allOf, not or enum at its top. So one tool
of an unusual MCP server would fail every job of a type. Providers differ and change their rules, so all of them get
what every one accepts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent_jobs.llm.base import Tool

_COMBINED = ("allOf", "anyOf", "oneOf")
_FOLDED = (*_COMBINED, "not", "enum", "const", "if", "then", "else")
_DEFINITIONS = ("$defs", "definitions")
# OpenAI's limit for the description of a tool.
MAX_DESCRIPTION = 1_024
# Anthropic's rule for names of arguments.
_ARGUMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def of_tool(tool: Tool) -> Tool:
    """The tool with a plain object as its schema; the description states the removed rules."""
    schema = _without_reference(tool.parameters)
    told = {key: schema[key] for key in _FOLDED if key in schema}
    fitted = {key: value for key, value in schema.items() if key not in told}
    properties = dict(fitted.get("properties") or {})
    required = list(fitted.get("required") or ())
    for key in _COMBINED:
        for member in told.get(key) or ():
            member = _without_reference({**_definitions(schema), **member}) if isinstance(member, Mapping) else {}
            for name, value in (member.get("properties") or {}).items():
                if _ARGUMENT.fullmatch(name):
                    properties.setdefault(name, value)
            if key == "allOf":
                required += [name for name in member.get("required") or () if name not in required]
    fitted |= {"type": "object", "properties": properties}
    if required:
        fitted["required"] = required
    return replace(tool, description=_described(tool.description, told), parameters=fitted)


def _described(description: str, told: Mapping[str, Any]) -> str:
    """The description with these rules. Where both do not fit, each keeps at least half of the room."""
    rules = json.dumps(told, ensure_ascii=False, default=str)
    added = f"\nThe arguments also have to fit: {rules}" if told else ""
    description = _cut(description, max(MAX_DESCRIPTION - len(added), MAX_DESCRIPTION // 2))
    return description + _cut(added, MAX_DESCRIPTION - len(description))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def below(schema: Mapping[str, Any], *pointer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema to embed in another one at `pointer`, and the definitions that the outer root needs for it."""
    inner = {key: value for key, value in schema.items() if key not in (*_DEFINITIONS, "$schema", "$id")}
    prefix = "".join(f"/{part}" for part in pointer)
    return _moved(inner, prefix), _moved(_definitions(schema), prefix)


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in _DEFINITIONS if isinstance(schema.get(key), Mapping)}


def _without_reference(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with a `$ref` at its root resolved. Other references stay, with their definitions."""
    found = dict(schema)
    for _ in range(8):
        reference = found.pop("$ref", None)
        if not isinstance(reference, str):
            break
        target: Any = schema
        for part in reference.removeprefix("#").strip("/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, Mapping) else None
        if isinstance(target, Mapping):
            found = {**target, **found}
    return found


def _moved(node: Any, prefix: str) -> Any:
    """References into definitions stay, because definitions move to the new root; all others get the prefix."""
    if isinstance(node, Mapping):
        moved = {key: _moved(value, prefix) for key, value in node.items()}
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            is_definition = reference.startswith(tuple(f"#/{name}/" for name in _DEFINITIONS))
            moved["$ref"] = reference if is_definition else f"#{prefix}{reference[1:]}"
        return moved
    return [_moved(item, prefix) for item in node] if isinstance(node, list) else node
