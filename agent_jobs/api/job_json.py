"""Builds a job's JSON for clients. `job_docs` describes the types and meanings of its fields."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_jobs.api import activities, approvals
from agent_jobs.api.formatting import filled, number, stamp, stamp_or_none
from agent_jobs.budgets import limits
from agent_jobs.reads import explanations, queries
from agent_jobs.specs import priority_name
from agent_jobs.states import JobStatus, WaitingFor
from channels_integration import directory

Names = Mapping[tuple[str, str], str]
# Platforms whose channels are not in our register, and so have no name.
_WITHOUT_NAMES = {"slack", "null"}


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
    (shown,) = of([row], is_detail=True, are_new=True)
    return {"data": shown, "meta": {"org_id": shown["org_id"], "id": shown["id"]}}


def existing(org_id: str, job_id: str) -> dict[str, Any]:
    """The answer to a POST whose `unique_key` this job has already."""
    (shown,) = of([queries.job(org_id, UUID(job_id))], is_detail=True)
    return {"data": shown, "meta": {"org_id": org_id, "id": shown["id"], "is_existing": True}}


def explanation(found: explanations.Explanation) -> dict[str, Any]:
    """Always has every field, null if empty. Nulls break no client: the API's document does not have this object."""
    return {
        "state": found.state,
        "rule": found.rule,
        "blocked_by": [
            filled(
                {
                    "kind": holder.kind,
                    "id": holder.id,
                    "state": holder.state,
                    "next_try_at": stamp_or_none(holder.next_try_at),
                    "error_code": holder.error_code or None,
                }
            )
            for holder in found.blocked_by
        ],
        "place_in_queue": found.place_in_queue,
        "estimated_start": stamp_or_none(found.estimated_start),
        "unblocks": list(found.unblocks),
        "left_out_tools": [dict(one) for one in found.left_out_tools],
    }


def _names(rows: Sequence[queries.Row]) -> Names:
    """The names of these jobs' channels; only channels in our own register can have one."""
    places = {(row["platform"], row["channel_code"]) for row in rows if row["platform"] not in _WITHOUT_NAMES}
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
    job_id, config = str(row["id"]), row["config"]
    shown = {
        "id": job_id,
        "job_id": job_id,
        "org_id": row["org_id"],
        "platform": row["platform"],
        "channel_code": row["channel_code"],
        "channel_data": _channel_data(row, names),
        "job_type_id": row["job_type_key"],
        "job_status": row["status"],
        "priority": row["priority"],
        "priority_name": priority_name(row["priority"]),
        "metadata": dict(sorted(row["metadata"].items())),
        "created_at": stamp(row["created_at"]),
        "updated_at": stamp(row["updated_at"]),
        "scheduled_at": stamp(row["scheduled_at"]),
        "last_task_created_at": stamp(tasks[-1]["created_at"]) if tasks else None,
        "tasks": [_task(task) for task in tasks],
        "result": row["result"],
        "params": row["params"],
        "config": config,
        "job_config": config,
        "tags": ",".join(row["tags"]),
        "flags": {
            "is_new_channel": row["is_new_channel"],
            "has_human_reply": row["inbox_count"] > 0,
            "first_reply_at": stamp_or_none(row["first_reply_at"]),
            "ignore_cooldown": row["ignore_cooldown"],
        },
        "execution_log": [f"{stamp(at)} {note}" for at, note in log.lines],
        "activities_count": log.count,
        "time_spent": row["time_spent"],
        "state_since": stamp(row["state_since"]),
    }
    has_value = {
        "channel_type": row["channel_type"],
        "chat_id": activities.chat_id(row["platform"], row["channel_code"], row["thread"]),
        "started_at": stamp_or_none(row["started_at"]),
        "finished_at": stamp_or_none(row["finished_at"]),
        "deadline_at": stamp_or_none(row["deadline_at"]),
        "result_data": row["result_data"],
        "error_code": row["error_code"],
        "error_message": row["error_message"],
        "replay_of": str(row["replay_of"]) if row["replay_of"] else None,
        "retry_count": row["retry_count"] or None,
        "work": row["work"] or None,
        "outcome_channel": row["outcome_channel"],
        "schedule_id": str(row["schedule_id"]) if row["schedule_id"] else None,
        "fire_at": stamp_or_none(row["fire_at"]),
        "unique_key": row["unique_key"],
        "unique_scope": row["unique_scope"],
        "expires_at": stamp_or_none(row["expires_at"]),
        "executor_id": row["executor_id"],
        "progress_percent": row["progress_percent"],
        "progress_message": row["progress_message"],
        "progress_at": stamp_or_none(row["progress_at"]),
    }
    if _is_waiting_outside(row):
        has_value |= {"waiting_for": row["waiting_for"], "wake_at": stamp_or_none(row["wake_at"])}
    if is_detail:
        shown |= {"delay_minutes": row["delay_minutes"], "delay_seconds": row["delay_seconds"]}
        has_value["requested_scheduled_at"] = stamp_or_none(row["requested_at"])
        if row["waiting_for"] == WaitingFor.APPROVAL:
            pending = queries.approvals_of(row["org_id"], row["id"], is_pending=True)
            shown |= {"approvals": [approvals.answer(approval) for approval in pending]} if pending else {}
        if config.get("on_budget_exhausted") == "approve":
            granted = limits.granted(row["org_id"], row["id"])
            has_value["budget_granted"] = {cap: number(Decimal(more)) for cap, more in granted.items()} or None
    return shown | filled(has_value)


def _is_waiting_outside(row: queries.Row) -> bool:
    is_alive = row["status"] in {JobStatus.SCHEDULED, JobStatus.RUNNING}
    return is_alive and row["lease_until"] is None and row["queue_at"] is None


def _task(task: queries.Row) -> dict[str, Any]:
    return {
        "task_id": str(task["id"]),
        "created_at": stamp(task["created_at"]),
        "status": task["status"],
        "result": task["result"],
        **filled({"executor_id": task["executor_id"], "executor_address": task["executor_address"]}),
    }
