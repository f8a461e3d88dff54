"""Retries and replays: an ended job starts another life, or a new job starts from an existing job's input.

A *retry* reopens a FAILED or CANCELED job. Its new life begins like a new job: a fresh deadline from the first start,
and no counted failures, crashes or follow-ups. The row drops the old end; activities keep it. Unsent messages of the
old life are never sent, and a late worker of the old life is fenced off. Delivered and received messages stay in the
transcript, so the agent continues from there; undelivered ones are removed. The cooldown after a failure applies to new
jobs only: an explicit retry means now.

A *replay* is a new job, made by `jobs.create` and its rules, that records its origin (`replay_of`). It may reuse the
first steps of the original's journal: these are neither done nor paid for again.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs import lifecycle, sealed_work, timing
from agent_jobs.conversation import agent_messages
from agent_jobs.errors import AgentJobsError, Conflict, FieldError, IllegalMove, Invalid
from agent_jobs.jobs import admission, creation, uniqueness
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.lifecycle import queues
from agent_jobs.models import Job, Org, Step
from agent_jobs.reads import queries
from agent_jobs.specs import Actor, ChannelSpec, JobSpec
from channels_integration import directory
from infra import tracing

# `attempt` and `lease_token` keep counting: tasks keep their numbers, and no old token is reused.
_NEW_LIFE: Mapping[str, Any] = {
    "retry_count": F("retry_count") + 1,
    "expires_at": None,
    "scheduled_at": Now(),
    "started_at": None,
    "deadline_at": None,
    "finished_at": None,
    "result": None,
    "result_data": None,
    "error_code": "",
    "error_message": "",
    "waiting_for": "",
    "wake_at": None,
    "timer_message_id": None,
    "timer_seconds": None,
    "resume": "",
    "failed_attempts": 0,
    "crash_count": 0,
    "follow_ups_sent": 0,
    "follow_ups_total": 0,
    "executor_id": "",
    "progress_percent": None,
    "progress_message": "",
    "progress_at": None,
    # The first turn reads the whole transcript, so no message in it is new to a later turn.
    "inbox_seen": F("inbox_count"),
}


class _Reachability:
    """Whether the channels of jobs can be reached. Remembers the answer for each channel."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str] | None] = {}

    def require(self, job: Job) -> None:
        """Check that the job's channel can be reached. Raises Conflict (`channel_unreachable`) if not."""
        if not job.platform:
            return
        target = agent_messages.target(job)
        key = json.dumps([target.platform, target.code, target.type, dict(target.data)], sort_keys=True)
        if key not in self._known:
            self._known[key] = directory.unreachable_reason(target)
        if unreachable := self._known[key]:
            name, reason = unreachable
            raise Conflict(f"the job's channel cannot be reached: {name} {reason}", code="channel_unreachable")


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences between a replay and its original; None keeps the original's value.

    `params` and `config` are merged key by key, and a key set to None is removed; for config, the job type's default
    then holds. `scheduled_at` and the delay are never copied, since their time has passed, nor the `unique_key`, which
    the original may still hold.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    channel: ChannelSpec | None = None
    scheduled_at: datetime | None = None
    delay_minutes: int = 0
    tags: tuple[str, ...] | None = None
    priority: int | None = None
    metadata: Mapping[str, Any] | None = None
    # The new job's id, drawn if it is None, and whether it belongs to the original's schedule.
    id: UUID | None = None
    is_of_schedule: bool = False
    # Recorded model and tool calls with a smaller number are reused instead of repeated.
    from_step: int = 1


def retry(org_id: str, job_id: UUID, *, actor: Actor, reason: str = "", most: int | None = None) -> Job:
    """Reopen an ended job: WAITING, in its next life. Of several concurrent retries one succeeds; the others find it
    WAITING.

    Raises NotFound, Forbidden for another organisation's job, IllegalMove if it is not FAILED or CANCELED, Conflict
    (`channel_unreachable`) if its channel is gone or (`too_many_retries`) if it was retried `most` times, DuplicateJob
    if another job has its unique_key by now, and QuotaReached.
    """
    with transaction.atomic():
        job = queries.locked_job(org_id, job_id)
        if job.status not in MOVES[Event.RETRY].sources:
            raise IllegalMove(
                f"the job is {job.status} and cannot be retried: only one that is FAILED or CANCELED can",
                job_id=str(job.pk),
                status=job.status,
            )
        if most is not None and job.retry_count >= most:
            raise Conflict(f"the job was retried {job.retry_count} times, the most", code="too_many_retries")
        for error in reopen(org_id, [job], actor=actor, reason=reason).values():
            raise error
        job.refresh_from_db()
    return job


