"""Chronos' words for ours: requests, jobs and errors."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agent_jobs import errors, recurrence
from agent_jobs.api.errors import RefusedRequest
from agent_jobs.dialects import schedule_texts
from agent_jobs.dialects.base import instant, instant_or_none, renamed
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.runners.webhook_runner import DEFAULT_ATTEMPT_SECONDS
from agent_jobs.runners.webhook_work import LONGEST_ATTEMPT_SECONDS
from agent_jobs.timing import RetryPolicy, deadline_minutes

RUNNER = "webhook"
JOB_TYPE = "chronos-webhook"
_CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    411: "LENGTH_REQUIRED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "UNPROCESSABLE_ENTITY",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    503: "STORE_ERROR",
}
# Errors of fields that have a code of their own.
_TOLD = ("invalid_timeout", "invalid_json")
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


def envelope(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """`{"success": false, "data": null, "error": {"code": "NOT_FOUND", "message": "…"}}`"""
    problems = renamed(refused.errors, _NAMES)
    known = refused.code if refused.code == "execution_error" else _CODES.get(refused.status, refused.code)
    code = next((one.code for one in problems if one.code in _TOLD), known).upper()
    message = errors.summary(problems) or refused.message
    return refused.status, {"success": False, "data": None, "error": {"code": code, "message": message}}


# --- Requests --------------------------------------------------------------------------------------------------
def rewritten(before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The definition that a request states. Only `auth`, `success_codes` and `tags` stay if they are left out."""
    found = {key: value for key, value in before.items() if key not in ("cron", "every_seconds", "run_at")}
    job, kept = dict(before["job"]), dict(before.get("annotations", {}).get(_TEXTS, {}))
    zone = fields.get("timezone") or "UTC"
    if before.get("time_zone") == zone and fields["schedule"] == _schedule_text(before):
        found |= {key: before[key] for key in ("cron", "every_seconds", "run_at") if key in before}
    else:
        try:
            found |= schedule_texts.timing(fields["schedule"], zone)
        except recurrence.BadExpression as error:
            raise Invalid(FieldError("schedule", "invalid_schedule", str(error))) from None
    kept |= {"schedule": fields["schedule"], "timeout": _timeout_text(fields), "policy": _policy_texts(fields)}
    if "tags" in fields:
        kept["tags"] = fields["tags"] or {}
        found["tags"] = _tag_list(kept["tags"])
    found |= {"name": fields["name"], "description": fields.get("description") or ""}
    found["overlap"] = fields.get("concurrency") or "forbid"
    job["work"] = _work(job.get("work", {}), fields["webhook"])
    job["config"] = {**job.get("config", {}), **_config(kept)}
    return {**found, "job": job, "annotations": {**before.get("annotations", {}), _TEXTS: kept}}


def new(fields: Mapping[str, Any]) -> dict[str, Any]:
    work = {"header_prefix": "X-Chronos", "verbatim": True}
    return rewritten({"job": {"job_type_id": JOB_TYPE, "work": work}}, fields)


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
    """Time-out and retries, and a deadline of the whole job that leaves them their time."""
    policy = kept["policy"]
    timeout = min(_seconds(kept["timeout"]), LONGEST_ATTEMPT_SECONDS)
    longest = _seconds(policy["max_interval"])
    return {
        "attempt_timeout_seconds": timeout,
        "retry_policy": {
            "max_attempts": policy["max_attempts"],
            "initial_interval_seconds": _seconds(policy["initial_interval"]),
            "max_interval_seconds": longest,
            "multiplier": policy["multiplier"],
            "jitter": 0,
        },
        "max_time_to_complete": deadline_minutes(policy["max_attempts"], attempt_seconds=timeout, wait_seconds=longest),
    }


def _seconds(text: str) -> float:
    return recurrence.parse_go_duration(text).total_seconds()


def _tag_list(tags: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" if value else key for key, value in tags.items()]


# --- Answers ---------------------------------------------------------------------------------------------------
def _texts(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The texts that came in, as long as they say what the definition says."""
    kept = definition.get("annotations", {}).get(_TEXTS)
    return kept if isinstance(kept, Mapping) else {}


def _schedule_text(definition: Mapping[str, Any]) -> str:
    if not any(key in definition for key in ("cron", "every_seconds", "run_at")):
        return ""
    return schedule_texts.shown(definition, _texts(definition).get("schedule"), shows_zone=True)


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
        "schedule": _schedule_text(definition),
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
