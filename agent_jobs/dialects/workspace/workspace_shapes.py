"""Workspace's requests and responses: what the views check, and what the OpenAPI document shows."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs.api.fields import Object, Text, Whole
from agent_jobs.dialects.workspace.workspace_words import PRIORITIES, STATUSES, SYNONYMS
from agent_jobs.runners import external

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_STATUS = ", ".join(STATUSES)


# --- Requests --------------------------------------------------------------------------------------------------
class _LenientMoment(serializers.DateTimeField):
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


class WorkspaceCredentials(serializers.Serializer[Any]):
    username = Text(max_length=150)
    password = Text(max_length=4_096)


class WorkspaceRefreshRequest(serializers.Serializer[Any]):
    refresh_token = Text(max_length=4_096)


@extend_schema_field({"type": "string", "description": f"{', '.join(PRIORITIES)}; default: normal"})
class _PriorityWord(serializers.ChoiceField):
    pass


class WorkspaceCreateRequest(serializers.Serializer[Any]):
    job_type = Text(max_length=external.MAX_TYPE, help_text="No blanks.")
    workspace_id = Whole(help_text="As in the path.")
    priority = _PriorityWord(list(PRIORITIES), default="normal")
    metadata = Object(required=False, allow_null=True)
    estimated_duration = Whole(min_value=0, max_value=10**9, required=False, allow_null=True, help_text="Seconds.")
    scheduled_at = _LenientMoment(required=False, allow_null=True)


class WorkspaceChangeRequest(serializers.Serializer[Any]):
    status = serializers.ChoiceField([*STATUSES, *SYNONYMS], required=False, allow_null=True)
    progress_percent = Whole(min_value=0, max_value=100, required=False, allow_null=True)
    progress_message = Text(max_length=1_000, required=False, allow_blank=True, allow_null=True)
    result = Object(required=False, allow_null=True)


# --- Responses -------------------------------------------------------------------------------------------------
class WorkspaceProblem(serializers.Serializer[Any]):
    loc = serializers.ListField(child=serializers.CharField())
    msg = serializers.CharField()
    type = serializers.CharField()


class WorkspaceError(serializers.Serializer[Any]):
    detail = serializers.CharField()
    errors = WorkspaceProblem(many=True, required=False, help_text="Only of a 422.")  # type: ignore[assignment]


class WorkspaceTokens(serializers.Serializer[Any]):
    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.CharField(help_text="bearer")


class WorkspaceJobShape(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    job_type = serializers.CharField()
    status = serializers.CharField(help_text=_STATUS)
    priority = serializers.CharField(help_text=", ".join(PRIORITIES))
    workspace_id = serializers.IntegerField()
    created_by = serializers.IntegerField(allow_null=True)
    result = Object(allow_null=True)
    estimated_duration = serializers.IntegerField(allow_null=True)
    actual_duration = serializers.IntegerField(allow_null=True)
    retry_count = serializers.IntegerField()
    max_retries = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)
    scheduled_at = serializers.DateTimeField(allow_null=True)


class WorkspacePagination(serializers.Serializer[Any]):
    page = serializers.IntegerField()
    limit = serializers.IntegerField()
    total = serializers.IntegerField()
    total_pages = serializers.IntegerField()


class WorkspacePage(serializers.Serializer[Any]):
    data = WorkspaceJobShape(many=True)  # type: ignore[assignment]
    pagination = WorkspacePagination()


class WorkspaceProgress(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    status = serializers.CharField(help_text=_STATUS)
    progress_percent = serializers.IntegerField(allow_null=True)
    progress_message = serializers.CharField(allow_null=True)
    updated_at = serializers.DateTimeField()


class WorkspaceResult(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    result = Object(allow_null=True)
    status = serializers.CharField(help_text=_STATUS)
    completed_at = serializers.DateTimeField(allow_null=True)
