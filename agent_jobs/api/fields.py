"""Serializer fields for request bodies, as strict as `parsing`: they convert no types and refuse unknown fields."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs import approvers
from agent_jobs.api import parsing
from agent_jobs.errors import MAX_REPORTED
from agent_jobs.specs import (
    CONFIG_RULES,
    MAX_DELAY_MINUTES,
    MAX_METADATA_KEYS,
    MAX_METADATA_TEXT,
    MIN_FOLLOW_UP_MINUTES,
    PRIORITIES,
    PRIORITY_WORDS,
    metadata_errors,
    money,
)
from infra import invisible_text


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses fields it does not know.

    Null for an optional field is the same as its absence, unless the field gives null a meaning (`allow_null`).
    """

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            data = {key: value for key, value in data.items() if value is not None or not self._may_be_absent(key)}
        if isinstance(data, Mapping) and (unknown := [key for key in data if key not in self.fields]):
            known = ", ".join(name for name, at in self.fields.items() if not at.read_only)
            left = len(unknown) - MAX_REPORTED
            others = f", nor are {left:,} others" if left > 0 else ""
            message = serializers.ErrorDetail(f"is not a field here{others}; the fields are {known}", "unknown_field")
            # Only the first ones: REST framework copies and walks through every error.
            problems: dict[str, Any] = {key: [message] for key in unknown[:MAX_REPORTED]}
            try:
                super().to_internal_value(data)
            except serializers.ValidationError as error:
                if isinstance(error.detail, dict):
                    problems = {**error.detail, **problems}
            raise serializers.ValidationError(problems)
        return super().to_internal_value(data)

    def _may_be_absent(self, name: str) -> bool:
        field = self.fields.get(name)
        if field is None or field.allow_null:
            return False
        return not field.required or bool(getattr(self.root, "partial", False))


class Sent(serializers.Field):  # type: ignore[type-arg]
    """A field of requests that REST framework has no kind of."""

    def to_representation(self, value: Any) -> Any:
        return value


class Text(serializers.CharField):
    """A string, unchanged. Refuses numbers, booleans and strings of blanks only; trims nothing."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", parsing.MAX_TEXT)
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a string", code="invalid")
        if not data.strip() and not self.allow_blank:
            self.fail("blank")
        return super().to_internal_value(data)


class ProgramText(serializers.CharField):
    """The output of a program: text of any length that the body may have, with any characters. It may be left out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **{"required": False, "allow_blank": True, **options})
        self.validators = [check for check in self.validators if not _refuses_text(check)]

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a string", code="invalid")
        return data


def _refuses_text(check: Any) -> bool:
    """Whether it is Django's or REST framework's check for NUL or surrogates: the service replaces these."""
    return type(check).__name__ in {"ProhibitNullCharactersValidator", "ProhibitSurrogateCharactersValidator"}


class Name(Text):
    """A name that people read and compare: refuses control characters and invisible ones."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if complaint := invisible_text.in_name(text):
            raise serializers.ValidationError(complaint, code="invalid")
        return text


class Author(Text):
    """A person's name, stated by the calling application. Refuses the forms that the service uses itself."""

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if approvers.is_reserved(name):
            raise serializers.ValidationError(approvers.RESERVED_FORM, code="reserved")
        return name


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            raise serializers.ValidationError("must be a whole number", code="invalid")
        return super().to_internal_value(data)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "integer", "minimum": PRIORITIES.start, "maximum": PRIORITIES.stop - 1},
            {"type": "string", "enum": list(PRIORITY_WORDS)},
        ]
    }
)
class Priority(Sent):
    """A number from 0 to 9, or a word for one."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, str) and data in PRIORITY_WORDS:
            return PRIORITY_WORDS[data]
        if not isinstance(data, int) or isinstance(data, bool) or data not in PRIORITIES:
            known = ", ".join(PRIORITY_WORDS)
            message = f"must be a whole number from {PRIORITIES.start} to {PRIORITIES.stop - 1}, or one of {known}"
            raise serializers.ValidationError(message, code="invalid")
        return data


class Choice(serializers.ChoiceField):
    default_error_messages = {"invalid_choice": "must be one of {words}"}

    def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
        self.words = ", ".join(words)
        super().__init__(list(words), **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", words=self.words)
        return data


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string"}]})
class Money(Sent):
    """An amount, as a number or a string, with at most six decimal places."""

    def to_internal_value(self, data: Any) -> Decimal:
        try:
            return money(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None


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


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": MAX_METADATA_KEYS,
        "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
    }
)
class Metadata(Object):
    """The client's own labels: a flat object of texts, numbers and booleans."""

    def __init__(self, **options: Any) -> None:
        about = (
            f"Your own labels, as texts (up to {MAX_METADATA_TEXT} characters), numbers and booleans; up to"
            f" {MAX_METADATA_KEYS}. The list filters by them: `metadata.region=eu`."
        )
        super().__init__(**{"help_text": about, **options})

    def to_internal_value(self, data: Any) -> Any:
        stated = super().to_internal_value(data)
        if problems := metadata_errors(stated, at=""):
            found = {
                error.field.removeprefix(".") or "non_field_errors": [
                    serializers.ErrorDetail(error.message, error.code)
                ]
                for error in problems[:MAX_REPORTED]
            }
            raise serializers.ValidationError(found)
        return stated


_CONFIG_HELP = (
    "Times are in minutes. `follow_up_interval`, the silence before a follow-up, is"
    f" {MIN_FOLLOW_UP_MINUTES} to {MAX_DELAY_MINUTES:,}; a 400 names each invalid value."
)


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Config(Object):
    """The config of a job or a job type. Null for a known key is the same as its absence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"help_text": _CONFIG_HELP, **options})

    def to_internal_value(self, data: Any) -> Any:
        stated = super().to_internal_value(data)
        return {key: value for key, value in stated.items() if value is not None or key not in CONFIG_RULES}


@extend_schema_field({"type": "array", "items": {"type": "object", "additionalProperties": {}}})
class Objects(serializers.JSONField):
    """A list of JSON objects with anything in them."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise serializers.ValidationError("must be a list of objects", code="invalid")
        return data


@extend_schema_field({"oneOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]})
class Tags(Sent):
    """A list of strings, or one string with commas. Drops repeats and keeps the order."""

    MOST = 50
    LONGEST = 64

    def to_internal_value(self, data: Any) -> list[str]:
        found = data.split(",") if isinstance(data, str) else data
        if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
            raise serializers.ValidationError("must be a list of strings or a string with commas", code="invalid")
        tags = list(dict.fromkeys(tag.strip() for tag in found))
        if data == "" or data == []:
            return []
        if len(tags) > self.MOST:
            raise serializers.ValidationError(f"may be at most {self.MOST}", code="too_many")
        if not all(tag and len(tag) <= self.LONGEST and "," not in tag for tag in tags):
            raise serializers.ValidationError(
                f"must have 1 to {self.LONGEST} characters each, and no comma", code="invalid"
            )
        if complaint := next(filter(None, map(invisible_text.in_name, tags)), ""):
            raise serializers.ValidationError(complaint, code="invalid")
        return tags
