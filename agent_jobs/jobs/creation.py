"""Creates jobs: validates a request by its job type, draws its delay, applies the cooldown, stores its row."""

import contextlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from agent_jobs import lifecycle, runners, sealed_work, timing, work, work_checks
from agent_jobs.catalog import type_work
from agent_jobs.errors import (
    AgentJobsError,
    Conflict,
    FieldError,
    Forbidden,
    IllegalMove,
    Invalid,
    NotFound,
    PermanentError,
)
from agent_jobs.jobs import admission, cancellation, uniqueness
from agent_jobs.lifecycle import queue_order, queues
from agent_jobs.models import Job, JobType, Org, Profile
from agent_jobs.runners import Runner, command_runner, external, prompts
from agent_jobs.sandbox import json_schema
from agent_jobs.specs import Actor, ChannelSpec, JobSpec, config_errors
from agent_jobs.states import JobStatus, WaitingFor
from agent_jobs.tenants import stored_bytes
from agent_jobs.webhooks import outcome_messages
from agent_jobs.work import WorkRules
from channels_integration import directory
from channels_integration.messages import Target
from infra import bulk_rows, database, prepared_sql, tracing

# The default time limit, one day, where neither the job, its type nor the organisation sets one.
_DEFAULT_MINUTES_TO_COMPLETE = 24 * 60
_CHANCE = random.SystemRandom()
_COMPACT = json.JSONEncoder(ensure_ascii=False, default=dict)
_NO_CHANNEL = ChannelSpec("", "")
_TOO_LONG = "was not validated, because the jobs before it took too long: send fewer at once"
# A scalar sub-select, as the planner would turn EXISTS into a join that reads every job of the organisation.
_USED_CHANNELS = """
SELECT place.platform, place.code FROM unnest(%(platforms)s::text[], %(codes)s::text[]) AS place (platform, code)
WHERE (
    SELECT true FROM agent_jobs_job j
    WHERE j.org_id = %(org)s AND j.channel_code = place.code AND j.platform = place.platform LIMIT 1)
"""
_ACTIVE = "org_id = %(org)s AND key = %(key)s AND active"


def create(org_id: str, spec: JobSpec, *, actor: Actor, rng: random.Random = _CHANCE) -> Job:
    """Store a job, SCHEDULED or WAITING by the database's clock, and ring the doorbell after commit.

    Raises Invalid with the wrong fields, NotFound for a job type or profile that the organisation does not have,
    DuplicateJob, and QuotaReached; then nothing is stored. Calling twice creates two jobs: the caller handles
    idempotency.
    """
    (made,) = create_many(org_id, [spec], actor=actor, rng=rng)
    if isinstance(made, AgentJobsError):
        raise made
    return made


def create_many(
    org_id: str,
    specs: Sequence[JobSpec],
    *,
    actor: Actor,
    rng: random.Random = _CHANCE,
    seconds: float = math.inf,
) -> list[Job | AgentJobsError]:
    """Store those of the jobs that are valid in one transaction, in a constant number of statements for each job type.

    The result has, for each spec, its job or the error that `create` would raise. A caller that wants all or none
    raises within its own transaction. Jobs that are not validated within `seconds` are Invalid (`too_complex`).
    """
    until = time.monotonic() + seconds
    with transaction.atomic():
        uniqueness.lock(org_id, (spec.unique.key for spec in specs if spec.unique))
        batch = _Batch(org_id, specs)
        made: list[Job | AgentJobsError] = []
        for spec in specs:
            try:
                if time.monotonic() > until:
                    raise Invalid(FieldError("params", "too_complex", _TOO_LONG))
                made.append(_prepared(batch, spec, rng))
            except AgentJobsError as error:
                made.append(error)
        jobs = [job for job in made if isinstance(job, Job)]
        if jobs:
            bulk_rows.insert(jobs)
            lifecycle.record_creations([(job, _note(job)) for job in jobs], actor=actor)
            _cancel_replaced(org_id, batch.keys.replaced, actor=actor)
        waiting = Counter(job.lane for job in jobs if job.status == JobStatus.WAITING)
        transaction.on_commit(lambda: queues.ring_all(waiting), robust=True)
    return made


def input_errors(config: Mapping[str, Any], scheduled_at: datetime | None, *, now: datetime) -> list[FieldError]:
    """The errors that can be found without the job type. `create` raises them too.

    An API that must answer 400 before 404 calls this before it looks up the job type.
    """
    errors = config_errors(config, at="config")
    if scheduled_at and scheduled_at > now + timing.MAX_AHEAD:
        errors.append(FieldError("scheduled_at", "too_far", "is more than 10 years ahead"))
    return errors


