"""Formats values for responses: times end in Z, amounts are JSON numbers, keys without a value are left out."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from rest_framework import serializers


def stamp(at: datetime) -> str:
    """A time as text: `2026-01-31T09:00:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def stamp_or_none(at: datetime | None) -> str | None:
    return stamp(at) if at is not None else None


def number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def shown(shape: type[serializers.Serializer[Any]], row: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The fields of a response's shape, with their values from the row. A value in `more` replaces that of the row.

    Fields that are not required are left out if they have no value, as in `filled`.
    """
    values = {**row, **more}
    found = {}
    for name, is_required in _fields_of(shape):
        value = values[name] if is_required else values.get(name)
        if is_required or (value is not None and value != ""):
            plain = _PLAIN.get(type(value))
            found[name] = plain(value) if plain else value
    return found


@cache
def _fields_of(shape: type[serializers.Serializer[Any]]) -> tuple[tuple[str, bool], ...]:
    return tuple((name, field.required) for name, field in shape._declared_fields.items())


_PLAIN: Mapping[type, Callable[[Any], Any]] = {datetime: stamp, Decimal: number, UUID: str}


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drops keys whose value is None or "": clients break on nulls."""
    return {key: value for key, value in values.items() if value is not None and value != ""}
