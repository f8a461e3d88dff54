"""Chronos' JSON: its statuses, what a request means for us, and the bodies of answers and errors (`envelope`).

`recurrence.intervals` parses its Go durations (`1h30m`).
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from rest_framework import serializers

from agent_jobs import recurrence
from agent_jobs.api.errors import RefusedRequest
from agent_jobs.api.fields import Choice, Flag, Name, Text, Whole
from agent_jobs.dialects import schedule_texts
from agent_jobs.dialects.base import ERROR_CODES, instant, instant_or_none, told
from agent_jobs.dialects.documentation import shape
from agent_jobs.dialects.lenient_fields import GoInterval
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import executions
from agent_jobs.reads.executions import LastAttempt
from agent_jobs.runners.webhook_runner import DEFAULT_ATTEMPT_SECONDS
from agent_jobs.runners.webhook_work import LONGEST_ATTEMPT_SECONDS
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.timing import RetryPolicy

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
_CODES = {**ERROR_CODES, 400: "validation_error", 429: "rate_limited", 503: "store_error"}
# Errors that have a code of their own.
_TOLD = ("invalid_timeout", "invalid_json", "execution_error")
# Our names of fields and those of Chronos.
_NAMES = {
    **dict.fromkeys(("cron", "every_seconds", "run_at"), "schedule"),
    "time_zone": "timezone",
    "overlap": "concurrency",
    "job.work.auth.key": "webhook.auth.api_key",
    "job.work": "webhook",
    "job.config.retry_policy": "retry_policy",
    "job.config.attempt_timeout_seconds": "timeout",
}
_AUTH_KEYS = {
    "basic": {"username": "username", "password": "password"},
    "bearer": {"token": "token"},
    "api_key": {"key": "api_key", "header": "header"},
}
_POLICY = {"max_attempts": 3, "initial_interval": "1s", "max_interval": "1m", "multiplier": 2.0}
_DEFAULT_TIMEOUT = "5m"
_TEXTS = "chronos"
_NODE = "agent-jobs"


# --- Requests --------------------------------------------------------------------------------------------------
class ChronosAuth(serializers.Serializer[Any]):
    type = Choice(("basic", "bearer", "api_key"))
    username = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    password = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    token = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    api_key = Text(max_length=4_096, required=False, allow_null=True, allow_blank=True)
    header = Text(max_length=128, required=False, allow_null=True, allow_blank=True)


class ChronosWebhook(serializers.Serializer[Any]):
    url = Text(max_length=2_000)
    method = Text(max_length=16, required=False, allow_null=True, allow_blank=True, help_text="GET if left out.")
    headers = serializers.DictField(child=Text(max_length=16_384, allow_blank=True), required=False, allow_null=True)
    body = Text(max_length=200_000, required=False, allow_null=True, allow_blank=True)
    auth = ChronosAuth(required=False, allow_null=True)
    success_codes = serializers.ListField(child=Whole(), required=False, allow_null=True)


class ChronosRetryPolicy(serializers.Serializer[Any]):
    max_attempts = Whole(required=False, allow_null=True, min_value=1, max_value=100, help_text="With the first one.")
    initial_interval = GoInterval(required=False, allow_null=True)
    max_interval = GoInterval(required=False, allow_null=True)
    multiplier = serializers.FloatField(required=False, allow_null=True, min_value=1, max_value=100)


class ChronosJobRequest(serializers.Serializer[Any]):
    name = Name(max_length=255)
    description = Text(max_length=2_000, required=False, allow_null=True, allow_blank=True)
    schedule = Text(max_length=300)
    timezone = Text(max_length=64, required=False, allow_null=True, allow_blank=True)
    webhook = ChronosWebhook()
    retry_policy = ChronosRetryPolicy(required=False, allow_null=True)
    timeout = serializers.JSONField(
        required=False, allow_null=True, help_text="A Go duration; bounds one attempt, at most 5m."
    )
    concurrency = Choice(("allow", "forbid", "replace"), required=False, allow_null=True)
    tags = serializers.DictField(child=Text(max_length=128, allow_blank=True), required=False, allow_null=True)
    enabled = Flag(required=False, allow_null=True)


def rewritten(before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The definition that a request states. Only `auth`, `success_codes` and `tags` stay if they are left out."""
    job, kept = dict(before["job"]), dict(_texts(before))
    zone = fields.get("timezone") or "UTC"
    found = schedule_texts.rescheduled(before, fields["schedule"], kept.get("schedule"), zone)
    kept |= {"schedule": fields["schedule"], "timeout": _timeout_text(fields), "policy": _policy_texts(fields)}
    if "tags" in fields:
        kept["tags"] = fields["tags"] or {}
        found["tags"] = _tag_list(kept["tags"])
    found |= {"name": fields["name"], "description": fields.get("description") or ""}
    found["overlap"] = fields.get("concurrency") or "forbid"
    job["work"] = _work(job.get("work", {}), fields["webhook"])
    job["config"] = {**job.get("config", {}), **_config(kept)}
    return {**found, "job": job, "annotations": {**before.get("annotations", {}), _TEXTS: kept}}


