"""Values that foreign clients write more freely than those of our own API: times, durations and numbers."""

from datetime import UTC, datetime, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs import recurrence
from agent_jobs.api.parsing import Param

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class LenientMoment(serializers.DateTimeField):
    """An ISO 8601 time; without an offset it is in UTC."""

    def to_internal_value(self, value: Any) -> Any:
        try:
            found = datetime.fromisoformat(value)
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
            if _FIRST <= found <= _LAST:
                return found.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise serializers.ValidationError("must be an ISO 8601 time, as 2024-01-15T15:00:00Z", code="invalid")


@extend_schema_field({"type": "string", "example": "1m30s"})
class GoInterval(serializers.Field):  # type: ignore[type-arg]
    """A Go duration, or a whole number of nanoseconds. It becomes a text."""

    def to_internal_value(self, data: Any) -> str:
        try:
            if isinstance(data, int) and not isinstance(data, bool) and data >= 0:
                data = recurrence.format_go_duration(timedelta(microseconds=data // 1_000))
            if isinstance(data, str):
                recurrence.parse_go_duration(data)
                return data
        except (recurrence.BadExpression, OverflowError) as error:
            raise serializers.ValidationError(str(error), code="invalid") from None
        raise serializers.ValidationError("must be a Go duration such as 1s, 5m or 1h30m", code="invalid")

    def to_representation(self, value: Any) -> Any:
        return value


def lenient_whole(default: int | None, most: int) -> Param:
    """A number. Nonsense is ignored, as upstream does."""

    def parse(text: str) -> int | None:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        return min(number, most) if number else default

    about = f"A whole number, at most {most:,}. A larger one counts as that, and any other text as the default."
    return Param(parse, about, {"type": "string"}, default)
