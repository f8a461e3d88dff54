"""Creates jobs."""

import json
import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from agent_jobs import lifecycle, runners, timing
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound, PermanentError
from agent_jobs.jobs import admission
from agent_jobs.lifecycle import queues
from agent_jobs.models import Job, JobType, Org, Profile
from agent_jobs.runners import prompts
from agent_jobs.sandbox import json_schema
from agent_jobs.specs import DEFAULT_PRIORITY, Actor, JobSpec, config_errors
from agent_jobs.states import JobStatus, WaitingFor
from agent_jobs.tenants import stored_bytes
from channels_integration import directory
from channels_integration.messages import Target
from infra import prepared_sql, tracing

# The default time limit, one day, where neither the job, its type nor the organisation sets one.
_DEFAULT_MINUTES_TO_COMPLETE = 24 * 60
_CHANCE = random.SystemRandom()
_ACTIVE = "org_id = %(org)s AND key = %(key)s AND active"


def create(org_id: str, spec: JobSpec, *, actor: Actor, rng: random.Random = _CHANCE) -> Job:
    """Store a job, SCHEDULED or WAITING by the database's clock, and ring the doorbell after commit.

    Raises Invalid with the wrong fields, NotFound for a job type or profile that the organisation does not have, and
    QuotaReached; then nothing is stored. Calling twice creates two jobs: the caller handles idempotency.
    """
    with transaction.atomic():
        job_type, org, now = _type_of(org_id, spec.job_type_id)
        defaults = {key: value for key, value in job_type.default_config.items() if key not in spec.config}
        config = {**spec.config, **defaults}  # keeps the order in which the client sent the keys
        _check_profile(org_id, config)
        prompt = config.get("start_prompt") or job_type.description or job_type.name
        _check(org_id, spec, job_type, config, prompt, now)
        admission.admit_job(org)
        stored_bytes.admit(org, _bytes(prompt, spec.params, config, spec.channel.data))
        if job_type.runner not in runners.names():
            raise Conflict(
                f"this process does not know the runner {job_type.runner!r} of the job type, a newer release does",
                code="runner_unknown",
            )
        delay_seconds = timing.draw_delay_seconds(spec.delay_minutes, rng)
        due_at = timing.effective_start(spec.scheduled_at, now=now, delay_seconds=delay_seconds)
        held_until = _cooldown_end(org_id, spec, config, now)
        is_held = held_until is not None and held_until > due_at
        if held_until is not None and is_held:
            due_at = held_until
        # A requested delay makes the job SCHEDULED even if the drawn delay is 0, because promotion sets its start.
        is_scheduled = due_at > now or spec.delay_minutes > 0
        others = Job.objects.filter(org_id=org_id, platform=spec.channel.platform, channel_code=spec.channel.code)
        job = Job(
            org_id=org_id,
            status=JobStatus.SCHEDULED if is_scheduled else JobStatus.WAITING,
            job_type_key=job_type.key,
            runner=job_type.runner,
            lane=runners.get(job_type.runner).lane,
            platform=spec.channel.platform,
            channel_code=spec.channel.code,
            channel_type=spec.channel.type,
            channel_data=dict(spec.channel.data),
            prompt=prompt,
            params=dict(spec.params),
            config=config,
            agent=_agent(job_type),
            tags=list(spec.tags),
            priority=spec.priority,
            is_new_channel=not others.exists(),
            ignore_cooldown=bool(config.get("ignore_cooldown", False)),
            created_by_id=spec.token_pk,
            replay_of=spec.replay_of,
            trace=tracing.current(),
            created_at=now,
            updated_at=now,
            requested_at=spec.scheduled_at,
            delay_minutes=spec.delay_minutes,
            delay_seconds=delay_seconds,
            scheduled_at=due_at,
            deadline_minutes=config.get("max_time_to_complete")
            or org.max_time_to_complete
            or _DEFAULT_MINUTES_TO_COMPLETE,
            queue_at=None
            if is_scheduled
            else timing.place_in_queue(now, spec.priority, default_priority=DEFAULT_PRIORITY),
            waiting_for=WaitingFor.COOLDOWN if is_held else "",
        )
        job.save(force_insert=True)
        when = f" for {due_at:%Y-%m-%d %H:%M:%S}Z" if is_scheduled else ""
        why = " (a job of this type failed here lately)" if is_held else ""
        how = f"created as a replay of {spec.replay_of}" if spec.replay_of else "created"
        lifecycle.record_creation(job, actor=actor, note=f"{job.status}: {how}{when}{why}")
        if not is_scheduled:
            queues.ring_on_commit(job.lane)
    return job


