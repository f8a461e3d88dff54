"""How Workspace reads bodies and queries: valid JSON with wrong values is a 422, and filters may be repeated."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from agent_jobs.api import parsing
from agent_jobs.api.parsing import Param
from agent_jobs.dialects.base import DialectResource, checked, storable
from agent_jobs.errors import FieldError, Invalid


def fields_of(view: DialectResource, kind: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """The known fields of the body. Raises ParseError if it is not JSON, and Invalid."""
    found = view.json()
    if not isinstance(found, dict):
        raise Invalid(FieldError("body", "invalid", "must be a JSON object"))
    return checked(kind, found)


def query_of(view: DialectResource, known: Mapping[str, Param]) -> dict[str, Any]:
    """The values of known parameters: a list for those that may be repeated, else the last. Raises Invalid."""
    values: dict[str, Any] = {name: [] if param.may_repeat else param.default for name, param in known.items()}
    problems = []
    for name, text in parsing.query_pairs(view.request.META.get("QUERY_STRING", "")):
        if name not in known:
            continue
        try:
            read = known[name].parse(storable(text))
        except ValueError as error:
            problems.append(FieldError(name, "invalid", str(error)))
            continue
        values[name] = [*values[name], read] if known[name].may_repeat else read
    if problems:
        raise Invalid(*problems)
    return values
