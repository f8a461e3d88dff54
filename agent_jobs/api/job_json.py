"""Builds a job's JSON for clients, from rows with the columns `reads.queries.JOB_COLUMNS`.

`job_docs` decides which fields are shown, with their types and meanings. A new field needs a line there, and a value
here unless it is a column of the same name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_jobs.api import activities, approvals, job_docs
from agent_jobs.api.formatting import filled, number, shown, stamp
from agent_jobs.budgets import limits
from agent_jobs.reads import explanations, queries
from agent_jobs.specs import priority_name
from agent_jobs.states import JobStatus, WaitingFor
from channels_integration import directory, platforms

Names = Mapping[tuple[str, str], str]


def of(rows: Sequence[queries.Row], *, is_detail: bool = False, are_new: bool = False) -> list[dict[str, Any]]:
    """Jobs in JSON form. Runs two SQL statements for any number of jobs; one for new jobs, which have no tasks."""
    ids = [row["id"] for row in rows]
    names = _names(rows)
    tasks = queries.tasks_of(ids) if ids and not are_new else {}
    logs = queries.logs_of(ids) if ids else {}
    return [
        _answer(row, tasks.get(row["id"], []), logs.get(row["id"], queries.Log()), names, is_detail=is_detail)
        for row in rows
    ]


def created(job: Any) -> dict[str, Any]:
    """The whole response to the POST that created this job, built from the object without reading the row again."""
    row = {column: getattr(job, column) for column in queries.JOB_COLUMNS}
    (data,) = of([row], is_detail=True, are_new=True)
    return {"data": data, "meta": {"org_id": data["org_id"], "id": data["id"]}}


def existing(org_id: str, job_id: str) -> dict[str, Any]:
    """The answer to a POST whose `unique_key` this job has already."""
    (data,) = of([queries.job(org_id, UUID(job_id))], is_detail=True)
    return {"data": data, "meta": {"org_id": org_id, "id": data["id"], "is_existing": True}}


def moved(org_id: str, job_id: UUID, past: str) -> dict[str, Any]:
    """The answer to a move of a job."""
    (data,) = of([queries.job(org_id, job_id)], is_detail=True)
    message = f"Job with ID '{data['id']}' successfully {past}"
    return {"data": data, "meta": {"org_id": org_id, "job_id": data["id"]}, "message": message}


def explanation(found: explanations.Explanation) -> dict[str, Any]:
    """The explanation as JSON, with every field, null if empty. The API's document, which knows no nulls, does not have
    it.
    """
    values = asdict(found)
    blocked_by = [shown(job_docs.HolderSerializer, holder) for holder in values["blocked_by"]]
    return shown(job_docs.ExplanationSerializer, values, blocked_by=blocked_by)


def _names(rows: Sequence[queries.Row]) -> Names:
    """The names of these jobs' channels; only channels in our own register can have one."""
    named = [row for row in rows if row["platform"] not in platforms.WITHOUT_CHANNEL_NAMES]
    places = {(row["platform"], row["channel_code"]) for row in named}
    return directory.names(rows[0]["org_id"], places) if places else {}


def _channel_data(row: queries.Row, names: Names) -> dict[str, Any]:
    """The channel data exactly as the client sent it, then the other values that are known."""
    known = {
        "platform": row["platform"],
        "channel_id": row["channel_code"],
        "name": names.get((row["platform"], row["channel_code"])),
        "thread_id": row["thread"],
    }
    return {**row["channel_data"], **filled({key: known[key] for key in known if key not in row["channel_data"]})}


def _answer(
    row: queries.Row, tasks: Sequence[queries.Row], log: queries.Log, names: Names, *, is_detail: bool
) -> dict[str, Any]:
    is_waiting_outside = _is_waiting_outside(row)
    more = {
        "job_id": row["id"],
        "channel_data": _channel_data(row, names),
        "chat_id": activities.chat_id(row["platform"], row["channel_code"], row["thread"]),
        "job_type_id": row["job_type_key"],
        "job_status": row["status"],
        "priority_name": priority_name(row["priority"]),
        "metadata": dict(sorted(row["metadata"].items())),
        "waiting_for": row["waiting_for"] if is_waiting_outside else None,
        "wake_at": row["wake_at"] if is_waiting_outside else None,
        "last_task_created_at": tasks[-1]["created_at"] if tasks else None,
        "tasks": [shown(job_docs.JobTask, task, task_id=task["id"]) for task in tasks],
        "job_config": row["config"],
        "work": row["work"] or None,
        "tags": ",".join(row["tags"]),
        "flags": shown(job_docs.JobFlags, row, has_human_reply=row["inbox_count"] > 0),
        "execution_log": [f"{stamp(at)} {note}" for at, note in log.lines],
        "activities_count": log.count,
        "retry_count": row["retry_count"] or None,
        "requested_scheduled_at": row["requested_at"],
    }
    if is_detail and row["waiting_for"] == WaitingFor.APPROVAL:
        pending = queries.approvals_of(row["org_id"], row["id"], is_pending=True)
        more["approvals"] = [approvals.answer(approval) for approval in pending] or None
    if is_detail and row["config"].get("on_budget_exhausted") == "approve":
        granted = limits.granted(row["org_id"], row["id"])
        more["budget_granted"] = {cap: number(Decimal(amount)) for cap, amount in granted.items()} or None
    return shown(job_docs.JobInDetail if is_detail else job_docs.JobSerializer, row, **more)


def _is_waiting_outside(row: queries.Row) -> bool:
    is_alive = row["status"] in {JobStatus.SCHEDULED, JobStatus.RUNNING}
    return is_alive and row["lease_until"] is None and row["queue_at"] is None