class _Batch:
    """Shared by the jobs of one transaction: the organisation, the time, and the results of look-ups."""

    def __init__(self, org_id: str, specs: Sequence[JobSpec] = ()) -> None:
        self.org_id = org_id
        self.org = prepared_sql.instance(Org, "id = %(id)s", {"id": org_id})
        self.now = database.now()
        self.keys = uniqueness.KeysOfBatch(org_id, specs, now=self.now)
        self._types: dict[str, JobType | None] = {}
        self._profiles: dict[str, bool] = {}
        self._unreachable: dict[str, tuple[str, str] | None] = {}
        self._specs = specs
        self._known_channels: set[tuple[str, str]] | None = None

    def job_type(self, key: str) -> tuple[Org, JobType]:
        if key not in self._types:
            self._types[key] = prepared_sql.instance(JobType, _ACTIVE, {"org": self.org_id, "key": key})
        found = self._types[key]
        if found is None or self.org is None:
            raise NotFound(f"there is no active job type {key!r}", code="job_type_not_found")
        return self.org, found

    def require_profile(self, config: Mapping[str, Any]) -> None:
        key = config.get("profile_id")
        if not isinstance(key, str) or not key:
            return
        if key not in self._profiles:
            self._profiles[key] = Profile.objects.filter(org_id=self.org_id, key=key, active=True).exists()
        if not self._profiles[key]:
            raise NotFound(f"there is no active profile {key!r}", code="profile_not_found")

    def unreachable_reason(self, channel: ChannelSpec) -> tuple[str, str] | None:
        key = json.dumps([channel.platform, channel.code, channel.type, channel.data], sort_keys=True, default=str)
        if key not in self._unreachable:
            target = Target(self.org_id, channel.platform, channel.code, channel.type, dict(channel.data))
            self._unreachable[key] = directory.unreachable_reason(target)
        return self._unreachable[key]

    def is_new_channel(self, channel: ChannelSpec) -> bool:
        if self._known_channels is None:
            self._known_channels = self._used_channels()
        place = (channel.platform, channel.code)
        is_new = place not in self._known_channels
        self._known_channels.add(place)
        return is_new

    def _used_channels(self) -> set[tuple[str, str]]:
        """The channels of the batch that earlier jobs have used."""
        places = list({(spec.channel.platform, spec.channel.code) for spec in self._specs if spec.channel})
        parameters = {"org": self.org_id, "platforms": [place[0] for place in places]}
        found = prepared_sql.all_rows(_USED_CHANNELS, {**parameters, "codes": [place[1] for place in places]})
        return {(platform, code) for platform, code in found}


def check(org_id: str, spec: JobSpec) -> JobType:
    """Validate a job as `create` would, without storing it. Returns its job type. Raises Invalid, NotFound, Forbidden,
    Conflict.
    """
    return _checked(_Batch(org_id), spec).job_type


@dataclass(frozen=True, slots=True)
class _Checked:
    """A valid spec with what it refers to. `config` and `work` are the spec's own with the job type's defaults."""

    org: Org
    job_type: JobType
    runner: Runner
    config: Mapping[str, Any]
    prompt: str
    work: Mapping[str, Any]


def _checked(batch: _Batch, spec: JobSpec) -> _Checked:
    org, job_type = batch.job_type(spec.job_type_id)
    if job_type.runner not in runners.names():
        raise Conflict(
            f"this process does not know the runner {job_type.runner!r} of the job type, a newer release does",
            code="runner_unknown",
        )
    runner = runners.get(job_type.runner)
    require_allowed(org, runner)
    defaults = {key: value for key, value in job_type.default_config.items() if key not in spec.config}
    config = {**spec.config, **defaults}  # keeps the order in which the client sent the keys
    batch.require_profile(config)
    prompt = "" if runner.work else config.get("start_prompt") or job_type.description or job_type.name
    if runner.work and not spec.replay_of:  # a replay repeats what was recorded, whatever the type says now
        spec = replace(spec, work=type_work.merged(job_type, spec.work, runner.work))
    _require_network(org, runner, spec.work)
    _check(batch, spec, job_type, runner, config, prompt)
    return _Checked(org, job_type, runner, config, prompt, spec.work)


