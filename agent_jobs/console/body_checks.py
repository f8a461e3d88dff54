"""Checks what a form states with the shapes of the HTTP API, so that both refuse the same values in the same words."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from rest_framework import serializers
from rest_framework.exceptions import ParseError

from agent_jobs.api import errors as api_errors
from agent_jobs.api import parsing
from agent_jobs.errors import AgentJobsError, FieldError, Invalid
from channels_integration.errors import ChannelsError, InvalidField


def checked(
    shape: type[serializers.Serializer[Any]], stated: Mapping[str, Any], *, partial: bool = False
) -> dict[str, Any]:
    """The fields as the API would take them. Raises Invalid with all errors."""
    read = shape(data=stated, partial=partial)
    if not read.is_valid():
        raise Invalid(*api_errors.flatten(read.errors))
    return dict(read.validated_data)


def json_of(text: str, field: str, *, default: Any = None) -> Any:
    """The value that a text field states as JSON, by the API's strict rules; `default` if it is empty."""
    if not text.strip():
        return default
    try:
        return parsing.read_json(text.encode())
    except ParseError as error:
        raise Invalid(FieldError(field, "invalid", str(error.detail).replace("the body is", "is"))) from None
    except Invalid as error:
        raise Invalid(*(FieldError(field, one.code, one.message) for one in error.errors)) from None


def whole(text: str, field: str) -> int | None:
    """The whole number that a text field states; None for an empty text. Raises Invalid."""
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Invalid(FieldError(field, "invalid", "must be a whole number"))
    return int(text)


def moment(text: str, field: str, zone: ZoneInfo) -> datetime | None:
    """The time that `<input type=datetime-local>` states, in the viewer's zone, as UTC; None for an empty text."""
    if not text.strip():
        return None
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(FieldError(field, "invalid", "must be a date and a time")) from None


def told(error: AgentJobsError | ChannelsError | None) -> dict[str, str]:
    """An error's messages by field, to show beside each field. The key `body` has the message for the whole form."""
    if error is None:
        return {}
    if isinstance(error, InvalidField):
        return {error.field: error.message}
    if not isinstance(error, Invalid):
        return {"body": error.message}
    found: dict[str, str] = {}
    for each in error.errors:
        found.setdefault(each.field, each.message)
    return found


def pretty(value: Any) -> str:
    """A value as indented JSON for a text field; an empty text for an empty value."""
    return json.dumps(value, indent=2, ensure_ascii=False) if value not in (None, "", {}, []) else ""


def stated(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The values without None and empty texts."""
    return {name: value for name, value in values if value is not None and value != ""}
