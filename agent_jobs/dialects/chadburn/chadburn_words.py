"""Chadburn's words for ours: statuses, requests, answers and errors."""

import math
import shlex
from collections.abc import Mapping
from typing import Any

from agent_jobs import errors, recurrence
from agent_jobs.api.errors import RefusedRequest
from agent_jobs.dialects import schedule_texts
from agent_jobs.dialects.base import instant, instant_or_none, renamed
from agent_jobs.dialects.chadburn import chadburn_shapes as shapes
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import schedule_rows
from agent_jobs.reads.executions import LastAttempt
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.timing import RetryPolicy, deadline_minutes

# A schedule's own statuses are Chadburn's: active, paused, completed.
EXECUTION_STATUS: Mapping[JobStatus, str] = {
    JobStatus.SCHEDULED: "in_progress",
    JobStatus.WAITING: "in_progress",
    JobStatus.RUNNING: "in_progress",
    JobStatus.COMPLETED: "success",
    JobStatus.FAILED: "failure",
    JobStatus.CANCELED: "failure",
}
RUNNER = "command"
JOB_TYPE = "chadburn-command"
_TEXT = "chadburn.schedule"
_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    411: "length_required",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "unprocessable_entity",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "service_unavailable",
}
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
def rewritten(before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with the fields of a request. None is the default; what is left out stays."""
    found, job = dict(before), dict(before["job"])
    work = dict(job.get("work", {}))
    if "name" in fields:
        found["name"] = fields["name"]
    if "tags" in fields:
        found["tags"] = fields["tags"] or []
    if "schedule" in fields and fields["schedule"] != _schedule_text(before):
        text = fields["schedule"]
        found = {key: value for key, value in found.items() if key not in ("cron", "every_seconds", "run_at")}
        try:
            found |= schedule_texts.timing(text, "UTC")
        except recurrence.BadExpression as error:
            raise Invalid(FieldError("schedule", "invalid_schedule", str(error))) from None
        found["annotations"] = {**found.get("annotations", {}), _TEXT: text}
    if "command" in fields and fields["command"] != _command(work):
        work.pop("argv", None)
        work["shell"] = fields["command"]
    for name in ("environment", "working_directory"):
        if fields.get(name):
            work[name] = fields[name]
        elif name in fields:
            work.pop(name, None)
    if any(name in fields for name in shapes.DEFAULTS):
        job["config"] = {**job.get("config", {}), **_config(before, fields)}
    return {**found, "job": {**job, "work": work}}


def _config(before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Time-out and retries, and a deadline of the whole job that leaves them their time."""
    known = limits(before["job"].get("config", {}))
    stated = {
        name: shapes.DEFAULTS[name] if fields[name] is None else fields[name]
        for name in shapes.DEFAULTS
        if name in fields
    }
    timeout, retries, delay = ({**known, **stated}[name] for name in ("timeout", "retries", "retry_delay"))
    policy = {"max_attempts": retries + 1, "initial_interval_seconds": delay, "max_interval_seconds": delay}
    return {
        "attempt_timeout_seconds": timeout,
        "retry_policy": {**policy, "multiplier": 1, "jitter": 0},
        "max_time_to_complete": deadline_minutes(retries + 1, attempt_seconds=timeout, wait_seconds=delay),
    }


def new(fields: Mapping[str, Any]) -> dict[str, Any]:
    blank = {"overlap": "forbid", "job": {"job_type_id": JOB_TYPE}}
    return rewritten(blank, {**dict.fromkeys(shapes.DEFAULTS), **fields})


# --- Answers ---------------------------------------------------------------------------------------------------
def _schedule_text(definition: Mapping[str, Any]) -> str:
    if not any(key in definition for key in ("cron", "every_seconds", "run_at")):
        return ""
    return schedule_texts.shown(definition, definition.get("annotations", {}).get(_TEXT), shows_zone=False)


def _command(work: Mapping[str, Any]) -> str:
    """The shell line; for a command that another door made of arguments, a line that does the same."""
    return work["shell"] if "shell" in work else shlex.join(work.get("argv", ()))


def limits(config: Mapping[str, Any]) -> dict[str, int]:
    policy = RetryPolicy.of(config)
    seconds = config.get("attempt_timeout_seconds", shapes.CORE_TIMEOUT_SECONDS)
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


def execution(row: Mapping[str, Any], attempt: LastAttempt, reason: str) -> dict[str, Any]:
    """Times and duration are those of all attempts together; code, output and error are those of the last one."""
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


# --- Errors ---
def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """`{"error": {"code": "invalid_schedule", "message": "schedule: …"}}`"""
    problems = renamed(refused.errors, _NAMES)
    known = _CODES.get(refused.status, refused.code)
    code = next((one.code for one in problems if one.code in _TOLD), known)
    return refused.status, {"error": {"code": code, "message": errors.summary(problems) or refused.message}}
