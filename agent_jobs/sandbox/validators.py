"""JSON Schema 2020-12: compiles a schema, validates an instance, and words its errors.

Runs both in our processes and in the child. Limits no cost: `costs` and the child's CPU timer do that.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs

MAX_REPORTED = 20
MAX_MESSAGE = 300
# Per pattern: the size of its compiled form, and of its automaton's cache in each thread. The engine (Rust's `regex`)
# never backtracks: its time is linear in the text, times the size of the pattern.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 16)
Fault = tuple[str, str, str]  # field, code, message


def compile_fault(schema: str, at: str) -> Fault | None:
    """The fault of a schema, given as JSON."""
    try:
        _compile(schema)
    except jsonschema_rs.ValidationError as error:
        return _field(at, error.instance_path), "invalid", _short(error.message)
    return None


def is_valid(schema: str, instance: Any) -> bool:
    return _validator(schema).is_valid(instance)


def faults(schema: str, instance: Any, at: str) -> list[Fault]:
    """The first 20 errors of the instance. The library builds all errors before it returns the first."""
    found = _validator(schema).iter_errors(instance)
    return list(islice((fault for error in found for fault in _faults(error, at)), MAX_REPORTED))


def _compile(schema: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        json.loads(schema), offline=True, validate_formats=True, pattern_options=_PATTERNS
    )


# Few: each keeps the automata of its patterns.
_validator = lru_cache(maxsize=100)(_compile)


def _faults(error: jsonschema_rs.ValidationError, at: str) -> Iterator[Fault]:
    field = _field(at, error.instance_path)
    detail: Any = error.kind  # a different class for each keyword
    kind = error.kind.name
    if kind == "required":
        yield f"{field}.{detail.property}", "required", "is required"
    elif kind in {"additionalProperties", "unevaluatedProperties"}:
        for name in detail.unexpected:
            yield f"{field}.{name}", "unknown_field", "is not a known parameter"
    elif kind == "falseSchema":  # the result of `additionalProperties: false` without `properties`
        yield field, "unknown_field", "is not a known parameter"
    else:
        yield field, kind, _short(error.message)


def _field(at: str, path: list[str | int]) -> str:
    return ".".join([at, *map(str, path)])


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"
