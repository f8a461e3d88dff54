"""The fields of bodies, as strict as the parsers: nothing is taken for what it is not, nothing unknown is let by."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs.api import parsing
from agent_jobs.specs import money


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses fields it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := [key for key in data if key not in self.fields]):
            known = ", ".join(name for name, at in self.fields.items() if not at.read_only)
            message = serializers.ErrorDetail(f"is not a field here; the fields are {known}", "unknown_field")
            problems: dict[str, Any] = {key: [message] for key in unknown}
            try:
                super().to_internal_value(data)
            except serializers.ValidationError as error:
                if isinstance(error.detail, dict):
                    problems = {**error.detail, **problems}
            raise serializers.ValidationError(problems)
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """Text as it is: numbers and flags are not taken for text, nothing is trimmed, blanks alone are not a value."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", parsing.MAX_TEXT)
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a text", code="invalid")
        if not data.strip() and not self.allow_blank:
            self.fail("blank")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            raise serializers.ValidationError("must be a whole number", code="invalid")
        return super().to_internal_value(data)


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string"}]})
class Money(serializers.Field):  # type: ignore[type-arg]
    """An amount, as a number or as a text, with six places at most."""

    def to_internal_value(self, data: Any) -> Decimal:
        try:
            return money(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None

    def to_representation(self, value: Any) -> Any:
        return value


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("must be true or false", code="invalid")
        return data


class Moment(serializers.DateTimeField):
    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise serializers.ValidationError(parsing.MOMENT_FORM, code="invalid")
        try:
            return parsing.moment(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Object(serializers.JSONField):
    """A JSON object with anything in it."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object", code="invalid")
        return data


@extend_schema_field({"type": "array", "items": {"type": "object", "additionalProperties": {}}})
class Objects(serializers.JSONField):
    """A list of JSON objects with anything in them."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise serializers.ValidationError("must be a list of objects", code="invalid")
        return data


@extend_schema_field({"oneOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]})
class Tags(serializers.Field):  # type: ignore[type-arg]
    """A list of texts, or one text with commas; without repeats, in the order sent."""

    MOST = 50
    LONGEST = 64

    def to_internal_value(self, data: Any) -> list[str]:
        found = data.split(",") if isinstance(data, str) else data
        if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
            raise serializers.ValidationError("must be a list of texts or a text with commas", code="invalid")
        tags = list(dict.fromkeys(tag.strip() for tag in found))
        if data == "" or data == []:
            return []
        if len(tags) > self.MOST:
            raise serializers.ValidationError(f"may be at most {self.MOST}", code="too_many")
        if not all(tag and len(tag) <= self.LONGEST and "," not in tag for tag in tags):
            raise serializers.ValidationError(
                f"must have 1 to {self.LONGEST} characters each, and no comma", code="invalid"
            )
        return tags

    def to_representation(self, value: Any) -> Any:
        return value
