"""The requests and responses of `/services/executors`: serializers, and the JSON of claimed jobs and executors."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from agent_jobs.api.docs import item_of, page_of
from agent_jobs.api.fields import Flag, Object, ProgramText, StrictSerializer, Text, Whole
from agent_jobs.api.formatting import shown
from agent_jobs.errors import FieldError
from agent_jobs.executors import known_executors, reporting
from agent_jobs.executors.claiming import ClaimedJob
from agent_jobs.lifecycle.executor_claims import MOST_AT_ONCE
from agent_jobs.reads import queries
from agent_jobs.runners import external
from agent_jobs.states import JobStatus

MAX_WAIT_SECONDS = 30
_MOST_LABELS = 50
_MOST_TYPES = 100
_MOST_INT = 2**31 - 1


# --- Requests --------------------------------------------------------------------------------------------------
class _LabelList(serializers.ListField):
    """A list of labels or types, as the work of a job may state them."""

    def __init__(self, *, max_word: int, **options: Any) -> None:
        super().__init__(child=Text(max_length=max_word), required=False, **options)
        self._max_word = max_word

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            raise serializers.ValidationError("must be a list", code="invalid")
        if complaint := next(filter(None, (external.word_complaint(word, self._max_word) for word in data)), ""):
            raise serializers.ValidationError(f"each {complaint}", code="invalid")
        return list(dict.fromkeys(super().to_internal_value(data)))


class ClaimRequest(StrictSerializer):
    executor_id = Text(help_text="The executor's own name. It is unique in the organization and stays the same.")
    address = Text(required=False, allow_blank=True, help_text="Where it runs: any text, such as a host's name.")
    labels = _LabelList(max_word=external.MAX_LABEL, max_length=_MOST_LABELS, help_text="Labels that jobs may require.")
    job_types = _LabelList(
        max_word=external.MAX_TYPE,
        max_length=_MOST_TYPES,
        help_text="Only jobs of these types: `work.type`, or else the job type's id. Default: any.",
    )
    binary_only = Flag(required=False, help_text="Only jobs whose work has a binary.")
    max_jobs = Whole(min_value=1, max_value=MOST_AT_ONCE, required=False, help_text="Default 1.")
    wait = Whole(
        min_value=0, max_value=MAX_WAIT_SECONDS, required=False, help_text="Seconds to wait for a job. Default 0."
    )


class _AttemptRequest(StrictSerializer):
    executor_id = Text()
    lease_token = Whole(min_value=0, help_text="As the claim gave it.")


class HeartbeatRequest(_AttemptRequest):
    progress_percent = Whole(min_value=0, max_value=100, required=False)
    progress_message = Text(max_length=1_000, required=False, allow_blank=True)


class ReleaseRequest(_AttemptRequest):
    reason = Text(max_length=1_000, required=False, allow_blank=True)


class CompleteRequest(_AttemptRequest):
    exit_code = Whole(min_value=-_MOST_INT - 1, max_value=_MOST_INT, required=False)
    stdout = ProgramText(help_text="Kept up to 1 MiB: its beginning, a marker, and its end.")
    stderr = ProgramText(help_text="Like stdout.")
    result = ProgramText(help_text="The job's `result`. Default: stdout, up to 10,000 bytes.")
    result_data = serializers.JSONField(required=False, help_text="The job's `result_data`, any JSON up to 1 MiB.")


class FailRequest(_AttemptRequest):
    exit_code = Whole(min_value=-_MOST_INT - 1, max_value=_MOST_INT, required=False)
    stdout = ProgramText()
    stderr = ProgramText()
    error_message = ProgramText(
        required=True, allow_blank=False, help_text="What went wrong, for people. Kept up to 10,000 characters."
    )
    error_code = Text(max_length=64, required=False, help_text=f"For machines. Default: {reporting.DEFAULT_CODE}.")
    is_retryable = Flag(required=False, help_text="false: another attempt would fail too. Default: true.")


def fail_problems(fields: Mapping[str, Any]) -> list[FieldError]:
    code = fields.get("error_code", reporting.DEFAULT_CODE)
    if all(letter.isascii() and (letter.isalnum() or letter == "_") for letter in code):
        return []
    return [FieldError("error_code", "invalid", "must be of letters, digits and underscores")]


# --- Responses -------------------------------------------------------------------------------------------------
class ClaimedJobSerializer(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    lease_token = serializers.IntegerField(help_text="Send it with each later call about this attempt.")
    lease_seconds = serializers.FloatField(help_text="The lease ends then, unless a heartbeat extends it.")
    task_id = serializers.CharField()
    attempt = serializers.IntegerField()
    job_type_id = serializers.CharField()
    type = serializers.CharField(help_text="`work.type`, or else the job type's id.")
    work = Object(help_text="With its secrets.")
    params = Object()
    priority = serializers.IntegerField()
    tags = serializers.ListField(child=serializers.CharField())
    attempt_timeout_seconds = serializers.FloatField(required=False, help_text="How long this attempt may take.")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(help_text="When its first attempt began.")
    deadline_at = serializers.DateTimeField(help_text="The job fails then, whatever its executor does.")
    schedule_id = serializers.CharField(required=False)
    fire_at = serializers.DateTimeField(required=False)


class ClaimMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    executor_id = serializers.CharField()
    count = serializers.IntegerField()


class HeartbeatSerializer(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    is_canceled = serializers.BooleanField(help_text="true: stop the job, and report nothing more of it.")
    lease_seconds = serializers.FloatField(help_text="The lease ends then; 0 for a canceled job.")


class ReportedJobSerializer(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    job_status = serializers.ChoiceField(list(JobStatus))
    next_attempt_at = serializers.DateTimeField(required=False, help_text="If the attempt failed and another follows.")


class HeldJobSerializer(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    job_type_id = serializers.CharField()
    attempt = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    lease_until = serializers.DateTimeField()
    progress_percent = serializers.IntegerField(required=False)
    progress_message = serializers.CharField(required=False)
    progress_at = serializers.DateTimeField(required=False)


class ExecutorSerializer(serializers.Serializer[Any]):
    executor_id = serializers.CharField()
    org_id = serializers.CharField()
    address = serializers.CharField()
    labels = serializers.ListField(child=serializers.CharField())
    job_types = serializers.ListField(child=serializers.CharField(), help_text="Empty: any.")
    is_active = serializers.BooleanField(
        help_text=f"Whether it asked for jobs or reported within {known_executors.ACTIVE_SECONDS} seconds."
    )
    first_seen_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    jobs_done = serializers.IntegerField(help_text="Attempts that it completed.")
    jobs_failed = serializers.IntegerField(help_text="Attempts that it reported as failed.")
    jobs = HeldJobSerializer(many=True, help_text="The jobs that it holds now.")


Claimed = page_of("ClaimedJobs", ClaimedJobSerializer, ClaimMeta)
HeartbeatItem = item_of("HeartbeatItem", HeartbeatSerializer)
ReportedItem = item_of("ReportedJobItem", ReportedJobSerializer)
ExecutorPage = page_of("ExecutorPage", ExecutorSerializer)


def claimed_answer(claimed: ClaimedJob) -> dict[str, Any]:
    job = claimed.job
    return shown(
        ClaimedJobSerializer,
        vars(job),
        job_id=job.pk,
        lease_token=claimed.attempt.lease_token,
        lease_seconds=claimed.lease_seconds,
        task_id=claimed.task_id,
        job_type_id=job.job_type_key,
        type=claimed.work.get("type") or job.job_type_key,
        work=claimed.work,
        attempt_timeout_seconds=job.config.get("attempt_timeout_seconds"),
    )


def executor_answer(row: queries.Row, held: list[Mapping[str, Any]], *, is_active: bool) -> dict[str, Any]:
    jobs = [shown(HeldJobSerializer, job, job_id=job["id"], job_type_id=job["job_type_key"]) for job in held]
    return shown(ExecutorSerializer, row, is_active=is_active, jobs=jobs)
