"""Executr's words: statuses, priorities, job types, and how requests, rows and errors become each other's."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q

from agent_jobs.api.errors import RefusedRequest
from agent_jobs.dialects.base import instant, instant_or_none, renamed
from agent_jobs.errors import FieldError
from agent_jobs.reads import external_jobs
from agent_jobs.reads.external_jobs import IS_HELD, WAITS, JobNumber
from agent_jobs.reads.queries import Row
from agent_jobs.specs import PRIORITY_WORDS, JobSpec
from agent_jobs.states import JobStatus, TaskStatus

# A job that waits for its next attempt is pending here and RUNNING at home.
STATUSES: Mapping[str, Q] = {
    "pending": WAITS,
    "running": IS_HELD,
    "completed": Q(status=JobStatus.COMPLETED),
    "failed": Q(status=JobStatus.FAILED),
    "cancelled": Q(status=JobStatus.CANCELED),
}
_ENDED = {JobStatus.COMPLETED: "completed", JobStatus.FAILED: "failed", JobStatus.CANCELED: "cancelled"}
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
# Their retries: after a minute, then after twice as long each time.
_RETRY_WAITS = {"initial_interval_seconds": 60, "max_interval_seconds": 86_400, "multiplier": 2}
_FIELDS = {"work.environment": "env_variables", "work": "", "config.retry_policy": "max_retries"}
# They know no state conflicts and no 422.
_STATUS_CODES = {409: 400, 422: 400}


def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """`{"error": text, "context": object}`, with the name of the first wrong field."""
    problems = [_named(one) for one in refused.errors]
    context: dict[str, Any] = {"code": refused.code}
    if problems:
        context["field"] = problems[0].field
        context["errors"] = [{"field": one.field, "message": one.message} for one in problems]
    message = "; ".join(f"{one.field}: {one.message}" for one in problems) or refused.message
    return _STATUS_CODES.get(refused.status, refused.status), {"error": message, "context": context}


def _named(problem: FieldError) -> FieldError:
    """The error with their name of the field. `3.work.type` is the type of the third item, counted from 0."""
    place, _, rest = problem.field.partition(".")
    if not place.isdigit():
        return renamed([problem], _FIELDS)[0]
    (inner,) = renamed([FieldError(rest, problem.code, problem.message)], _FIELDS)
    return FieldError(f"{place}.{inner.field}".rstrip("."), inner.code, inner.message)


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
    config = {"retry_policy": {"max_attempts": retries + 1, **_RETRY_WAITS}} if retries else {}
    priority = PRIORITY_WORDS[fields["priority"]]
    return JobSpec(job_type_id=JOB_TYPE, work=work, config=config, priority=priority, token_pk=token_pk)


def status_of(status: str, *, is_held: bool) -> str:
    return _ENDED.get(JobStatus(status)) or ("running" if is_held else "pending")


def priority_word(priority: int) -> str:
    return next(word for word, lowest in PRIORITIES.items() if priority >= lowest)


def of_priority(word: str) -> Q:
    """Jobs whose priority has this word."""
    above = [lowest for lowest in PRIORITIES.values() if lowest > PRIORITIES[word]]
    return Q(priority__gte=PRIORITIES[word]) & (Q(priority__lt=min(above)) if above else Q())


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
    by_status, by_priority = dict.fromkeys(STATUSES, 0), dict.fromkeys(PRIORITIES, 0)
    for one in numbers:
        status = status_of(one.status, is_held=one.is_held)
        by_status[status] += one.jobs
        if status == "pending":
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
    counts = {(status, word): 0 for status in STATUSES for word in PRIORITIES}
    for one in numbers:
        counts[status_of(one.status, is_held=one.is_held), priority_word(one.priority)] += one.jobs
    lines = ["# HELP executr_jobs_in_queue Jobs that have not ended.", "# TYPE executr_jobs_in_queue gauge"]
    lines += [
        f'executr_jobs_in_queue{{status="{status}",priority="{word}"}} {counts[status, word]}'
        for status in ("pending", "running")
        for word in PRIORITIES
    ]
    for name in ("submitted", "completed", "failed", "cancelled"):
        metric = f"executr_jobs_{name}_total"
        lines += [f"# HELP {metric} Jobs {name}, of those still stored.", f"# TYPE {metric} counter"]
        of = STATUSES if name == "submitted" else (name,)
        lines += [f'{metric}{{priority="{word}"}} {sum(counts[status, word] for status in of)}' for word in PRIORITIES]
    lines += [
        "# HELP executr_executors_active Executors seen within a minute.",
        "# TYPE executr_executors_active gauge",
        f"executr_executors_active {active_executors}",
    ]
    return "\n".join([*lines, ""])