def _prepared(batch: _Batch, spec: JobSpec, rng: random.Random) -> Job:
    """The job of a spec, checked and admitted, and not stored yet."""
    found, now = _checked(batch, spec), batch.now
    org, job_type, runner, config, prompt = found.org, found.job_type, found.runner, found.config, found.prompt
    split = work.split(found.work, runner.work) if runner.work else work.Work({}, {})
    channel = spec.channel or _NO_CHANNEL
    replaced = batch.keys.to_replace(spec)
    admission.admit_job(org)
    stored_bytes.admit(
        org, _bytes(prompt, spec.params, config, channel.data, found.work, spec.outcome_channel, spec.metadata)
    )
    delay_seconds = timing.draw_delay_seconds(spec.delay_minutes, rng)
    due_at = timing.effective_start(spec.scheduled_at, now=now, delay_seconds=delay_seconds)
    held_until = _cooldown_end(batch.org_id, spec, config, now)
    is_held = held_until is not None and held_until > due_at
    if held_until is not None and is_held:
        due_at = held_until
    # A requested delay makes the job SCHEDULED even if the drawn delay is 0, because promotion sets its start.
    is_scheduled = due_at > now or spec.delay_minutes > 0
    job = Job(
        org_id=batch.org_id,
        status=JobStatus.SCHEDULED if is_scheduled else JobStatus.WAITING,
        job_type_key=job_type.key,
        runner=job_type.runner,
        lane=runner.lane,
        platform=channel.platform,
        channel_code=channel.code,
        channel_type=channel.type,
        channel_data=dict(channel.data),
        prompt=prompt,
        params=dict(spec.params),
        config=dict(config),
        agent=_agent(job_type),
        work=dict(split.shown),
        outcome_channel=dict(spec.outcome_channel) or None,
        placement=external.placement(found.work, job_type.key) if job_type.runner == external.NAME else "",
        schedule_id=spec.schedule_id,
        fire_at=spec.fire_at,
        tags=list(spec.tags),
        priority=spec.priority,
        metadata=dict(spec.metadata),
        unique_key=spec.unique.key if spec.unique else "",
        unique_scope=spec.unique.scope if spec.unique else "",
        is_new_channel=spec.channel is not None and batch.is_new_channel(spec.channel),
        ignore_cooldown=bool(config.get("ignore_cooldown", False)),
        created_by_id=spec.token_pk,
        created_by_user=spec.user_pk,
        replay_of=spec.replay_of,
        trace=tracing.current(),
        created_at=now,
        updated_at=now,
        state_since=now,
        requested_at=spec.scheduled_at,
        delay_minutes=spec.delay_minutes,
        delay_seconds=delay_seconds,
        scheduled_at=due_at,
        expires_at=timing.expiry(config, due_at),
        deadline_minutes=config.get("max_time_to_complete") or org.max_time_to_complete or _DEFAULT_MINUTES_TO_COMPLETE,
        queue_at=None if is_scheduled else queue_order.place(now, spec.priority),
        waiting_for=WaitingFor.COOLDOWN if is_held else "",
    )
    if spec.id:
        job.pk = spec.id
    job.sealed_work = sealed_work.seal(job, split.secrets)
    batch.keys.take(job, replaced)
    return job


def _cancel_replaced(org_id: str, replaced: Mapping[UUID, UUID], *, actor: Actor) -> None:
    for job_id, new_id in sorted(replaced.items()):
        with contextlib.suppress(IllegalMove):  # it has ended meanwhile
            cancellation.cancel(org_id, job_id, actor=actor, reason=f"replaced by the job {new_id}")


def _note(job: Job) -> str:
    """The text of the job's first activity."""
    when = f" for {job.scheduled_at:%Y-%m-%d %H:%M:%S}Z" if job.status == JobStatus.SCHEDULED else ""
    why = " (a job of this type failed here lately)" if job.waiting_for == WaitingFor.COOLDOWN else ""
    how = f"created as a replay of {job.replay_of}" if job.replay_of else "created"
    return f"{job.status}: {how}{when}{why}"


def _bytes(*values: Any) -> int:
    """The approximate size of the values as JSON."""
    return len(_COMPACT.encode(values))


def _agent(job_type: JobType) -> dict[str, Any]:
    """The parts of the job type that an agent needs beside prompt and config, copied as they are now. Absent parts are
    left out.
    """
    has = {"tools": job_type.tools, "result_schema": job_type.result_schema}
    return {name: value for name, value in has.items() if value}


