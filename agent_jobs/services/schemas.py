"""JSON Schema 2020-12 for params: is a schema one that we take, and what is wrong with params under it.

Schemas are written by whoever holds a WRITE token and run in our processes, so: no `$ref` leaves the document, none
goes round in a circle, and the schema with all its references written out stays small (30 definitions that each name
the next one twice would take 2^30 steps). Patterns run in linear time: the regex engine knows no backtracking.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs

from agent_jobs.errors import FieldError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_EXPANDED_NODES = 2_000
MAX_CHAINED_REFERENCES = 30
MAX_REPORTED = 20
MAX_MESSAGE = 300
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
# Keywords whose value is a map from names to schemas, and those whose value is plain data.
_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_PLAIN = {"const", "enum", "default", "examples"}
_REFUSED = {"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$anchor", "$id"}


def check_schema(schema: Any, *, at: str = "params_schema") -> list[FieldError]:
    """What is wrong with a schema as such; empty where nothing is."""
    if not isinstance(schema, dict):
        return [FieldError(at, "invalid", "must be an object")]
    if str(schema.get("$schema", DIALECT)).rstrip("#") != DIALECT:
        return [FieldError(f"{at}.$schema", "invalid", f"must be {DIALECT}")]
    try:
        _expanded_size(schema, schema, is_map=False, known={}, path=())
        _validator(json.dumps(schema))
    except jsonschema_rs.ValidationError as error:
        return [FieldError(_field(at, error.instance_path), "invalid", _short(error.message))]
    except _Unacceptable as error:
        return [FieldError(at, "invalid", str(error))]
    return []


def params_errors(schema: Mapping[str, Any], params: Any, *, at: str = "params") -> list[FieldError]:
    """What is wrong with params: `[FieldError("params.items.0", "type", "must be …")]`, at most 20 of them.

    A missing property is named itself (`params.name`, `required`), and so is one too many (`unknown_field`).
    """
    errors: list[FieldError] = []
    if schema:
        for error in _validator(json.dumps(schema)).iter_errors(params):
            errors.extend(_field_errors(error, at))
            if len(errors) >= MAX_REPORTED:
                break
    return errors[:MAX_REPORTED]


class _Unacceptable(Exception):
    pass


@lru_cache(maxsize=500)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        json.loads(schema), offline=True, validate_formats=True, pattern_options=_PATTERNS
    )


def _field_errors(error: jsonschema_rs.ValidationError, at: str) -> Iterator[FieldError]:
    field = _field(at, error.instance_path)
    detail: Any = error.kind  # a class of its own for each keyword
    kind = error.kind.name
    if kind == "required":
        yield FieldError(f"{field}.{detail.property}", "required", "is required")
    elif kind in {"additionalProperties", "unevaluatedProperties"}:
        for name in detail.unexpected:
            yield FieldError(f"{field}.{name}", "unknown_field", "is not a known parameter")
    elif kind == "falseSchema":  # `additionalProperties: false` beside no `properties` comes out as this
        yield FieldError(field, "unknown_field", "is not a known parameter")
    else:
        yield FieldError(field, kind, _short(error.message))


def _field(at: str, path: list[str | int]) -> str:
    return ".".join([at, *map(str, path)])


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"


def _expanded_size(
    node: Any, root: dict[str, Any], *, is_map: bool, known: dict[str, int], path: tuple[str, ...]
) -> int:
    """Nodes of the schema with every `$ref` written out. `path` is the references being followed."""
    if isinstance(node, list):
        sizes = [_expanded_size(item, root, is_map=False, known=known, path=path) for item in node]
        return _bounded(sum(sizes) + 1)
    if not isinstance(node, dict):
        return 1
    size = 1
    for key, value in node.items():
        if not is_map and key in _REFUSED and not (key == "$id" and node is root):
            raise _Unacceptable(f"{key} is not supported; refer to definitions as #/$defs/…")
        if not is_map and key == "$ref":
            size += _referred_size(value, root, known=known, path=path)
        elif is_map or key not in _PLAIN:
            is_inner_map = not is_map and key in _MAPS
            # Definitions count where they are referred to.
            if not is_map and key in {"$defs", "definitions"}:
                _expanded_size(value, root, is_map=True, known=known, path=path)
                continue
            size += _expanded_size(value, root, is_map=is_inner_map, known=known, path=path)
        _bounded(size)
    return size


def _referred_size(reference: Any, root: dict[str, Any], *, known: dict[str, int], path: tuple[str, ...]) -> int:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise _Unacceptable("$ref may only point into this schema, as #/$defs/…")
    if reference in path or reference == "#":
        raise _Unacceptable(f"$ref {_short(reference)} leads back to itself; a schema may not be recursive")
    if len(path) >= MAX_CHAINED_REFERENCES:
        raise _Unacceptable(f"more than {MAX_CHAINED_REFERENCES} references follow each other")
    if reference not in known:
        target = _target(reference, root)
        known[reference] = _expanded_size(target, root, is_map=False, known=known, path=(*path, reference))
    return known[reference]


def _target(reference: str, root: dict[str, Any]) -> Any:
    node: Any = root
    for part in reference.removeprefix("#/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdigit() and name.isascii() and int(name[:6]) < len(node):
            node = node[int(name[:6])]
        else:
            raise _Unacceptable(f"$ref {_short(reference)} points to nothing")
    return node


def _bounded(size: int) -> int:
    if size > MAX_EXPANDED_NODES:
        raise _Unacceptable(f"is too large: written out it has over {MAX_EXPANDED_NODES} parts")
    return size
