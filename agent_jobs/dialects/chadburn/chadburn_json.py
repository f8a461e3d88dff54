"""Chadburn's JSON: its statuses, what a request means for us, and the bodies of answers and errors (`envelope`)."""

import math
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rest_framework import serializers

from agent_jobs.api.errors import RefusedRequest
from agent_jobs.api.fields import Choice, Name, Text, Whole
from agent_jobs.dialects import schedule_texts
from agent_jobs.dialects.base import ERROR_CODES, instant, instant_or_none, told
from agent_jobs.dialects.documentation import MayLack, shape
from agent_jobs.reads import schedule_rows
from agent_jobs.reads.executions import LastAttempt
from agent_jobs.runners.command_runner import DEFAULT_ATTEMPT_SECONDS
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.timing import RetryPolicy
from agent_jobs.work import ONLY_CREDENTIALS

# A schedule's own statuses are Chadburn's: active, paused, completed.
EXECUTION_STATUS: Mapping[JobStatus, str] = {
    JobStatus.SCHEDULED: "in_progress",
    JobStatus.WAITING: "in_progress",
    JobStatus.RUNNING: "in_progress",
    JobStatus.COMPLETED: "success",
    JobStatus.FAILED: "failure",
    JobStatus.CANCELED: "failure",
}
_TEXT = "chadburn.schedule"
_DEFAULTS = {"timeout": 3_600, "retries": 0, "retry_delay": 60}
_LONGEST_SECONDS = 604_800
_CODES = {**ERROR_CODES, 400: "invalid_request", 429: "rate_limit_exceeded", 503: "service_unavailable"}
# Errors of fields that have a code of their own.
_TOLD = ("invalid_schedule", "invalid_json")
# Our names of fields and those of Chadburn.
_NAMES = {
    **dict.fromkeys(("cron", "every_seconds", "run_at", "time_zone"), "schedule"),
    **dict.fromkeys(("job.work.shell", "job.work.argv"), "command"),
    "job.work": "",
    "job.config.attempt_timeout_seconds": "timeout",
    "job.config.retry_policy": "retries",
}


# --- Requests --------------------------------------------------------------------------------------------------
class ChadburnJobRequest(serializers.Serializer[Any]):
    """A job to create. A field that is null gets its default."""

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
    """A change of a job. Fields that are left out stay as they are."""

    name = Name(max_length=255, required=False)
    schedule = Text(max_length=300, required=False)
    command = Text(max_length=100_000, required=False)
    status = Choice(("active", "paused"), required=False)


