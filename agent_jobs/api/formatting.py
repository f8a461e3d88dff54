"""Formats values for responses: times end in Z, amounts are JSON numbers, keys without a value are left out."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def stamp(at: datetime) -> str:
    """`2026-01-31T09:00:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def stamp_or_none(at: datetime | None) -> str | None:
    return stamp(at) if at is not None else None


def number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drops keys whose value is None or "": clients break on nulls."""
    return {key: value for key, value in values.items() if value is not None and value != ""}
