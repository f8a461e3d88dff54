"""Fits the schemas and names of other people's tools to what our validation and the model providers accept.

A server judges the arguments itself, so a rule that we cannot validate is dropped and the tool is still offered. A
schema that is no object schema is malformed, and its tool is left out.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent_jobs.sandbox import json_schema
from agent_jobs.tools.declarations import ARGUMENT, MAX_PROPERTIES

MAX_SCHEMA = 20_000
_TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
_DROPPED = {"$schema", "$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_SINGLE = {
    *("items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"),
    *("not", "if", "then", "else"),
}
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_COUNTS = {
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
}
# At the root, these keep their meaning when properties get other names.
_FREE_OF_NAMES = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "title",
    "description",
    "$defs",
    "definitions",
}
_MOST_SIMPLE_ENUM = 100
_LONGEST_ARGUMENT = 64


class Malformed(Exception):
    """The schema cannot be offered; the text says why."""


def fitted(stated: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The schema to offer to models, and the renamed arguments: `{our name: the server's name}`, such as `{"_top":
    "$top"}`.

    Raises Malformed.
    """
    schema = _object(stated)
    for simplified in (_fits(schema), _simple(schema)):
        if simplified is None:
            continue
        renamed, names = _renamed(simplified)
        if len(json.dumps(renamed)) <= MAX_SCHEMA and not json_schema.check_schema(renamed):
            return renamed, names
    raise Malformed("its inputSchema is not a valid JSON Schema, or too large")


def unique_name(name: str, taken: Iterable[str], *, longest: int, allowed: str = "A-Za-z0-9_-") -> str:
    """The name with other characters as underscores. If it is too long or taken, it ends with a digest of the name."""
    found = re.sub(rf"[^{allowed}]", "_", name)
    if len(found) <= longest and found not in taken:
        return found
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{found[: longest - 9]}_{digest}"


# --- The root --------------------------------------------------------------------------------------------------
def _object(stated: Any) -> dict[str, Any]:
    if not isinstance(stated, dict):
        raise Malformed("it has no inputSchema")
    if stated.get("type") != "object":
        raise Malformed('the type of its inputSchema is not "object"')
    schema = {key: value for key, value in stated.items() if value is not None}
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise Malformed("`properties` of its inputSchema is not an object")
    if len(properties) > MAX_PROPERTIES:
        raise Malformed(f"it takes more than {MAX_PROPERTIES} arguments")
    for name, value in properties.items():
        if not isinstance(value, dict | bool):
            raise Malformed(f"the schema of its argument {name[:64]!r} is not an object")
    return schema


