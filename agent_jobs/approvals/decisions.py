"""Approvals: a tool call is stored, a person decides, the job continues. All state is in rows and survives restarts.

Lock order: the job's row first, then the approval's. The first decision wins, and the time-out counts as one. The time
to decide starts when the question is delivered or its delivery is given up. Quiet hours do not count.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from agent_jobs import approvers, lifecycle
from agent_jobs.approvals import question_text
from agent_jobs.approvers import Decider
from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from agent_jobs.lifecycle import activities, approval_closing, queues
from agent_jobs.models import Approval, Job
from agent_jobs.sandbox import json_schema
from agent_jobs.specs import Actor
from agent_jobs.states import SourceType, WaitingFor
from channels_integration import platforms

Status = Approval.Status
# Longer than a job may take.
_FAR_AWAY_SECONDS = timedelta(days=1_000).total_seconds()
DECISIONS = {"approve": Status.APPROVED, "deny": Status.DENIED}


def time_for(minutes: float, platform: str) -> dict[str, Any]:
    """Column values that give a new approval on this platform its time limit."""
    seconds = minutes * 60
    if platforms.get(platform).accepts_on_commit:
        return {"expires_at": lifecycle.in_seconds(seconds)}
    return {"expires_at": lifecycle.in_seconds(seconds + _FAR_AWAY_SECONDS), "timer_seconds": seconds}


def start_time(job: Job, message_key: UUID) -> float | None:
    """Start the time limit of the approval asked by this message, once: the message is delivered, or never will be.

    After a failed delivery people can still decide through the API. Returns the seconds to decide, None if no time
    starts.
    """
    asked = Approval.objects.filter(job_id=job.pk, message_key=message_key, timer_seconds__isnull=False)
    approval = asked.filter(status=Status.PENDING).first()
    if approval is None:
        return None
    seconds = approval.timer_seconds or 0.0
    asked.filter(pk=approval.pk).update(expires_at=lifecycle.in_seconds(seconds), timer_seconds=None)
    return seconds


def decide(
    org_id: str,
    approval_id: UUID,
    decision: str,
    *,
    by: Decider,
    actor: Actor,
    job_id: UUID | None = None,
    arguments: Mapping[str, Any] | None = None,
    reason: str = "",
) -> Approval:
    """Approve or deny, once.

    `arguments` replace the agent's; equal ones are no change. Raises NotFound, Forbidden if `by` is not an approver,
    Invalid for arguments that the tool does not take, and Conflict if the approval is decided, expired or withdrawn, or
    if `by` was not shown everything that they approve.
    """
    with transaction.atomic():
        asked = _found(org_id, approval_id, job_id)
        job = Job.objects.select_for_update(no_key=True).get(org_id=org_id, pk=asked.job_id)
        approval = Approval.objects.select_related("step").select_for_update(of=("self",)).get(pk=asked.pk)
        _require_approver(approval, by)
        _require_open(approval, job)
        if decision == "approve" and arguments is None:
            _require_seen(approval, by)
        if arguments is not None:
            _check(approval, arguments)
            arguments = None if _as_json(arguments) == _as_json(approval.arguments) else arguments
        _decided(approval, DECISIONS[decision], by=str(by), reason=reason, edited_arguments=arguments)
        _note(job, approval, actor)
        _audit(approval, actor)
        _go_on(job)
    return approval


def require_decidable(org_id: str, approval_id: UUID, *, by: Decider) -> Approval:
    """The approval, if `by` could decide it at this moment. Locks nothing.

    Raises NotFound, Forbidden if `by` is not an approver, and Conflict if it is decided, late or not open yet.
    """
    approval = _found(org_id, approval_id)
    _require_approver(approval, by)
    _require_open(approval, approval.job)
    return approval


def has_arguments(approval: Approval) -> bool:
    """Whether the approved call has arguments that a person may edit."""
    return approval.kind == Approval.Kind.TOOL and approval.tool != "ask_approval"


def schema_of(approval: Approval) -> Mapping[str, Any]:
    """The JSON schema of the tool's arguments, as stored with the question."""
    return approval.step.input.get("parameters") or {}


def settle_time_out(approval: Approval, job: Job) -> Approval:
    """Settle an approval that nobody decided in time, by the database's clock. The caller holds the job's row lock."""
    if approval.status != Status.PENDING:
        return approval
    late = Approval.objects.filter(pk=approval.pk, status=Status.PENDING, expires_at__lte=Now())
    if late.exists():
        is_approved = approval.on_timeout == "approve"
        _decided(approval, Status.APPROVED if is_approved else Status.EXPIRED, by=approval_closing.TIME_OUT, reason="")
        _note(job, approval, Actor("system", "approvals"))
    return approval


