"""Workspace's JSON: its statuses and priorities, what a request means for us, and the bodies of answers and errors."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import F, Q
from rest_framework import serializers

from agent_jobs.api.errors import RefusedRequest
from agent_jobs.api.fields import Choice, Object, Text, Whole
from agent_jobs.dialects.base import instant, instant_or_none, renamed
from agent_jobs.dialects.documentation import MayLack, WordChoice, shape
from agent_jobs.dialects.lenient_fields import LenientMoment
from agent_jobs.executors.hand_moves import HandChange
from agent_jobs.reads import external_jobs, numbered_pages
from agent_jobs.reads.queries import Row
from agent_jobs.runners import external
from agent_jobs.specs import PRIORITY_WORDS, JobSpec, metadata_errors, priorities_named, priority_name
from agent_jobs.states import JobStatus

# Workspace's word for each status (`status_outside`). A PATCH with a word moves the job to that status.
STATUS: Mapping[JobStatus, str] = {
    JobStatus.WAITING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "success",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "cancelled",
}
# The document's examples say `completed`, its tables `success`: both are understood, `success` is sent.
_STATUS_OF = {**{word: status for status, word in STATUS.items()}, "completed": JobStatus.COMPLETED}
STATUS_WORDS = tuple(_STATUS_OF)
PRIORITIES = ("low", "normal", "high", "urgent")
JOB_TYPE = "workspace"
MAX_RETRIES = 3
CANCELED = "Cancelled via API"
RETRIED = "Retried via API"
FAILED = "Failed via API"
# These jobs wait for people, so they may take long.
_MINUTES_TO_COMPLETE = 30 * 24 * 60
_FIELDS = {"work.type": "job_type", "config.estimated_duration_seconds": "estimated_duration", "params": "metadata"}
_NOT_SIGNED_IN = "Not authenticated"


# --- Requests --------------------------------------------------------------------------------------------------
class WorkspaceCredentials(serializers.Serializer[Any]):
    username = Text(max_length=150)
    password = Text(max_length=4_096)


class WorkspaceRefreshRequest(serializers.Serializer[Any]):
    refresh_token = Text(max_length=4_096)


class WorkspaceCreateRequest(serializers.Serializer[Any]):
    job_type = Text(max_length=external.MAX_TYPE, help_text="No blanks.")
    workspace_id = Whole(help_text="As in the path.")
    priority = WordChoice(PRIORITIES, default="normal")
    metadata = Object(required=False, allow_null=True)
    estimated_duration = Whole(min_value=0, max_value=10**9, required=False, allow_null=True, help_text="Seconds.")
    scheduled_at = LenientMoment(required=False, allow_null=True)


class WorkspaceChangeRequest(serializers.Serializer[Any]):
    status = Choice(STATUS_WORDS, required=False, allow_null=True)
    progress_percent = Whole(min_value=0, max_value=100, required=False, allow_null=True)
    progress_message = Text(max_length=1_000, required=False, allow_blank=True, allow_null=True)
    result = Object(required=False, allow_null=True)


def spec(fields: Mapping[str, Any], *, user_pk: int) -> JobSpec:
    """The job that a create asks for. Its metadata are its params; flat values can be searched too."""
    metadata = fields.get("metadata") or {}
    flat = {key: value for key, value in metadata.items() if not metadata_errors({key: value})}
    config: dict[str, Any] = {"max_time_to_complete": _MINUTES_TO_COMPLETE}
    if fields.get("estimated_duration") is not None:
        config["estimated_duration_seconds"] = fields["estimated_duration"]
    return JobSpec(
        job_type_id=JOB_TYPE,
        work={"type": fields["job_type"]},
        config=config,
        params=metadata,
        metadata={} if metadata_errors(flat) else flat,
        priority=PRIORITY_WORDS[fields.get("priority", "normal")],
        scheduled_at=fields.get("scheduled_at"),
        user_pk=user_pk,
    )


def change(fields: Mapping[str, Any]) -> HandChange:
    """The changes that a PATCH asks for. Progress within `result` wins over the fields beside it."""
    result, status = fields.get("result"), fields.get("status")
    percent, message = fields.get("progress_percent"), fields.get("progress_message")
    if result is not None:
        result = dict(result)
        within, said = result.get("progress_percent"), result.get("progress_message")
        if isinstance(within, int) and not isinstance(within, bool) and 0 <= within <= 100:
            percent = result.pop("progress_percent")
        if isinstance(said, str):
            message = result.pop("progress_message")
    target = _STATUS_OF[status] if status else None
    note = CANCELED if target == JobStatus.CANCELED else FAILED
    return HandChange(target, percent, message, result, note)


def of_statuses(words: Sequence[str]) -> Q:
    return reduce(or_, [external_jobs.with_status_outside(_STATUS_OF[word]) for word in words])


def of_priorities(words: Sequence[str]) -> Q:
    return Q(priority__in=[number for word in words for number in priorities_named(word)])


def ordering(sort: str, *, is_descending: bool) -> list[Any]:
    """The order of a list: statuses by the dialect's words for them, priorities by their meaning."""
    by = numbered_pages.status_word(STATUS) if sort == "status" else F(sort)
    last = "-id" if is_descending else "id"
    return [by.desc() if is_descending else by.asc(), last]