def _type_of(org_id: str, job_type_id: str) -> tuple[JobType, Org, datetime]:
    """The job type with its organisation, and the database's time, which decides the status."""
    job_type = prepared_sql.instance(JobType, _ACTIVE, {"org": org_id, "key": job_type_id})
    org = prepared_sql.instance(Org, "id = %(id)s", {"id": org_id})
    if job_type is None or org is None:
        raise NotFound(f"there is no active job type {job_type_id!r}", code="job_type_not_found")
    return job_type, org, prepared_sql.first("SELECT statement_timestamp()")[0]


def _bytes(*values: Any) -> int:
    """Their approximate size as JSON, in bytes."""
    return sum(len(json.dumps(value, ensure_ascii=False, default=dict)) for value in values)


def _agent(job_type: JobType) -> dict[str, Any]:
    """The parts of the job type that an agent needs beside prompt and config, copied as they are now. Absent parts are
    left out.
    """
    has = {"tools": job_type.tools, "result_schema": job_type.result_schema}
    return {name: value for name, value in has.items() if value}


def _check_profile(org_id: str, config: Mapping[str, Any]) -> None:
    profile_id = config.get("profile_id")
    if not isinstance(profile_id, str) or not profile_id:
        return
    if not Profile.objects.filter(org_id=org_id, key=profile_id, active=True).exists():
        raise NotFound(f"there is no active profile {profile_id!r}", code="profile_not_found")


def _check(
    org_id: str, spec: JobSpec, job_type: JobType, config: Mapping[str, Any], prompt: str, now: datetime
) -> None:
    errors = config_errors(spec.config, at="config")
    errors += json_schema.params_errors(job_type.params_schema, spec.params)
    if spec.scheduled_at and spec.scheduled_at > now + timing.MAX_AHEAD:
        errors.append(FieldError("scheduled_at", "too_far", "is more than 10 years ahead"))
    target = Target(org_id, spec.channel.platform, spec.channel.code, spec.channel.type, dict(spec.channel.data))
    if reason := directory.unreachable_reason(target):
        field, message = reason
        errors.append(FieldError(field, "unreachable", message))
    if not errors:
        try:
            prompts.render(prompt, spec.params)
        except PermanentError as error:
            code = "too_complex" if error.code == "prompt_too_complex" else "invalid"
            errors.append(FieldError("config.start_prompt", code, error.message.removeprefix("start_prompt: ")))
    if errors:
        raise Invalid(*errors)


def _cooldown_end(org_id: str, spec: JobSpec, config: Mapping[str, Any], now: datetime) -> datetime | None:
    minutes = config.get("failure_cooldown_minutes", 0)
    if not minutes or config.get("ignore_cooldown", False):
        return None
    failed = Job.objects.filter(
        org_id=org_id,
        job_type_key=spec.job_type_id,
        channel_code=spec.channel.code,
        platform=spec.channel.platform,
        status=JobStatus.FAILED,
        finished_at__gt=now - timedelta(minutes=minutes),
    )
    last = failed.order_by("-finished_at").values_list("finished_at", flat=True).first()
    return last + timedelta(minutes=minutes) if last else None