def new(job_type: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    work = {"header_prefix": "X-Chronos", "verbatim": True}
    return rewritten({"job": {"job_type_id": job_type, "work": work}}, fields)


def _work(before: Mapping[str, Any], webhook: Mapping[str, Any]) -> dict[str, Any]:
    ours = ("url", "method", "headers", "body", "auth", "success_codes")
    found = {key: value for key, value in before.items() if key not in ours}
    found |= {"url": webhook["url"], "method": webhook.get("method") or "GET"}
    found |= {key: webhook[key] for key in ("headers", "body") if webhook.get(key)}
    for key in ("auth", "success_codes"):
        value = webhook[key] if key in webhook else before.get(key)
        if key == "auth" and key in webhook and value:
            value = {"type": value["type"], **_auth(value)}
        if value:
            found[key] = value
    return found


def _auth(stated: Mapping[str, Any]) -> dict[str, Any]:
    keys = _AUTH_KEYS[stated["type"]]
    return {ours: stated[theirs] for ours, theirs in keys.items() if stated.get(theirs)}


def _timeout_text(fields: Mapping[str, Any]) -> str:
    text = fields.get("timeout")
    if text is None:
        return _DEFAULT_TIMEOUT
    try:
        if isinstance(text, str) and recurrence.parse_go_duration(text) > timedelta():
            return text
        reason = "must be a Go duration above zero, as a text such as 90s, 5m or 1h30m"
    except recurrence.BadExpression as error:
        reason = error.reason
    raise Invalid(FieldError("timeout", "invalid_timeout", reason))


def _policy_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    stated = fields.get("retry_policy") or {}
    return {**_POLICY, **{key: value for key, value in stated.items() if value is not None}}


def _config(kept: Mapping[str, Any]) -> dict[str, Any]:
    stated = kept["policy"]
    intervals = (_seconds(stated["initial_interval"]), _seconds(stated["max_interval"]))
    policy = RetryPolicy(stated["max_attempts"], *intervals, multiplier=stated["multiplier"], jitter=0)
    return policy.config(attempt_seconds=min(_seconds(kept["timeout"]), LONGEST_ATTEMPT_SECONDS))


def _seconds(text: str) -> float:
    return recurrence.parse_go_duration(text).total_seconds()


def _tag_list(tags: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" if value else key for key, value in tags.items()]


# --- Answers ---------------------------------------------------------------------------------------------------
ChronosAnswer = shape("ChronosAnswer", success=bool, data=object, error=object | None)
ChronosRefusal = shape(
    "ChronosRefusal", success=bool, data=object | None, error=shape("ChronosError", code=str, message=str)
)


def _texts(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The texts that came in, as long as they say what the definition says."""
    kept = definition.get("annotations", {}).get(_TEXTS)
    return kept if isinstance(kept, Mapping) else {}


def _go(seconds: float) -> str:
    return recurrence.format_go_duration(timedelta(seconds=seconds))


def job(row: Mapping[str, Any]) -> dict[str, Any]:
    definition = row["definition"]
    config, kept = definition["job"].get("config", {}), _texts(definition)
    policy = RetryPolicy.of(config)
    shown = {
        "max_attempts": policy.max_attempts,
        "initial_interval": _go(policy.initial_seconds),
        "max_interval": _go(policy.max_seconds),
        "multiplier": policy.multiplier,
    }
    timeout = _go(config.get("attempt_timeout_seconds", DEFAULT_ATTEMPT_SECONDS))
    if kept.get("policy") and kept.get("timeout"):
        said = _config(kept)
        if all(said["retry_policy"][key] == value for key, value in config.get("retry_policy", {}).items()):
            shown = dict(kept["policy"])
        if said["attempt_timeout_seconds"] == config.get("attempt_timeout_seconds"):
            timeout = kept["timeout"]
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "description": definition.get("description", ""),
        "schedule": schedule_texts.shown(definition, kept.get("schedule"), shows_zone=True),
        "timezone": definition["time_zone"],
        "webhook": _webhook(definition["job"].get("work", {})),
        "retry_policy": shown,
        "timeout": timeout,
        "concurrency": definition["overlap"],
        "tags": _tags(definition, kept.get("tags")),
        "enabled": not row["is_paused"],
        "created_at": instant(row["created_at"]),
        "updated_at": instant(row["updated_at"]),
        "next_run": instant_or_none(row["next_at"]),
        "version": row["version"],
    }


def _webhook(work: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"url": work.get("url", ""), "method": work.get("method", "POST")}
    shown |= {key: work[key] for key in ("headers", "success_codes") if key in work}
    if "body" in work:
        shown["body"] = work["body"] if isinstance(work["body"], str) else json.dumps(work["body"])
    if auth := work.get("auth"):
        keys = _AUTH_KEYS.get(auth["type"], {})
        shown["auth"] = {"type": auth["type"], **{keys[key]: auth[key] for key in keys if key in auth}}
    return shown


def _tags(definition: Mapping[str, Any], kept: Any) -> dict[str, str]:
    tags: list[str] = definition["tags"]
    if isinstance(kept, Mapping) and _tag_list(kept) == tags:
        return dict(kept)
    return {key: value for key, _, value in (tag.partition("=") for tag in tags)}


def version(row: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    then = {**schedule, "definition": row["definition"], "name": row["definition"]["name"]}
    then |= {"is_paused": row["is_paused"], "version": row["number"], "updated_at": row["created_at"], "next_at": None}
    return {
        "job_id": str(schedule["id"]),
        "version": row["number"],
        "config": job(then),
        "created_at": instant(row["created_at"]),
        "created_by": row["author"],
    }


def execution(row: Mapping[str, Any], attempt: LastAttempt, reason: str, schedule: Mapping[str, Any]) -> dict[str, Any]:
    """An execution. `duration`: nanoseconds from the first start to the last end; missing while the job runs."""
    status, started_at = EXECUTION_STATUS[row["status"]], row["started_at"] or row["scheduled_at"]
    said = reason or row["error_message"] or attempt.error or row["error_code"]
    shown = {
        **_identity(row["id"], schedule),
        "scheduled_time": instant(row["fire_at"] or row["scheduled_at"]),
        "started_at": instant(started_at),
        "completed_at": instant_or_none(row["finished_at"]),
        "status": status,
        "attempts": attempt.count,
        "status_code": attempt.status_code,
        "response": attempt.body or "",
        "error": said if status == "failed" else None,
    }
    if row["replay_of"]:
        shown["replay_of"] = f"exec-{row['replay_of']}"
    if row["status"] in TERMINAL:
        shown["duration"] = max((row["finished_at"] - started_at) // timedelta(microseconds=1), 0) * 1_000
    return shown


def silent_execution(row: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    """A firing that made no job, shown as an execution."""
    return {
        **_identity(executions.firing_id(schedule["id"], row["id"]), schedule),
        **dict.fromkeys(("scheduled_time", "started_at", "completed_at"), instant(row["fire_at"])),
        "status": FIRING_STATUS[row["outcome"]],
        "attempts": 0,
        "status_code": None,
        "response": "",
        "error": row["reason"],
        "duration": 0,
    }


def _identity(execution_id: UUID, schedule: Mapping[str, Any]) -> dict[str, str]:
    shown_id = f"exec-{execution_id}"
    return {"id": shown_id, "job_id": str(schedule["id"]), "job_name": schedule["name"], "node_id": _NODE}


# --- Errors ----------------------------------------------------------------------------------------------------
def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """Chronos' status code and body for a refused request.

    `{"success": false, "data": null, "error": {"code": "NOT_FOUND", "message": "…"}}`
    """
    code, message = told(refused, _NAMES, _CODES, _TOLD)
    return refused.status, {"success": False, "data": None, "error": {"code": code.upper(), "message": message}}