# --- Answers ---------------------------------------------------------------------------------------------------
_STATUS = (str, ", ".join(STATUS.values()))
_problem = shape("WorkspaceProblem", loc=[str], msg=str, type=str)
WorkspaceError = shape("WorkspaceError", detail=str, errors=MayLack(([_problem], "Only of a 422.")))
WorkspaceTokens = shape("WorkspaceTokens", access_token=str, refresh_token=str, token_type=str)
WorkspaceJobShape = shape(
    "WorkspaceJobShape",
    job_id=str,
    job_type=str,
    status=_STATUS,
    priority=(str, ", ".join(PRIORITIES)),
    **dict.fromkeys(("workspace_id", "retry_count", "max_retries"), int),
    **dict.fromkeys(("created_by", "estimated_duration", "actual_duration"), int | None),
    result=dict | None,
    **dict.fromkeys(("created_at", "updated_at"), datetime),
    **dict.fromkeys(("started_at", "completed_at", "scheduled_at"), datetime | None),
)
_pagination = shape("WorkspacePagination", page=int, limit=int, total=int, total_pages=int)
WorkspacePage = shape("WorkspacePage", data=[WorkspaceJobShape], pagination=_pagination)
WorkspaceProgress = shape(
    "WorkspaceProgress",
    job_id=str,
    status=_STATUS,
    progress_percent=int | None,
    progress_message=str | None,
    updated_at=datetime,
)
WorkspaceResult = shape("WorkspaceResult", job_id=str, result=dict | None, status=_STATUS, completed_at=datetime | None)


def status_of(row: Row) -> str:
    is_held = row["lease_until"] is not None
    return STATUS[external_jobs.status_outside(row["status"], runner=row["runner"], is_held=is_held)]


def job(row: Row) -> dict[str, Any]:
    """A job as the document shows it."""
    started, ended = row["started_at"], row["finished_at"]
    requested = row["requested_at"] if not row["retry_count"] else None
    is_external = row["runner"] == external.NAME
    return {
        "job_id": str(row["id"]),
        "job_type": external_jobs.type_of(row["placement"]) if is_external else row["job_type_key"],
        "status": status_of(row),
        "priority": priority_name(row["priority"]),
        "workspace_id": row["org__number"],
        "created_by": row["created_by_user"],
        "result": result(row),
        "estimated_duration": row["config"].get("estimated_duration_seconds"),
        "actual_duration": max(0, int((ended - started).total_seconds())) if started and ended else None,
        "retry_count": row["retry_count"],
        "max_retries": MAX_RETRIES,
        "created_at": instant(row["created_at"]),
        "updated_at": instant(row["updated_at"]),
        "started_at": instant_or_none(started),
        "completed_at": instant_or_none(ended),
        "scheduled_at": instant_or_none(requested),
    }


def result(row: Row) -> dict[str, Any] | None:
    """The result as the document shows it: progress while the job goes on, and why it was cancelled or retried."""
    status = status_of(row)
    found = row["result_data"] if isinstance(row["result_data"], dict) else {}
    if row.get("result_bytes") and row["result_data"] is None:
        found = {"omitted_bytes": row["result_bytes"]}
    elif row["result_data"] is not None and not found and row["result_data"] != {}:
        found = {"value": row["result_data"]}
    match status:
        case "cancelled":
            return {"cancelled_reason": row["cancel_note"].partition(": ")[2] or CANCELED, **found}
        case "pending" | "running":
            said = {"progress_percent": row["progress_percent"], "progress_message": row["progress_message"] or None}
            progress = {key: value for key, value in said.items() if value is not None}
            if status == "pending" and row["retry_count"] and not (progress or found):
                return {"retry_reason": RETRIED, "previous_attempts": row["attempt"]}
            return {**progress, **found} or None
        case "failed":
            return found or ({"error": row["error_message"]} if row["error_message"] else None)
    if not found and row["result_data"] is None and row["runner"] != external.NAME and row["result"]:
        return {"result": row["result"]}
    return found or row["result_data"]


def progress_of(row: Row) -> dict[str, Any]:
    return {
        "job_id": str(row["id"]),
        "status": status_of(row),
        "progress_percent": row["progress_percent"],
        "progress_message": row["progress_message"] or None,
        "updated_at": instant(row["updated_at"]),
    }


# --- Errors ----------------------------------------------------------------------------------------------------
def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """`{"detail": text}`; a 422 for wrong values also lists them, as FastAPI does."""
    if refused.status == 401:
        return 401, {"detail": _NOT_SIGNED_IN}
    if refused.status == 400 and all(one.code == "invalid_json" for one in refused.errors):
        return 400, {"detail": refused.message}
    if refused.status == 400:
        problems = renamed(refused.errors, _FIELDS)
        told = [{"loc": one.field.split("."), "msg": one.message, "type": one.code} for one in problems]
        return 422, {"detail": "; ".join(f"{one.field}: {one.message}" for one in problems), "errors": told}
    return 400 if refused.status == 409 else refused.status, {"detail": refused.message}
