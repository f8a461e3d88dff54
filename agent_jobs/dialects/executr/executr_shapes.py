"""Executr's requests and responses: what the views check, and what the OpenAPI document shows."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs.api.fields import Text, Whole
from agent_jobs.dialects.executr.executr_words import ATTEMPT_STATUSES, PRIORITIES, STATUSES
from agent_jobs.runners import external

_MOST_INT = 2**31 - 1
_STATUS = ", ".join(STATUSES)


# --- Requests --------------------------------------------------------------------------------------------------
@extend_schema_field({"type": "array", "items": {"type": "string"}})
class _Arguments(serializers.JSONField):
    """Checked by `runners.external`, as the two below."""


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string"}})
class _Variables(serializers.JSONField):
    pass


@extend_schema_field({"type": "string", "description": ", ".join(PRIORITIES)})
class _ExecutrPriority(serializers.ChoiceField):
    pass


class ExecutrSubmitRequest(serializers.Serializer[Any]):
    type = Text(max_length=external.MAX_TYPE, help_text="No blanks.")
    binary_url = Text(max_length=external.MAX_URL)
    binary_sha256 = Text(max_length=64, help_text="64 hexadecimal digits.")
    arguments = _Arguments(required=False, allow_null=True)
    env_variables = _Variables(required=False, allow_null=True)
    priority = _ExecutrPriority(list(PRIORITIES))
    max_retries = Whole(
        min_value=0, max_value=99, required=False, allow_null=True, help_text="Further attempts. Not in the original."
    )


class ExecutrClaimRequest(serializers.Serializer[Any]):
    executor_id = Text()
    executor_ip = Text(allow_blank=True, help_text="Any text, such as a host's name.")


class ExecutrBeatRequest(serializers.Serializer[Any]):
    executor_id = Text()


class _ProgramText(serializers.CharField):
    """Text of any length. null is empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, allow_blank=True, **{"required": False, "allow_null": True, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a string", code="invalid")
        return data


class ExecutrCompleteRequest(serializers.Serializer[Any]):
    executor_id = Text()
    stdout = _ProgramText(help_text="Kept up to 1 MiB: its beginning, a marker, and its end.")
    stderr = _ProgramText(help_text="Like stdout.")
    exit_code = Whole(min_value=-_MOST_INT - 1, max_value=_MOST_INT, required=False, allow_null=True)


class ExecutrFailRequest(ExecutrCompleteRequest):
    error_message = _ProgramText(required=True, allow_null=False, help_text="Kept up to 10,000 characters.")


class ExecutrCancelManyRequest(serializers.Serializer[Any]):
    job_ids = serializers.ListField(child=Text(allow_blank=True), min_length=1, max_length=1_000)


# --- Responses -------------------------------------------------------------------------------------------------
class ExecutrErrorContext(serializers.Serializer[Any]):
    code = serializers.CharField()
    field = serializers.CharField(required=False)
    job_id = serializers.CharField(required=False)


class ExecutrError(serializers.Serializer[Any]):
    error = serializers.CharField()
    context = ExecutrErrorContext()  # type: ignore[assignment]


class ExecutrListedJob(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    type = serializers.CharField()
    binary_url = serializers.CharField()
    binary_sha256 = serializers.CharField()
    arguments = serializers.ListField(child=serializers.CharField())
    env_variables = serializers.DictField(
        child=serializers.CharField(), help_text="Masked, but for tokens that may execute."
    )
    priority = serializers.CharField(help_text=", ".join(PRIORITIES))
    status = serializers.CharField(help_text=_STATUS)
    executor_id = serializers.CharField(allow_null=True)
    exit_code = serializers.IntegerField(allow_null=True)
    error_message = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    last_heartbeat = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)


class ExecutrAttempt(serializers.Serializer[Any]):
    executor_id = serializers.CharField()
    executor_ip = serializers.CharField()
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    status = serializers.CharField(help_text=", ".join(sorted(set(ATTEMPT_STATUSES.values()))))


class ExecutrWholeJob(ExecutrListedJob):
    stdout = serializers.CharField(allow_blank=True)
    stderr = serializers.CharField(allow_blank=True)
    attempts = ExecutrAttempt(many=True)


class ExecutrChanged(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    status = serializers.CharField(help_text=_STATUS)


class ExecutrCancelError(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    error = serializers.CharField()


class ExecutrCanceledMany(serializers.Serializer[Any]):
    cancelled = serializers.IntegerField()
    failed = serializers.IntegerField()
    errors = ExecutrCancelError(many=True)  # type: ignore[assignment]


class ExecutrState(serializers.Serializer[Any]):
    status = serializers.CharField(help_text="healthy, unhealthy")
    database = serializers.CharField(help_text="connected, disconnected")
    error = serializers.CharField(required=False)


class ExecutrNumbers(serializers.Serializer[Any]):
    jobs_by_status = serializers.DictField(child=serializers.IntegerField())
    pending_by_priority = serializers.DictField(child=serializers.IntegerField())
    active_executors = serializers.IntegerField()


class ExecutrActive(serializers.Serializer[Any]):
    executor_id = serializers.CharField()
    current_job_id = serializers.UUIDField(allow_null=True)
    job_type = serializers.CharField(allow_null=True)
    last_heartbeat = serializers.DateTimeField()
    jobs_completed = serializers.IntegerField()
