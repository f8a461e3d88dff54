"""Executr's JSON: its statuses and priorities, what a request means for us, and the bodies of answers and errors."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_jobs.api.errors import RefusedRequest
from agent_jobs.api.fields import ProgramText, Text, Whole
from agent_jobs.dialects.base import instant, instant_or_none, renamed
from agent_jobs.dialects.documentation import MayLack, WordChoice, shape
from agent_jobs.reads import external_jobs
from agent_jobs.reads.external_jobs import JobNumber
from agent_jobs.reads.queries import Row
from agent_jobs.runners import external
from agent_jobs.specs import PRIORITIES as ALL_PRIORITIES
from agent_jobs.specs import PRIORITY_WORDS, JobSpec
from agent_jobs.states import JobStatus, TaskStatus
from agent_jobs.work import ONLY_CREDENTIALS

# Executr's word for each status (`status_outside`).
STATUS: Mapping[JobStatus, str] = {
    JobStatus.WAITING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "cancelled",
}
ATTEMPT_STATUSES: Mapping[str, str] = {
    TaskStatus.RUNNING: "running",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELED: "failed",
    TaskStatus.WAITED: "failed",
    TaskStatus.RELEASED: "failed",
    TaskStatus.TIMEOUT: "timeout",
}
# The smallest number that has the word, highest first. A new job gets the one of `PRIORITY_WORDS`.
PRIORITIES: Mapping[str, int] = {"foreground": 6, "background": 4, "best_effort": 0}
JOB_TYPE = "executr"
_MOST_INT = 2**31 - 1
# Their retries: after a minute, then after twice as long each time.
_RETRY_WAITS = {"initial_interval_seconds": 60, "max_interval_seconds": 86_400, "multiplier": 2}
_FIELDS = {"work.environment": "env_variables", "work": "", "config.retry_policy": "max_retries"}
# They know no state conflicts and no 422.
_STATUS_CODES = {409: 400, 422: 400}


# --- Requests ---
@extend_schema_field({"type": "array", "items": {"type": "string"}})
class _Arguments(serializers.JSONField):
    """Checked by `runners.external`, as the two below."""


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string"}})
class _Variables(serializers.JSONField):
    pass


class ExecutrSubmitRequest(serializers.Serializer[Any]):
    type = Text(max_length=external.MAX_TYPE, help_text="No blanks.")
    binary_url = Text(max_length=external.MAX_URL)
    binary_sha256 = Text(max_length=64, help_text="64 hexadecimal digits.")
    arguments = _Arguments(required=False, allow_null=True)
    env_variables = _Variables(required=False, allow_null=True)
    priority = WordChoice(tuple(PRIORITIES))
    max_retries = Whole(
        min_value=0, max_value=99, required=False, allow_null=True, help_text="Further attempts. Not in the original."
    )


class ExecutrClaimRequest(serializers.Serializer[Any]):
    executor_id = Text()
    executor_ip = Text(allow_blank=True, help_text="Any text, such as a host's name.")


class ExecutrBeatRequest(serializers.Serializer[Any]):
    executor_id = Text()


class ExecutrCompleteRequest(serializers.Serializer[Any]):
    executor_id = Text()
    stdout = ProgramText(allow_null=True, help_text="Kept up to 1 MiB: its beginning, a marker, and its end.")
    stderr = ProgramText(allow_null=True, help_text="Like stdout.")
    exit_code = Whole(min_value=-_MOST_INT - 1, max_value=_MOST_INT, required=False, allow_null=True)


class ExecutrFailRequest(ExecutrCompleteRequest):
    error_message = ProgramText(required=True, help_text="Kept up to 10,000 characters.")


class ExecutrCancelManyRequest(serializers.Serializer[Any]):
    job_ids = serializers.ListField(child=Text(allow_blank=True), min_length=1, max_length=1_000)


def spec(fields: Mapping[str, Any], *, token_pk: int) -> JobSpec:
    """The job that a submit asks for."""
    work = {
        "type": fields["type"],
        "binary_url": fields["binary_url"],
        "binary_sha256": fields["binary_sha256"],
        "arguments": fields.get("arguments") or [],
        "environment": fields.get("env_variables") or {},
    }
    retries = fields.get("max_retries") or 0
    config: dict[str, Any] = {"output_masks": ONLY_CREDENTIALS}
    if retries:
        config["retry_policy"] = {"max_attempts": retries + 1, **_RETRY_WAITS}
    priority = PRIORITY_WORDS[fields["priority"]]
    return JobSpec(job_type_id=JOB_TYPE, work=work, config=config, priority=priority, token_pk=token_pk)


def status_of(status: str, *, is_held: bool) -> str:
    return STATUS[external_jobs.status_outside(status, runner=external.NAME, is_held=is_held)]


def with_status(word: str) -> Q:
    return external_jobs.with_status_outside(next(status for status, known in STATUS.items() if known == word))


def priority_word(priority: int) -> str:
    return next(word for word, lowest in PRIORITIES.items() if priority >= lowest)


def with_priority(word: str) -> Q:
    return Q(priority__in=[number for number in ALL_PRIORITIES if priority_word(number) == word])


# --- Answers ---
_context = shape("ExecutrErrorContext", code=str, field=MayLack(str), job_id=MayLack(str))
ExecutrError = shape("ExecutrError", error=str, context=_context)
_listed: dict[str, Any] = {
    "id": UUID,
    **dict.fromkeys(("type", "binary_url", "binary_sha256", "error_message"), str),
    "status": (str, ", ".join(STATUS.values())),
    "priority": (str, ", ".join(PRIORITIES)),
    "arguments": [str],
    "env_variables": (dict[str, str], "Masked, but for tokens that may execute."),
    "executor_id": str | None,
    "exit_code": int | None,
    "created_at": datetime,
    **dict.fromkeys(("started_at", "last_heartbeat", "completed_at"), datetime | None),
}
ExecutrListedJob = shape("ExecutrListedJob", **_listed)
_attempt = shape(
    "ExecutrAttempt", executor_id=str, executor_ip=str, started_at=datetime, ended_at=datetime | None, status=str
)
ExecutrWholeJob = shape("ExecutrWholeJob", **_listed, stdout=str, stderr=str, attempts=[_attempt])
ExecutrChanged = shape("ExecutrChanged", id=UUID, status=str)
_cancel_error = shape("ExecutrCancelError", job_id=str, error=str)
ExecutrCanceledMany = shape("ExecutrCanceledMany", cancelled=int, failed=int, errors=[_cancel_error])
ExecutrState = shape("ExecutrState", status=str, database=str, error=MayLack(str))
ExecutrNumbers = shape(
    "ExecutrNumbers", jobs_by_status=dict[str, int], pending_by_priority=dict[str, int], active_executors=int
)
ExecutrActive = shape(
    "ExecutrActive",
    executor_id=str,
    current_job_id=UUID | None,
    job_type=str | None,
    last_heartbeat=datetime,
    jobs_completed=int,
)


def listed(row: Row, attempts: Sequence[Row]) -> dict[str, Any]:
    """A job without its attempts and outputs; those of a thousand jobs would be too much for a list."""
    work, last = row["work"], attempts[0] if attempts else None
    is_held = row["lease_until"] is not None
    beat = timedelta(seconds=settings.LEASE_SECONDS)
    status = status_of(row["status"], is_held=is_held)
    exit_code = last["exit_code"] if last else None
    return {
        "id": str(row["id"]),
        "type": external_jobs.type_of(row["placement"]),
        "binary_url": work.get("binary_url", ""),
        "binary_sha256": work.get("binary_sha256", ""),
        "arguments": work.get("arguments") or [],
        "env_variables": work.get("environment") or {},
        "priority": priority_word(row["priority"]),
        "status": status,
        "executor_id": row["executor_id"] or None,
        "exit_code": None if exit_code is None else int(exit_code),
        "error_message": row["error_message"],
        "created_at": instant(row["created_at"]),
        "started_at": instant(last["created_at"]) if last and status != "pending" else None,
        "last_heartbeat": instant(row["lease_until"] - beat) if is_held else None,
        "completed_at": instant_or_none(row["finished_at"]),
    }


def shown(row: Row, attempts: Sequence[Row], report: Mapping[str, Any]) -> dict[str, Any]:
    """A whole job."""
    return {
        **listed(row, attempts),
        "stdout": report.get("stdout", ""),
        "stderr": report.get("stderr", ""),
        "attempts": [
            {
                "executor_id": one["executor_id"],
                "executor_ip": one["executor_address"],
                "started_at": instant(one["created_at"]),
                "ended_at": instant_or_none(one["finished_at"]),
                "status": ATTEMPT_STATUSES[one["status"]],
            }
            for one in attempts
        ],
    }


def stats(numbers: Sequence[JobNumber], *, active_executors: int) -> dict[str, Any]:
    by_status, by_priority = dict.fromkeys(STATUS.values(), 0), dict.fromkeys(PRIORITIES, 0)
    for one in numbers:
        by_status[STATUS[one.status]] += one.jobs
        if one.status == JobStatus.WAITING:
            by_priority[priority_word(one.priority)] += one.jobs
    return {"jobs_by_status": by_status, "pending_by_priority": by_priority, "active_executors": active_executors}


def executor(row: Row, held: Sequence[Row]) -> dict[str, Any]:
    current = held[0] if held else None
    return {
        "executor_id": row["executor_id"],
        "current_job_id": str(current["id"]) if current else None,
        "job_type": external_jobs.type_of(current["placement"]) if current else None,
        "last_heartbeat": instant(row["last_seen_at"]),
        "jobs_completed": row["jobs_done"],
    }


def metrics(numbers: Sequence[JobNumber], *, active_executors: int) -> str:
    """Prometheus' text. Its labels are words of these tables only, so their number is bounded."""
    counts = {(status, word): 0 for status in STATUS.values() for word in PRIORITIES}
    for one in numbers:
        counts[STATUS[one.status], priority_word(one.priority)] += one.jobs
    lines = _metric("executr_jobs_in_queue", "gauge", "Jobs that have not ended.")
    for status in ("pending", "running"):
        for word in PRIORITIES:
            lines.append(f'executr_jobs_in_queue{{status="{status}",priority="{word}"}} {counts[status, word]}')
    for name in ("submitted", "completed", "failed", "cancelled"):
        metric = f"executr_jobs_{name}_total"
        lines += _metric(metric, "counter", f"Jobs {name}, of those still stored.")
        of = STATUS.values() if name == "submitted" else (name,)
        lines += [f'{metric}{{priority="{word}"}} {sum(counts[status, word] for status in of)}' for word in PRIORITIES]
    lines += _metric("executr_executors_active", "gauge", "Executors seen within a minute.")
    return "\n".join([*lines, f"executr_executors_active {active_executors}", ""])


def _metric(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


# --- Errors ---
def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """`{"error": text, "context": object}`, with the name of the first wrong field."""
    problems = renamed(refused.errors, _FIELDS)
    context: dict[str, Any] = {"code": refused.code}
    if problems:
        context["field"] = problems[0].field
        context["errors"] = [{"field": one.field, "message": one.message} for one in problems]
    message = "; ".join(f"{one.field}: {one.message}" for one in problems) or refused.message
    return _STATUS_CODES.get(refused.status, refused.status), {"error": message, "context": context}
