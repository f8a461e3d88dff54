"""A form made from a JSON Schema of an object: what to draw for each property, and how to read what was sent.

Texts, numbers, flags and choices have fields of their own. Everything else is edited as JSON. The service checks the
values against the schema; this module only finds out their types.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_jobs.errors import FieldError, Invalid

MOST_FIELDS = 60
PREFIX = "arg."


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of a form. `kind`: text, long, number, flag, choice, json. `was`: the value before a change, as the
    form shows it.
    """

    name: str
    label: str
    kind: str
    value: str
    hint: str = ""
    is_required: bool = False
    choices: Sequence[str] = ()
    was: str = ""
    is_changed: bool = False

    @property
    def key(self) -> str:
        return f"{PREFIX}{self.name}"


def fields(
    schema: Mapping[str, Any], values: Mapping[str, Any], *, sent: Mapping[str, str] | None = None
) -> list[FormField]:
    """The fields of a form, with these values, or with those that were sent. Values beside the schema are shown too."""
    properties = _properties(schema)
    required = set(schema.get("required") or ())
    names = [*properties, *(name for name in values if name not in properties)]
    found = []
    for name in names[:MOST_FIELDS]:
        rule = properties.get(name) or _guessed(values.get(name))
        kind = _kind(rule, values.get(name))
        was = _shown(values.get(name), kind)
        value = sent.get(f"{PREFIX}{name}", was) if sent is not None else was
        found.append(
            FormField(
                name=name,
                label=str(rule.get("title") or name),
                kind=kind,
                value=value,
                hint=str(rule.get("description") or "")[:300],
                is_required=name in required,
                choices=[_shown(choice, "text") for choice in rule.get("enum") or ()],
                was=was,
                is_changed=value != was,
            )
        )
    return found


def read(
    schema: Mapping[str, Any], sent: Mapping[str, str], *, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The object that a form states: empty fields that are not required are left out. Raises Invalid."""
    found: dict[str, Any] = {}
    problems = []
    for each in fields(schema, values or {}, sent=sent):
        if each.key not in sent:
            continue
        text = sent[each.key]
        if not text.strip() and not (each.is_required and each.kind in ("text", "long")):
            continue
        rule = _properties(schema).get(each.name) or _guessed((values or {}).get(each.name))
        try:
            found[each.name] = _value(text, each.kind, rule)
        except ValueError as error:
            problems.append(FieldError(each.name, "invalid", str(error)))
    if problems:
        raise Invalid(*problems)
    return found


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    stated = schema.get("properties")
    if not isinstance(stated, Mapping):
        return {}
    return {str(name): rule if isinstance(rule, Mapping) else {} for name, rule in stated.items()}


def _guessed(value: Any) -> Mapping[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": kinds[type(value)]} if type(value) in kinds else {}


def _kind(rule: Mapping[str, Any], value: Any) -> str:
    stated = rule.get("type")
    if isinstance(rule.get("enum"), list) and all(isinstance(each, str | int | float) for each in rule["enum"]):
        return "choice"
    if stated == "string" and (value is None or isinstance(value, str)):
        is_long = rule.get("format") == "textarea" or rule.get("maxLength", 0) > 200 or len(value or "") > 80
        return "long" if is_long else "text"
    if stated in ("integer", "number") and (value is None or isinstance(value, int | float)):
        return "number"
    return "flag" if stated == "boolean" else "json"


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and kind != "json":
        return value
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) else None)


def _value(text: str, kind: str, rule: Mapping[str, Any]) -> Any:
    if kind in ("text", "long"):
        return text.replace("\r\n", "\n")
    if kind == "choice":
        return next((choice for choice in rule["enum"] if _shown(choice, "text") == text), text)
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError("must be JSON" if kind == "json" else "must be a number") from None
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("must be a number")
    return value