def rewritten(before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with the fields of a request. None is the default; what is left out stays."""
    found, job = dict(before), dict(before["job"])
    work = dict(job.get("work", {}))
    if "name" in fields:
        found["name"] = fields["name"]
    if "tags" in fields:
        found["tags"] = fields["tags"] or []
    if "schedule" in fields and fields["schedule"] != _schedule_text(before):
        found = schedule_texts.rescheduled(found, fields["schedule"], None, zone=None)
        found["annotations"] = {**found.get("annotations", {}), _TEXT: fields["schedule"]}
    if "command" in fields and fields["command"] != _command(work):
        work.pop("argv", None)
        work["shell"] = fields["command"]
    for name in ("environment", "working_directory"):
        if fields.get(name):
            work[name] = fields[name]
        elif name in fields:
            work.pop(name, None)
    stated = {name: fields[name] for name in _DEFAULTS if name in fields}
    if stated:
        known = {**limits(job.get("config", {})), **stated}
        timeout, retries, delay = (_DEFAULTS[name] if known[name] is None else known[name] for name in _DEFAULTS)
        policy = RetryPolicy(retries + 1, delay, delay, multiplier=1)
        job["config"] = {**job.get("config", {}), **policy.config(attempt_seconds=timeout)}
    return {**found, "job": {**job, "work": work}}


def new(job_type: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    blank = {"overlap": "forbid", "job": {"job_type_id": job_type, "config": {"output_masks": ONLY_CREDENTIALS}}}
    return rewritten(blank, {**dict.fromkeys(_DEFAULTS), **fields})


# --- Answers ---------------------------------------------------------------------------------------------------
ChadburnRefusal = shape("ChadburnRefusal", error=shape("ChadburnError", code=str, message=str))
_listed: dict[str, Any] = {
    **dict.fromkeys(("id", "name", "schedule", "command"), str),
    "status": (str, "active, paused or completed"),
    "tags": [str],
    "created_at": datetime,
    "updated_at": datetime,
}
_run: dict[str, Any] = {
    "status": (str, "success, failure or in_progress"),
    "started_at": datetime,
    "finished_at": datetime | None,
    "exit_code": int | None,
    "output": str,
}
_execution = shape(
    "ChadburnExecution",
    **_run,
    **dict.fromkeys(("id", "job_id"), str),
    duration=(int | None, "Seconds from the first start to the last end."),
    error=str | None,
    retry_count=(int, "Attempts after the first one."),
)
_job = shape(
    "ChadburnJob",
    **_listed,
    **dict.fromkeys(_DEFAULTS, int),
    environment=(dict[str, str], "Values are masked."),
    working_directory=str | None,
    last_run=shape("ChadburnRun", **_run) | None,
    next_run=datetime | None,
)
_done = dict.fromkeys(("id", "execution_id", "status", "next_run"), MayLack(str))
_pagination = shape("ChadburnPagination", total=int, limit=int, offset=int)
ChadburnJobs = shape("ChadburnJobs", data=[shape("ChadburnListed", **_listed)], pagination=_pagination)
ChadburnExecutions = shape("ChadburnExecutions", data=[_execution], pagination=_pagination)
ChadburnItem = shape("ChadburnItem", data=_job)
ChadburnAnswer = shape("ChadburnAnswer", data=shape("ChadburnDone", message=str, **_done))


def _schedule_text(definition: Mapping[str, Any]) -> str:
    return schedule_texts.shown(definition, definition.get("annotations", {}).get(_TEXT), shows_zone=False)


def _command(work: Mapping[str, Any]) -> str:
    """The shell line; for a command that another API made of arguments, a line that does the same."""
    return work["shell"] if "shell" in work else shlex.join(work.get("argv", ()))


def limits(config: Mapping[str, Any]) -> dict[str, int]:
    """The time-out and retries of a job. If another API made it without a time-out, the runner's default is shown."""
    policy = RetryPolicy.of(config)
    seconds = config.get("attempt_timeout_seconds", DEFAULT_ATTEMPT_SECONDS)
    return {
        "timeout": math.ceil(seconds),
        "retries": policy.max_attempts - 1,
        "retry_delay": math.ceil(policy.initial_seconds),
    }


def listed(row: Mapping[str, Any]) -> dict[str, Any]:
    definition = row["definition"]
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "schedule": _schedule_text(definition),
        "command": _command(definition["job"].get("work", {})),
        "status": schedule_rows.status(row),
        "tags": row["tags"],
        "created_at": instant(row["created_at"]),
        "updated_at": instant(row["updated_at"]),
    }


def job(row: Mapping[str, Any], last_run: Mapping[str, Any] | None) -> dict[str, Any]:
    work = row["definition"]["job"].get("work", {})
    return {
        **listed(row),
        **limits(row["definition"]["job"].get("config", {})),
        "environment": work.get("environment", {}),
        "working_directory": work.get("working_directory"),
        "last_run": {key: last_run[key] for key in _run} if last_run else None,
        "next_run": instant_or_none(row["next_at"]),
    }


def execution(row: Mapping[str, Any], attempt: LastAttempt, reason: str) -> dict[str, Any]:
    """An execution. Times and duration cover all attempts together; exit code, output and error are those of the last
    one.
    """
    status = EXECUTION_STATUS[row["status"]]
    has_ended, started_at = row["status"] in TERMINAL, row["started_at"] or row["scheduled_at"]
    said = reason or attempt.stderr or attempt.message or row["error_message"] or row["error_code"]
    seconds = (row["finished_at"] - started_at).total_seconds() if has_ended else None
    return {
        "id": str(row["id"]),
        "job_id": str(row["schedule_id"]),
        "status": status,
        "started_at": instant(started_at),
        "finished_at": instant_or_none(row["finished_at"]),
        "duration": None if seconds is None else max(int(seconds), 0),
        "exit_code": attempt.exit_code if has_ended else None,
        "output": attempt.stdout or "",
        "error": said if status == "failure" else None,
        "retry_count": max(attempt.count - 1, 0),
    }


# --- Errors ----------------------------------------------------------------------------------------------------
def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """Chadburn's status code and body for a refused request.

    `{"error": {"code": "invalid_schedule", "message": "schedule: …"}}`
    """
    code, message = told(refused, _NAMES, _CODES, _TOLD)
    return refused.status, {"error": {"code": code, "message": message}}