def not_found(approval_id: str, *, denied: tuple[str, str] | None = None) -> NotFound:
    return NotFound(f"there is no approval {approval_id[:64]!r}", code="approval_not_found", denied=denied)


def _found(org_id: str, approval_id: UUID, job_id: UUID | None = None) -> Approval:
    asked = Approval.objects.select_related("job", "step").filter(pk=approval_id).first()
    if asked is None or asked.org_id != org_id or (job_id is not None and asked.job_id != job_id):
        is_own = asked is not None and asked.org_id == org_id
        raise not_found(str(approval_id), denied=None if is_own else ("approval", str(approval_id)))
    return asked


def _require_approver(approval: Approval, by: Decider) -> None:
    if not approvers.may_decide(approval.approvers, by):
        raise Forbidden("you are not an approver of this action", code="not_an_approver")


def _require_seen(approval: Approval, by: Decider) -> None:
    """Refuse an approval of arguments that the person has not seen: a message may not show all of them."""
    if isinstance(by, approvers.Person) and not question_text.is_whole(approval):
        raise Conflict(
            "the message does not show the whole action: read and approve it by API", code="approval_by_api_only"
        )


def _require_open(approval: Approval, job: Job) -> None:
    if approval.status == Status.PENDING and job.is_terminal:
        raise Conflict(f"the job is {job.status}: there is nothing left to approve", code="approval_closed")
    is_late = Approval.objects.filter(pk=approval.pk, expires_at__lte=Now()).exists()
    if approval.status == Status.PENDING and is_late:
        raise Conflict("the time for this decision is over", code="approval_closed")
    if approval.status == Status.PENDING and (job.waiting_for != WaitingFor.APPROVAL or job.lease_until is not None):
        # For some milliseconds a worker still runs the job's turn and would miss the decision.
        raise Conflict("the approval is still being created: try again in a second", code="approval_not_open")
    if approval.status != Status.PENDING:
        by = f" by {approval.decided_by}" if approval.decided_by else ""
        raise Conflict(f"the approval is already {approval.status}{by}", code="approval_closed")


def _check(approval: Approval, arguments: Mapping[str, Any]) -> None:
    if approval.kind == Approval.Kind.BUDGET:
        raise Invalid(FieldError("arguments", "invalid", "go only with a tool's call; more budget is granted as asked"))
    if not isinstance(arguments, Mapping):
        raise Invalid(FieldError("arguments", "invalid", "must be an object"))
    if errors := json_schema.params_errors(schema_of(approval), arguments, at="arguments"):
        raise Invalid(*errors)


def _as_json(arguments: Mapping[str, Any]) -> str:
    """Comparable JSON text: Python holds 1 == true, a tool does not."""
    return json.dumps(arguments, sort_keys=True)


def _decided(
    approval: Approval, status: str, *, by: str, reason: str, edited_arguments: Mapping[str, Any] | None = None
) -> None:
    Approval.objects.filter(pk=approval.pk, status=Status.PENDING).update(
        status=status, decided_by=by[:255], reason=reason, edited_arguments=edited_arguments, decided_at=Now()
    )
    approval.refresh_from_db(fields=["status", "decided_by", "reason", "edited_arguments", "decided_at"])
    approval_closing.close(approval)


def _note(job: Job, approval: Approval, actor: Actor) -> None:
    why = f": {approval.reason}" if approval.reason else ""
    changed = {"edited_arguments": approval.edited_arguments} if approval.edited_arguments is not None else {}
    activities.note(
        job,
        f"approval.{approval.status}",
        f"{approval.what} was {approval.status} by {approval.decided_by}{why}",
        actor=actor,
        source=SourceType.DIRECT,
        input={"approval_id": str(approval.pk), "tool": approval.tool, "arguments": approval.arguments, **changed},
    )


def _audit(approval: Approval, actor: Actor) -> None:
    after: dict[str, Any] = {"job_id": str(approval.job_id), "tool": approval.tool, "by": approval.decided_by}
    if approval.kind == Approval.Kind.BUDGET:
        after["budget"] = approval.arguments
    if approval.reason:
        after["reason"] = approval.reason
    if approval.edited_arguments is not None:
        after["edited_arguments"] = approval.edited_arguments
    audit_log.record(approval.org_id, f"approval.{approval.status}", approval.pk, actor=actor, after=after)


def _go_on(job: Job) -> None:
    if lifecycle.ready_again(job):
        queues.ring_on_commit(job.lane)
