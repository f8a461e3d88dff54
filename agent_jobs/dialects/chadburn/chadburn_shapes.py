"""The fields of Chadburn's requests, and its answers for the OpenAPI document."""

from typing import Any

from rest_framework import serializers

from agent_jobs.api.fields import Choice, Name, Text, Whole
from agent_jobs.runners.command_runner import DEFAULT_ATTEMPT_SECONDS

_LONGEST_SECONDS = 604_800
# The time-out shown for a job that another door made without one.
CORE_TIMEOUT_SECONDS = DEFAULT_ATTEMPT_SECONDS
DEFAULTS = {"timeout": 3_600, "retries": 0, "retry_delay": 60}


class ChadburnJobRequest(serializers.Serializer[Any]):
    """A null means the default."""

    name = Name(max_length=255)
    schedule = Text(max_length=300, help_text="Cron with 5 or 6 fields, `@daily`, `@every 5m`, or an ISO time (once).")
    command = Text(max_length=100_000, help_text="A line for /bin/sh.")
    tags = serializers.ListField(child=Text(max_length=160), required=False, allow_null=True, max_length=50)
    timeout = Whole(required=False, allow_null=True, min_value=1, max_value=_LONGEST_SECONDS)
    retries = Whole(required=False, allow_null=True, min_value=0, max_value=99)
    retry_delay = Whole(required=False, allow_null=True, min_value=0, max_value=_LONGEST_SECONDS)
    environment = serializers.DictField(
        child=Text(max_length=65_536, allow_blank=True), required=False, allow_null=True
    )
    working_directory = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)


class ChadburnJobUpdate(ChadburnJobRequest):
    """Fields that are left out stay as they are."""

    name = Name(max_length=255, required=False)
    schedule = Text(max_length=300, required=False)
    command = Text(max_length=100_000, required=False)
    status = Choice(("active", "paused"), required=False)


# --- Answers ---------------------------------------------------------------------------------------------------
class ChadburnError(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class ChadburnRefusal(serializers.Serializer[Any]):
    error = ChadburnError()


class ChadburnListed(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    schedule = serializers.CharField()
    command = serializers.CharField()
    status = serializers.CharField(help_text="active, paused or completed")
    tags = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ChadburnRun(serializers.Serializer[Any]):
    status = serializers.CharField(help_text="success, failure or in_progress")
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    exit_code = serializers.IntegerField(allow_null=True)
    output = serializers.CharField()


class ChadburnExecution(ChadburnRun):
    id = serializers.CharField()
    job_id = serializers.CharField()
    duration = serializers.IntegerField(allow_null=True, help_text="Seconds from the first start to the last end.")
    error = serializers.CharField(allow_null=True)
    retry_count = serializers.IntegerField(help_text="Attempts after the first one.")


class ChadburnJob(ChadburnListed):
    timeout = serializers.IntegerField()
    retries = serializers.IntegerField()
    retry_delay = serializers.IntegerField()
    environment = serializers.DictField(child=serializers.CharField(), help_text="Values are masked.")
    working_directory = serializers.CharField(allow_null=True)
    last_run = ChadburnRun(allow_null=True)
    next_run = serializers.DateTimeField(allow_null=True)


class ChadburnDone(serializers.Serializer[Any]):
    message = serializers.CharField()
    id = serializers.CharField(required=False)
    execution_id = serializers.CharField(required=False)
    status = serializers.CharField(required=False)
    next_run = serializers.DateTimeField(required=False)


class ChadburnPagination(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    limit = serializers.IntegerField()
    offset = serializers.IntegerField()


class ChadburnJobs(serializers.Serializer[Any]):
    data = ChadburnListed(many=True)  # type: ignore[assignment]
    pagination = ChadburnPagination()


class ChadburnExecutions(serializers.Serializer[Any]):
    data = ChadburnExecution(many=True)  # type: ignore[assignment]
    pagination = ChadburnPagination()


class ChadburnItem(serializers.Serializer[Any]):
    data = ChadburnJob()  # type: ignore[assignment]


class ChadburnAnswer(serializers.Serializer[Any]):
    data = ChadburnDone()  # type: ignore[assignment]
