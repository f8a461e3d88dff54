"""An executor's reports about an attempt: signs of life and progress, its result, its failure, or its release."""

import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction

from agent_jobs import lifecycle, sealed_work
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.executors import attempts, known_executors
from agent_jobs.executors.attempts import Attempt
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import Claim, Settlement, executor_claims, running_caps
from agent_jobs.models import Job, Task
from agent_jobs.runners import external
from agent_jobs.runners.base import Done, Failed
from agent_jobs.specs import Actor
from agent_jobs.states import TERMINAL, JobStatus, TaskStatus
from agent_jobs.turns import outcomes
from agent_jobs.work import blotted, hidden_in_outputs
from infra import meters
from infra.commands import cap_text
from infra.storable_text import marked

MAX_OUTPUT_BYTES = 1024 * 1024
MAX_RESULT_BYTES = 1024 * 1024
MAX_MESSAGE = 10_000
DEFAULT_CODE = "executor_failed"
# A result that the executor does not state is the beginning and the end of its output.
_MAX_DEFAULT_RESULT_BYTES = 10_000
_CHANCE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress that an executor reports of a job, in percent and in words. None keeps the stored value."""

    percent: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The answer to a sign of life. A canceled job has no lease any more: the executor stops it and reports nothing."""

    is_canceled: bool
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """How an attempt ended. Outputs are capped to MAX_OUTPUT_BYTES, with head and tail; broken characters are replaced.

    `result` is the job's result as text, by default the output; `result_data` is any JSON.
    """

    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    result_data: Any = None

    def stored(self, secrets: Collection[str], **more: Any) -> dict[str, Any]:
        """The task's report as JSON, without these secrets."""
        out, err = cap_text(self.stdout, MAX_OUTPUT_BYTES), cap_text(self.stderr, MAX_OUTPUT_BYTES)
        return {
            "exit_code": self.exit_code,
            "stdout": blotted(out.text, secrets),
            "stderr": blotted(err.text, secrets),
            "stdout_bytes_total": out.total_bytes,
            "stderr_bytes_total": err.total_bytes,
            "is_stdout_truncated": out.is_truncated,
            "is_stderr_truncated": err.is_truncated,
            **more,
        }


def heartbeat(
    org_id: str, attempt: Attempt, progress: Progress | None = None, *, lease_seconds: float | None = None
) -> Heartbeat:
    """Extend the lease and keep the progress. Raises NotFound, and Conflict if the attempt is over for another reason
    than a cancel.
    """
    said = progress or Progress()
    seconds = float(settings.LEASE_SECONDS) if lease_seconds is None else lease_seconds
    known_executors.note_seen(org_id, attempt.executor_id)
    is_held = executor_claims.renew_for_executor(
        org_id,
        attempt.job_id,
        attempt.executor_id,
        attempt.lease_token,
        lease_seconds=seconds,
        percent=said.percent,
        message=None if said.message is None else blotted(marked(said.message), _secrets(org_id, attempt)),
    )
    if is_held:
        return Heartbeat(is_canceled=False, lease_seconds=seconds)
    job, task = attempts.find(org_id, attempt)
    if task is not None and task.status == TaskStatus.CANCELED:
        return Heartbeat(is_canceled=True, lease_seconds=0)
    raise attempts.refusal(job, task)


def complete(org_id: str, attempt: Attempt, report: AttemptReport, *, actor: Actor) -> Job:
    """End the job COMPLETED, whatever the exit code. Returns it as it then is. Raises NotFound, Conflict if the attempt
    is over, and Invalid if the result is too large.
    """
    secrets = _secrets(org_id, attempt)
    stored = report.stored(secrets)
    result = marked(report.result) if report.result is not None else _default_result(stored)
    result_data = marked(report.result_data)
    require_size("result", result)
    require_size("result_data", result_data)
    done = Done(blotted(result, secrets), blotted(result_data, secrets), report=stored)
    return settle(org_id, attempt, done, actor=actor)


def fail(
    org_id: str,
    attempt: Attempt,
    report: AttemptReport,
    *,
    message: str,
    code: str = DEFAULT_CODE,
    is_retryable: bool = True,
    actor: Actor,
) -> Job:
    """End the attempt. The job's retry policy decides whether another one follows; if none does, the job keeps the
    report's `result_data`. Returns the job as it then is.
    """
    secrets = _secrets(org_id, attempt)
    said = blotted(marked(message)[:MAX_MESSAGE], secrets)
    result_data = marked(report.result_data)
    require_size("result_data", result_data)
    stored = report.stored(secrets, error_code=code, message=said)
    outcome = Failed(code, said, is_retryable=is_retryable, report=stored)
    return settle(org_id, attempt, outcome, actor=actor, result_data=blotted(result_data, secrets))


