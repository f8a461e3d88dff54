"""Decodes JSON as Go's `encoding/json` does into a struct: what would make a Go program fail raises Undecodable.

A shape is a dict of fields (a struct), a list of one shape (a slice), a `Map` of one shape, or one of the kinds below.
Unknown keys are ignored. A missing key or null leaves the zero value, which `decode` returns as Go would show it.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

TEXT, INT, FLOAT, BOOL, TIME, OPTIONAL_TIME, OPTIONAL_INT, ID, ANY = (
    *("text", "int", "float", "bool", "time", "time or nil", "int or nil", "uuid", "any"),
)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)")
_ZERO = {TEXT: "", INT: 0, FLOAT: 0.0, BOOL: False, TIME: "0001-01-01T00:00:00Z", ID: UUID(int=0)}


@dataclass(frozen=True)
class Map:
    of: Any


class Undecodable(AssertionError):
    pass


def decode(value: Any, shape: Any, at: str = "body") -> Any:
    match shape:
        case dict():
            if value is None:
                value = {}
            _must(isinstance(value, dict), at, value, "an object")
            return {key: decode(value.get(key), inner, f"{at}.{key}") for key, inner in shape.items()}
        case list():
            _must(value is None or isinstance(value, list), at, value, "an array")
            return [decode(one, shape[0], f"{at}[{place}]") for place, one in enumerate(value or ())]
        case Map():
            _must(value is None or isinstance(value, dict), at, value, "an object")
            return {key: decode(one, shape.of, f"{at}.{key}") for key, one in (value or {}).items()}
    if value is None or shape == ANY:
        return _ZERO.get(shape, value)
    return _scalar(value, shape, at)


def _scalar(value: Any, kind: str, at: str) -> Any:
    if kind in (INT, OPTIONAL_INT):
        _must(type(value) is int, at, value, "a whole number")
    elif kind == FLOAT:
        _must(type(value) in (int, float), at, value, "a number")
    elif kind == BOOL:
        _must(type(value) is bool, at, value, "true or false")
    else:
        _must(isinstance(value, str), at, value, "a text")
        if kind in (TIME, OPTIONAL_TIME):
            _must(_RFC3339.fullmatch(value), at, value, "a time with a zone")
            return datetime.fromisoformat(value)
        if kind == ID:
            try:
                return UUID(value)
            except ValueError:
                _must(False, at, value, "a UUID")
    return value


def _must(holds: Any, at: str, value: Any, expected: str) -> None:
    if not holds:
        raise Undecodable(f"{at} is {value!r} and not {expected}")