def reopen(org_id: str, jobs: Sequence[Job], *, actor: Actor, reason: str) -> dict[UUID, AgentJobsError]:
    """Reopen those of the locked jobs that can be. Returns why the others were not, by their ids."""
    org, reopened, refused = Org.objects.get(pk=org_id), list[Job](), dict[UUID, AgentJobsError]()
    reachable, keys = _Reachability(), uniqueness.KeysOfLiving(org_id, jobs)
    for job in jobs:
        try:
            reachable.require(job)
            keys.require_free(job)
            admission.admit_job(org)
            keys.take(job)
            reopened.append(job)
        except AgentJobsError as error:
            refused[job.pk] = error
    agent_messages.withdraw(*reopened)
    agent_messages.forget_unheard(reopened)
    note = f"WAITING: retried{f': {reason}' if reason else ''}"
    # The request's trace replaces the old one, if it has one.
    trace = tracing.current() or F("trace")
    lifecycle.move_many(Event.RETRY, reopened, actor=actor, note=note, **_NEW_LIFE, trace=trace)
    _set_expiry(reopened)
    by_lane = Counter(job.lane for job in reopened)
    transaction.on_commit(lambda: queues.ring_all(by_lane), robust=True)
    return refused


def _set_expiry(jobs: Sequence[Job]) -> None:
    by_ttl: dict[float, list[UUID]] = {}
    for job in jobs:
        if ttl := timing.queue_ttl(job.config):
            by_ttl.setdefault(ttl.total_seconds(), []).append(job.pk)
    for seconds, ids in by_ttl.items():
        Job.objects.filter(pk__in=ids).update(expires_at=lifecycle.in_seconds(seconds))


def replay(org_id: str, job_id: UUID, changes: Changes, *, actor: Actor, token_pk: int | None = None) -> Job:
    """Create a job from the input of another one in any status.

    Raises NotFound, Forbidden for another organisation's job, Invalid (also if `from_step` exceeds the recorded steps),
    DuplicateJob and QuotaReached. The job type is today's and must exist. Config and start prompt are those of the
    original.
    """
    with transaction.atomic():
        job = queries.locked_job(org_id, job_id)
        prompt = {"start_prompt": job.prompt} if job.prompt.strip() and not job.work else {}
        then = ChannelSpec(job.platform, job.channel_code, job.channel_type, job.channel_data) if job.platform else None
        spec = JobSpec(
            job_type_id=job.job_type_key,
            channel=changes.channel or then,
            config=_laid_over(prompt | job.config, changes.config),
            params=_laid_over(job.params, changes.params),
            scheduled_at=changes.scheduled_at,
            delay_minutes=changes.delay_minutes,
            tags=tuple(job.tags) if changes.tags is None else changes.tags,
            priority=job.priority if changes.priority is None else changes.priority,
            metadata=job.metadata if changes.metadata is None else changes.metadata,
            token_pk=token_pk,
            replay_of=job.pk,
            work=sealed_work.whole(job),
            outcome_channel=job.outcome_channel or {},
            id=changes.id,
            schedule_id=job.schedule_id if changes.is_of_schedule else None,
            fire_at=job.fire_at if changes.is_of_schedule else None,
        )
        steps = _usable_again(job, changes.from_step)
        made = creation.create(org_id, spec, actor=actor)
        Step.objects.bulk_create([_copied(step, made) for step in steps])
        return made


def _usable_again(job: Job, from_step: int) -> list[Step]:
    """The steps below `from_step` of the first turn in the job's last life. Later steps depend on what people said.

    Raises Invalid if there are fewer, or if one of them has no known outcome.
    """
    if from_step == 1:
        return []
    recorded = list(Step.objects.filter(job_id=job.pk, life=job.retry_count).order_by("number"))
    first_turn = [step for step in recorded if step.turn == recorded[0].turn]
    known = list(takewhile(lambda step: step.output is not None, first_turn))
    last = known[-1].number if known else 0
    if from_step > last + 1:
        message = f"must be from 1 to {last + 1}: {last} steps of the job's first turn have an outcome"
        raise Invalid(FieldError("from_step", "out_of_range", message))
    return [step for step in known if step.number < from_step]


def _copied(step: Step, job: Job) -> Step:
    kept = ("number", "kind", "name", "call_id", "input", "output", "begun_at", "called_at", "ended_at")
    columns = {column: getattr(step, column) for column in kept}
    return Step(id=uuid7(), org_id=job.org_id, job_id=job.pk, life=0, turn=0, **columns)


def _laid_over(kept: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `changed` into `kept`. A key changed to None is removed; a None that was in `kept` stays."""
    left_out = {key for key, value in changed.items() if value is None}
    return {key: value for key, value in {**kept, **changed}.items() if key not in left_out}