def settle(org_id: str, attempt: Attempt, outcome: Done | Failed, *, actor: Actor, result_data: Any = None) -> Job:
    """Write the end of an attempt and what the job becomes, in one transaction. `result_data` is that of a failed job.

    Raises NotFound, and Conflict if the attempt is over: `lease_lost`, `already_reported`, `job_canceled`, `job_ended`.
    """
    with transaction.atomic():
        job, task = attempts.locked(org_id, attempt)
        claim, now = _claim_of(job, task), _now(job)
        seconds_left = (job.deadline_at - now).total_seconds() if job.deadline_at else 0.0
        settlement = outcomes.settlement(claim, outcome, seconds_left=seconds_left, rng=_CHANCE)
        if settlement.status == JobStatus.FAILED:
            settlement = replace(settlement, result_data=result_data)
        lifecycle.settle_and_claim([_signed(settlement, actor)])
        is_done = isinstance(outcome, Done)
        known_executors.note_seen(org_id, attempt.executor_id, done=int(is_done), failed=int(not is_done))
        job.refresh_from_db()
        if job.status in TERMINAL:
            running_caps.ring_for_place(job)
            status, code = job.status, job.error_code
            transaction.on_commit(lambda: meters.add("ends", status=status, code=_counted(code)), robust=True)
        else:
            transaction.on_commit(lambda: meters.add("retries"), robust=True)
    return job


def release(org_id: str, attempt: Attempt, *, reason: str = "", actor: Actor) -> Job:
    """Give the job back to the queue. This counts neither as a failure nor as a crash. Raises NotFound, and Conflict if
    the attempt is over.
    """
    with transaction.atomic():
        job, _ = attempts.locked(org_id, attempt)
        why = f": {blotted(marked(reason)[:MAX_MESSAGE], _secrets(org_id, attempt))}" if reason else ""
        note = f"WAITING: released by executor {attempt.executor_id}{why}"
        lifecycle.move_one(Event.TAKE_BACK, job, actor=actor, note=note, left_as=TaskStatus.RELEASED)
        known_executors.note_seen(org_id, attempt.executor_id)
        transaction.on_commit(lambda: meters.add("taken_back", reason="released"), robust=True)
    return job


def _secrets(org_id: str, attempt: Attempt) -> Collection[str]:
    """The values of the job's secrets, which its executor got in clear and might print."""
    jobs = Job.objects.filter(org_id=org_id, pk=attempt.job_id, runner=external.NAME).exclude(sealed_work="")
    job = jobs.only("org_id", "sealed_work", "config").first()
    if job is None:
        return ()
    secrets = {pointer.rpartition("/")[2]: value for pointer, value in sealed_work.secrets_of(job).items()}
    return hidden_in_outputs(secrets, job.config)


def require_size(field: str, value: Any) -> None:
    """Check the size of a result. Raises Invalid if the value, as JSON, has more than MAX_RESULT_BYTES."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text.encode()) > MAX_RESULT_BYTES:
        raise Invalid(FieldError(field, "too_long", f"may have at most {MAX_RESULT_BYTES:,} bytes"))


def _default_result(stored: Mapping[str, Any]) -> str:
    said = cap_text(stored["stdout"].strip(), _MAX_DEFAULT_RESULT_BYTES).text
    return said or ("done" if stored["exit_code"] is None else f"exit code {stored['exit_code']}")


def _counted(code: str) -> str:
    """The code as a label of the metrics: executors state codes of their own, without limit."""
    return code if code in _KNOWN_CODES else DEFAULT_CODE if code else ""


_KNOWN_CODES = {DEFAULT_CODE, "secret_unavailable"}


def _signed(settlement: Settlement, actor: Actor) -> Settlement:
    return replace(settlement, actor=str(actor), request_id=actor.request_id)


def _now(job: Job) -> datetime:
    """The database's time when the row was read."""
    now: datetime = job.database_now  # type: ignore[attr-defined]
    return now


def _claim_of(job: Job, task: Task) -> Claim:
    """The attempt as a turn, for the rules of retries and endings. It has no conversation."""
    return Claim(
        id=job.pk,
        org_id=job.org_id,
        job_type_key=job.job_type_key,
        task_id=task.pk,
        token=job.lease_token,
        runner=job.runner,
        prompt="",
        params=job.params,
        config=job.config,
        agent={},
        work=job.work,
        sealed_work="",
        schedule_id=str(job.schedule_id or ""),
        scheduled_at=job.scheduled_at,
        fire_at=job.fire_at,
        platform="",
        channel_code="",
        channel_type="",
        channel_data={},
        waiting_for="",
        resume="",
        inbox_count=0,
        inbox_seen=0,
        follow_ups_sent=0,
        follow_ups_total=0,
        failed_attempts=job.failed_attempts,
        crash_count=job.crash_count,
        attempt=job.attempt,
        result=job.result,
        life=job.retry_count,
        turn=job.turn,
        is_replay=job.replay_of is not None,
        has_hours=False,
        trace=job.trace,
        seconds_late=0.0,
        seconds_left=0.0,
    )
