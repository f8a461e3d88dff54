"""Everything that happened in one job, for its page: in two statements, however long it lasted.

A job may have thousands of steps or messages: only the newest are read. Steps come without their inputs and outputs;
`call` reads those of one step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_jobs.errors import NotFound
from agent_jobs.models import Activity, Job, Step
from infra import raw_sql

Row = Mapping[str, Any]
MOST_STEPS = 500
MOST_CLAIMS = 300
MOST_MESSAGES = 300
_MOST_ALIKE = 5
COLUMNS = (
    *("id", "org_id", "status", "job_type_key", "runner", "platform", "channel_code", "channel_type", "channel_data"),
    *("params", "config", "tags", "priority", "created_at", "updated_at", "requested_at", "delay_minutes"),
    *("delay_seconds", "scheduled_at", "started_at", "deadline_at", "finished_at", "queue_at", "waiting_for"),
    *("wake_at", "lease_until", "attempt", "failed_attempts", "crash_count", "retry_count", "thread", "inbox_count"),
    *("follow_ups_sent", "follow_ups_total", "result", "result_data", "error_code", "error_message", "replay_of"),
    *(
        "schedule_id",
        "prompt",
        "work",
        "metadata",
        "outcome_channel",
        "created_by__name",
        "created_by__public_id",
        "time_spent",
        "state_since",
    ),
)
_LIFE = f"""
SELECT
    coalesce((SELECT name FROM agent_jobs_jobtype WHERE org_id = job.org_id AND key = job.job_type_key), ''),
    coalesce((SELECT name FROM agent_jobs_profile WHERE org_id = job.org_id AND key = job.config ->> 'profile_id'), ''),
    (SELECT coalesce(max(number), 0) FROM agent_jobs_activity WHERE job_id = job.id),
    (SELECT coalesce(sum(consumed_credits), 0) FROM agent_jobs_activity WHERE job_id = job.id),
    (SELECT count(*) FROM agent_jobs_message WHERE job_id = job.id),
    (SELECT count(*) FROM agent_jobs_job again WHERE again.org_id = job.org_id AND again.replay_of = job.id),
    coalesce((SELECT name FROM channels_integration_channel channel WHERE channel.org_id = job.org_id
        AND channel.platform = job.platform AND channel.code = job.channel_code), ''),
    coalesce((SELECT name FROM agent_jobs_schedule WHERE org_id = job.org_id AND id = job.schedule_id), ''),
    coalesce((SELECT reserved_cost FROM agent_jobs_budget WHERE org_id = job.org_id AND scope = 3
        AND key = job.id::text LIMIT 1), 0),
    coalesce((SELECT json_agg(t ORDER BY t.number) FROM (
        SELECT number, created_at, finished_at, status, left(coalesce(result, ''), 300) AS result FROM agent_jobs_task
        WHERE job_id = job.id ORDER BY number DESC LIMIT {MOST_CLAIMS}) t), '[]'),
    coalesce((SELECT json_agg(s ORDER BY s.life, s.number) FROM (
        SELECT step.id, step.number, step.life, step.turn, step.kind, step.name, begun_at, called_at, ended_at,
            coalesce(nullif(step.output ->> 'error', ''),
                CASE WHEN step.output ->> 'is_error' = 'true' THEN 'error' END, '') AS error,
            coalesce(left(step.output ->> 'message', 300), '') AS message, coalesce(approval.status, '') AS approval,
            coalesce(activity.consumed_credits, 0) AS cost,
            coalesce((activity.output ->> 'input_tokens')::bigint, 0)
                + coalesce((activity.output ->> 'output_tokens')::bigint, 0) AS tokens
        FROM agent_jobs_step step
        LEFT JOIN agent_jobs_approval approval ON approval.step_id = step.id
        LEFT JOIN LATERAL (
            SELECT consumed_credits, output FROM agent_jobs_activity WHERE job_id = job.id AND code = 'model.call'
                AND life = step.life AND step.kind = 'model' AND output ->> 'step' = step.number::text LIMIT 1
        ) activity ON true
        WHERE step.job_id = job.id ORDER BY step.life DESC, step.number DESC LIMIT {MOST_STEPS}) s), '[]')
FROM agent_jobs_job job WHERE job.id = %s
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class ClaimPiece:
    """One claim of a job, and how it ended."""

    began_at: datetime
    ended_at: datetime | None
    status: str
    result: str


@dataclass(frozen=True, slots=True)
class StepLine:
    """One call. `approval`: the status of the approval that it needed."""

    id: UUID
    number: int
    life: int
    turn: int
    kind: str
    name: str
    begun_at: datetime
    called_at: datetime | None
    ended_at: datetime | None
    error: str
    message: str
    approval: str
    cost: Decimal
    tokens: int

    @property
    def began_at(self) -> datetime:
        """When the call itself began: after its approval, if it needed one."""
        return self.called_at or self.begun_at

    @property
    def seconds(self) -> float | None:
        return None if self.ended_at is None else (self.ended_at - self.began_at).total_seconds()

    @property
    def has_failed(self) -> bool:
        return bool(self.error)


@dataclass(frozen=True, slots=True)
class JobLife:
    job: Row
    type_name: str
    profile_name: str
    activities: int
    cost: Decimal
    messages: int
    replays: int
    channel_name: str
    schedule_name: str
    reserved: Decimal
    claims: Sequence[ClaimPiece]
    steps: Sequence[StepLine]


def of(org_id: str, job_id: UUID) -> JobLife:
    """Read the life of a job. Raises NotFound, also for another organisation's job."""
    row: Row | None = Job.objects.filter(org_id=org_id, pk=job_id).values(*COLUMNS).first()
    if row is None:
        raise NotFound(f"there is no job {str(job_id)!r}", code="job_not_found")
    *facts, claims, steps = raw_sql.first(_LIFE, [job_id])
    facts += [[_claim(one) for one in claims], [_step(one) for one in steps]]
    return JobLife(row, *facts)


def call(org_id: str, step: StepLine) -> tuple[Any, Any]:
    """The input and output of a step, as its activity has them: without secrets, and long texts cut."""
    found = Activity.objects.filter(org_id=org_id, pk=step.id).values_list("input", "output").first()
    if found is not None:
        return found
    kept = Step.objects.filter(org_id=org_id, pk=step.id).values_list("input", "output").first()
    asked, came = kept or (None, None)
    return asked, came


def failed_alike(org_id: str, job: Row) -> list[Row]:
    """The newest other jobs that failed with the same code."""
    jobs = Job.objects.filter(org_id=org_id, status="FAILED", error_code=job["error_code"]).exclude(pk=job["id"])
    return list(
        jobs.order_by("-updated_at", "-id").values("id", "job_type_key", "params", "tags", "updated_at")[:_MOST_ALIKE]
    )


def _claim(one: Mapping[str, Any]) -> ClaimPiece:
    return ClaimPiece(_time(one["created_at"]), _maybe(one["finished_at"]), one["status"], one["result"])


def _step(one: Mapping[str, Any]) -> StepLine:
    times = {"begun_at": _time(one["begun_at"]), **{name: _maybe(one[name]) for name in ("called_at", "ended_at")}}
    return StepLine(**{**one, **times, "id": UUID(one["id"]), "cost": Decimal(str(one["cost"]))})


_time = datetime.fromisoformat


def _maybe(text: str | None) -> datetime | None:
    return _time(text) if text else None
