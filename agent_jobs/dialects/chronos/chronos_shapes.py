"""The fields of Chronos' requests, and its answers for the OpenAPI document."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs import recurrence
from agent_jobs.api.fields import Choice, Flag, Name, Text, Whole


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


class ChronosAuth(serializers.Serializer[Any]):
    type = Choice(("basic", "bearer", "api_key"))
    username = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    password = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    token = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    api_key = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    header = Text(max_length=128, required=False, allow_null=True, allow_blank=True)


class ChronosWebhook(serializers.Serializer[Any]):
    url = Text(max_length=2_000)
    method = Text(max_length=16, required=False, allow_null=True, allow_blank=True, help_text="GET if left out.")
    headers = serializers.DictField(child=Text(max_length=16_384, allow_blank=True), required=False, allow_null=True)
    body = Text(max_length=200_000, required=False, allow_null=True, allow_blank=True)
    auth = ChronosAuth(required=False, allow_null=True)
    success_codes = serializers.ListField(child=Whole(), required=False, allow_null=True)


class ChronosRetryPolicy(serializers.Serializer[Any]):
    max_attempts = Whole(required=False, allow_null=True, min_value=1, max_value=100, help_text="With the first one.")
    initial_interval = GoInterval(required=False, allow_null=True)
    max_interval = GoInterval(required=False, allow_null=True)
    multiplier = serializers.FloatField(required=False, allow_null=True, min_value=1, max_value=100)


class ChronosJobRequest(serializers.Serializer[Any]):
    name = Name(max_length=255)
    description = Text(max_length=2_000, required=False, allow_null=True, allow_blank=True)
    schedule = Text(max_length=300)
    timezone = Text(max_length=64, required=False, allow_null=True, allow_blank=True)
    webhook = ChronosWebhook()
    retry_policy = ChronosRetryPolicy(required=False, allow_null=True)
    timeout = serializers.JSONField(
        required=False, allow_null=True, help_text="A Go duration; bounds one attempt, at most 5m."
    )
    concurrency = Choice(("allow", "forbid", "replace"), required=False, allow_null=True)
    tags = serializers.DictField(child=Text(max_length=128, allow_blank=True), required=False, allow_null=True)
    enabled = Flag(required=False, allow_null=True)


# --- Answers ---------------------------------------------------------------------------------------------------
class ChronosError(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class ChronosRefusal(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    data = serializers.JSONField(allow_null=True)  # type: ignore[assignment]
    error = ChronosError()


class ChronosAnswer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    data = serializers.JSONField()  # type: ignore[assignment]
    error = serializers.JSONField(allow_null=True)
