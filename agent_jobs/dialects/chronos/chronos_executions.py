"""Chronos' executions: jobs of ours, and firings that made none."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from agent_jobs.dialects.base import instant, instant_or_none
from agent_jobs.reads.executions import LastAttempt
from agent_jobs.states import TERMINAL, JobStatus

# A firing that the overlap policy left out is an execution too: `skipped`.
EXECUTION_STATUS: Mapping[JobStatus, str] = {
    JobStatus.SCHEDULED: "pending",
    JobStatus.WAITING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "success",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "failed",
}
FIRING_STATUS = {"skipped": "skipped", "failed": "failed"}
NODE = "agent-jobs"


def of_job(row: Mapping[str, Any], attempt: LastAttempt, reason: str, schedule: Mapping[str, Any]) -> dict[str, Any]:
    """`duration` is in nanoseconds, from the first start to the last end; it is missing while it runs."""
    status, has_ended = EXECUTION_STATUS[row["status"]], row["status"] in TERMINAL
    at = row["fire_at"] or row["scheduled_at"]
    started_at = row["started_at"] or row["scheduled_at"]
    said = reason or row["error_message"] or attempt.error or row["error_code"]
    shown = {
        "id": f"exec-{row['id']}",
        "job_id": str(schedule["id"]),
        "job_name": schedule["name"],
        "scheduled_time": instant(at),
        "started_at": instant(started_at),
        "completed_at": instant_or_none(row["finished_at"]),
        "status": status,
        "attempts": attempt.count,
        "status_code": attempt.status_code,
        "response": attempt.body or "",
        "error": said if status == "failed" else None,
        "node_id": NODE,
    }
    if row["replay_of"]:
        shown["replay_of"] = f"exec-{row['replay_of']}"
    if has_ended:
        shown["duration"] = max((row["finished_at"] - started_at) // timedelta(microseconds=1), 0) * 1_000
    return shown


def of_firing(row: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    """A firing that made no job."""
    at = instant(row["fire_at"])
    return {
        "id": f"exec-{firing_uuid(schedule['id'], row['id'])}",
        "job_id": str(schedule["id"]),
        "job_name": schedule["name"],
        "scheduled_time": at,
        "started_at": at,
        "completed_at": at,
        "status": FIRING_STATUS[row["outcome"]],
        "attempts": 0,
        "status_code": None,
        "response": "",
        "error": row["reason"],
        "node_id": NODE,
        "duration": 0,
    }


def firing_uuid(schedule_id: UUID, number: int) -> UUID:
    """An id for a firing that has no job. Its first half differs from that of its neighbours, its second half holds the
    number.
    """
    head = hashlib.blake2b(f"{schedule_id}:{number}".encode(), digest_size=8).digest()
    return UUID(bytes=head[:6] + bytes([0x80 | head[6] & 0x0F, head[7]]) + (1 << 63 | number).to_bytes(8, "big"))


def firing_number(execution_id: UUID) -> int:
    return int.from_bytes(execution_id.bytes[8:], "big") & ~(1 << 63)