def _check(
    batch: _Batch, spec: JobSpec, job_type: JobType, runner: Runner, config: Mapping[str, Any], prompt: str
) -> None:
    errors = input_errors(spec.config, spec.scheduled_at, now=batch.now)
    errors += json_schema.params_errors(job_type.params_schema, spec.params)
    errors += _channel_errors(batch, spec, runner) + _work_errors(spec, runner, config) + _outcome_errors(batch, spec)
    if prompt and not errors:
        try:
            prompts.render(prompt, spec.params)
        except PermanentError as error:
            code = "too_complex" if error.code == "prompt_too_complex" else "invalid"
            errors.append(FieldError("config.start_prompt", code, error.message.removeprefix("start_prompt: ")))
    if errors:
        raise Invalid(*errors)


def _channel_errors(batch: _Batch, spec: JobSpec, runner: Runner) -> list[FieldError]:
    if spec.channel is None:
        message = f"is missing: jobs of the {runner.name} runner speak in a channel"
        return [FieldError("target_channel", "required", message)] if runner.needs_channel else []
    if not runner.needs_channel:
        message = f"must be left out: jobs of the {runner.name} runner speak in no channel"
        return [FieldError("target_channel", "invalid", message)]
    reason = batch.unreachable_reason(spec.channel)
    return [FieldError(reason[0], "unreachable", reason[1])] if reason else []


def _outcome_errors(batch: _Batch, spec: JobSpec) -> list[FieldError]:
    told = spec.outcome_channel
    if not told:
        return []
    place = ChannelSpec(told["platform"], told["code"], told.get("type", ""), told.get("data", {}))
    if reason := batch.unreachable_reason(place):
        return [FieldError(reason[0].replace("target_channel", "outcome_channel"), "unreachable", reason[1])]
    return outcome_messages.template_errors(told.get("template", ""), spec.job_type_id, spec.params)


def _work_errors(spec: JobSpec, runner: Runner, config: Mapping[str, Any]) -> list[FieldError]:
    if runner.work is None:
        message = f"must be left out: jobs of the {runner.name} runner take none"
        return [FieldError("work", "invalid", message)] if spec.work else []
    return work_checks.errors(spec.work, runner.work, params=spec.params) + _attempt_errors(config, runner.work)


def require_allowed(org: Org, runner: Runner) -> None:
    """Check that the organisation may use this runner. Raises Forbidden (`commands_not_allowed`) if not."""
    if runner.work is None or not runner.work.runs_commands:
        return
    if settings.COMMAND_RUNNER == command_runner.OFF:
        raise Forbidden(
            "this service runs no commands: its operator has not enabled them (COMMAND_RUNNER)",
            code=command_runner.NOT_ALLOWED,
        )
    if not org.allows_commands:
        message = "the organization may not run commands; the operator of the service can allow it"
        raise Forbidden(message, code=command_runner.NOT_ALLOWED)


def _require_network(org: Org, runner: Runner, stated: Mapping[str, Any]) -> None:
    """Raises Forbidden if a command asks for the machine's network, which the organisation's commands may not use."""
    if runner.work and runner.work.runs_commands and stated.get("network") is True and not org.allows_command_network:
        message = "the organization's commands may not use the network; the operator of the service can allow it"
        raise Forbidden(message, code=command_runner.NETWORK_NOT_ALLOWED)


def _attempt_errors(config: Mapping[str, Any], rules: WorkRules) -> list[FieldError]:
    seconds, most = config.get("attempt_timeout_seconds"), rules.longest_attempt_seconds
    if isinstance(seconds, int | float) and seconds > most:
        return [FieldError("config.attempt_timeout_seconds", "invalid", f"must be at most {most:g} for this runner")]
    return []


def _cooldown_end(org_id: str, spec: JobSpec, config: Mapping[str, Any], now: datetime) -> datetime | None:
    minutes = config.get("failure_cooldown_minutes", 0)
    if not minutes or config.get("ignore_cooldown", False):
        return None
    channel = spec.channel or _NO_CHANNEL
    failed = Job.objects.filter(
        org_id=org_id,
        job_type_key=spec.job_type_id,
        channel_code=channel.code,
        platform=channel.platform,
        status=JobStatus.FAILED,
        finished_at__gt=now - timedelta(minutes=minutes),
    )
    last = failed.order_by("-finished_at").values_list("finished_at", flat=True).first()
    return last + timedelta(minutes=minutes) if last else None