def _fits(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema without the keywords that we cannot validate; None if it is too large or too deep to be read."""
    try:
        if len(json.dumps(schema)) > MAX_SCHEMA:
            return None
        fitted = _Fitting(schema).fitted(schema, "#")
    except (RecursionError, ValueError):
        return None
    return fitted if isinstance(fitted, dict) else None


def _simple(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the schema to the types, descriptions and short enums of its arguments."""
    found: dict[str, Any] = {}
    for name, value in schema.get("properties", {}).items():
        kept: dict[str, Any] = {}
        if isinstance(value, dict):
            if _is_type(value.get("type")):
                kept["type"] = value["type"]
            if isinstance(value.get("description"), str):
                kept["description"] = value["description"][:200]
            enum = value.get("enum")
            if _is_short_enum(enum):
                kept["enum"] = enum
        found[name] = kept
    required = [name for name in _texts(schema.get("required")) if name in found]
    return {"type": "object", "properties": found, **({"required": required} if required else {})}


def _renamed(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The schema with names of arguments that providers accept, and the server's names by ours."""
    properties = schema.get("properties", {})
    plain = {name for name in properties if ARGUMENT.fullmatch(name)}
    if len(plain) == len(properties):
        return schema, {}
    names: dict[str, str] = {}  # ours by the server's
    for name in properties:
        if name not in plain:
            begun = name if re.match(r"[^0-9.-]", name) else f"_{name}"
            taken = plain | set(names.values())
            names[name] = unique_name(begun, taken, longest=_LONGEST_ARGUMENT, allowed="A-Za-z0-9_.-")
    renamed = {key: value for key, value in schema.items() if key in _FREE_OF_NAMES}
    renamed["properties"] = {names.get(name, name): _noted(value, name, names) for name, value in properties.items()}
    if "required" in renamed:
        renamed["required"] = [names.get(name, name) for name in renamed["required"]]
    return renamed, {ours: server for server, ours in names.items()}


def _noted(value: Any, name: str, names: Mapping[str, str]) -> Any:
    if name not in names or not isinstance(value, dict):
        return value
    return {**value, "description": f"(The server calls it {name[:64]!r}.) {value.get('description', '')}".strip()}


# --- Keywords --------------------------------------------------------------------------------------------------
class _Fitting:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._reached: dict[str, set[str]] = {}

    def fitted(self, node: Any, at: str) -> Any:
        """The schema at the pointer `at`, by draft 2020-12, without what we cannot validate."""
        if not isinstance(node, dict):
            return node if isinstance(node, bool) else {}
        found: dict[str, Any] = {}
        for key, value in self._modern(node).items():
            if key in _DROPPED or (value is None and key not in ("const", "default")):
                continue
            here = f"{at}/{_escaped(key)}"
            if key in _MAPS and isinstance(value, dict):
                found[key] = {name: self.fitted(one, f"{here}/{_escaped(name)}") for name, one in value.items()}
            elif key in _LISTS and isinstance(value, list) and value:
                found[key] = [self.fitted(one, f"{here}/{number}") for number, one in enumerate(value)]
            elif key in _SINGLE and isinstance(value, dict | bool):
                found[key] = self.fitted(value, here)
            elif key not in _MAPS | _LISTS | _SINGLE and self._is_valid(key, value, at):
                found[key] = value
        return found

    def _modern(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """Tuples and boolean bounds of older drafts, as draft 2020-12 writes them."""
        found = dict(node)
        if isinstance(found.get("items"), list):
            found["prefixItems"] = found.pop("items")
            if "additionalItems" in found:
                found["items"] = found["additionalItems"]
        found.pop("additionalItems", None)
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(found.get(exclusive), bool):
                is_exclusive = found.pop(exclusive)
                if is_exclusive and bound in found:
                    found[exclusive] = found.pop(bound)
        dependencies = found.pop("dependencies", None)
        if isinstance(dependencies, dict) and all(isinstance(one, list) for one in dependencies.values()):
            found.setdefault("dependentRequired", dependencies)
        return found

    def _is_valid(self, key: str, value: Any, at: str) -> bool:
        if key == "$ref":
            return self._is_usable(value, at)
        if key == "pattern":
            return isinstance(value, str) and not json_schema.check_schema({"pattern": value})
        if key == "type":
            return _is_type(value)
        if key == "required":
            return isinstance(value, list) and len(_texts(value)) == len(value) == len(set(value))
        if key == "enum":
            return isinstance(value, list) and bool(value)
        if key in _NUMBERS:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and (key != "multipleOf" or value > 0)
        if key in _COUNTS:
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if key in ("title", "description", "format"):
            return isinstance(value, str)
        if key == "dependentRequired":
            return isinstance(value, dict) and all(isinstance(one, list) for one in value.values())
        return key != "uniqueItems" or isinstance(value, bool)

    def _is_usable(self, reference: Any, at: str) -> bool:
        """Whether it points into this schema, and not back to where it stands."""
        if not isinstance(reference, str) or self._target(reference) is None:
            return False
        return not any(_is_at_or_above(place, at) for place in (reference, *self._reach(reference)))

    def _reach(self, reference: str) -> set[str]:
        """All references that this one leads to."""
        if reference not in self._reached:
            reached: set[str] = set()
            waiting = [reference]
            while waiting:
                for found in _references(self._target(waiting.pop())):
                    if found not in reached:
                        reached.add(found)
                        waiting.append(found)
            self._reached[reference] = reached
        return self._reached[reference]

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return None
        node: Any = self._root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            node = node.get(name) if isinstance(node, Mapping) else None
        return node


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _is_at_or_above(reference: str, at: str) -> bool:
    return at == reference or at.startswith(f"{reference.rstrip('/')}/")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _is_type(value: Any) -> bool:
    if isinstance(value, list):
        return (
            bool(value)
            and all(isinstance(one, str) and one in _TYPES for one in value)
            and len(set(value)) == len(value)
        )
    return isinstance(value, str) and value in _TYPES


def _is_short_enum(value: Any) -> bool:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_SIMPLE_ENUM:
        return False
    return all(isinstance(one, str | int) and len(str(one)) <= 100 for one in value)


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
