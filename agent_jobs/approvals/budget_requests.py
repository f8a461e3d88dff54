"""Asks a person whether a job may pass a budget cap, where its config says `on_budget_exhausted: approve`.

The approval belongs to the model call that was not made, as a tool's approval belongs to the tool call. An approval
raises the job's own caps (`max_tokens`, `max_cost`) by their configured amount, or by the multiple of it that the call
needs. Each approval counts once. It writes no new limit: a limit is the configured value plus the sum of all approvals
(`limits.granted`). So a decision takes effect at once, and nothing can be added twice.

Only an admin changes a cap of the job type or the organisation; no approval raises it. Such an approval makes the agent
try the call again, since the admin may have raised the cap or a new UTC day may have begun. If there is still no room,
the agent asks again. This cannot loop by itself: each question waits for an answer, and a time-out ends the job. For
these caps a job asks at most `MOST_QUESTIONS` times per UTC day and then fails as it would without approvals. A job's
own cap has no such bound, because each approval adds room.
"""

import math
from collections.abc import Mapping
from datetime import UTC
from decimal import Decimal
from typing import Any

from django.db.models.fields.json import KT
from django.db.models.functions import Now, TruncDay
from uuid_utils.compat import uuid7

from agent_jobs.approvals import decisions
from agent_jobs.budgets.limits import Cap
from agent_jobs.errors import BudgetExhausted, RunError
from agent_jobs.models import Approval, Job, Step
from agent_jobs.models.budgets import Scope

MOST_QUESTIONS = 3
DEFAULT_MINUTES = 60
_OF = {Scope.ORG: "organization", Scope.TYPE: "job_type", Scope.JOB: "job"}


def ask(job: Job, step: Step, error: RunError) -> Approval | None:
    """Create the approval for a model call that a cap stopped; None if the job may not ask. The caller holds the job's
    row lock.

    A second call for the same step returns the first approval.
    """
    cap = error.context.get("cap")
    if not isinstance(cap, Cap) or job.config.get("on_budget_exhausted") != "approve":
        return None
    if asked := Approval.objects.filter(step=step).first():
        return asked
    over = _over(cap, error)
    if cap.scope != Scope.JOB and _asked_today(job, over) >= MOST_QUESTIONS:
        return None
    return Approval.objects.create(
        org_id=job.org_id,
        job_id=job.pk,
        step=step,
        kind=Approval.Kind.BUDGET,
        tool=step.name,
        question=_question(cap, error),
        arguments=over,
        approvers=list(job.config.get("budget_approvers", ())),
        on_timeout="fail",
        message_key=uuid7(),
        **decisions.time_for(job.config.get("budget_approval_minutes", DEFAULT_MINUTES), job.platform),
    )


def refused(approval: Approval) -> BudgetExhausted:
    """The error that ends a job whose budget request was denied or timed out."""
    over = approval.arguments
    cap = f"{over['cap']} of the {over['of'].replace('_', ' ')} is {over['limit']:,}, {over['used']:,} are used"
    if approval.status == Approval.Status.EXPIRED:
        return BudgetExhausted(f"{cap}, and nobody allowed more in time")
    why = f": {approval.reason}" if approval.reason else ""
    return BudgetExhausted(f"{cap}, and {approval.decided_by} denied more{why}")


def _over(cap: Cap, error: RunError) -> dict[str, Any]:
    """The approval's `arguments`: `{"cap": "max_tokens", "of": "job", "limit": 6000, "used": 5930, "grants": 6000}`.

    `used` includes reservations of calls that are under way. Only a job's own cap has `grants`.
    """
    used = cap.limit - error.context["left"]
    over = {"cap": cap.name, "of": _OF[cap.scope], "limit": _number(cap.limit), "used": _number(used)}
    return over | ({"grants": _number(_grants(cap, error))} if cap.scope == Scope.JOB else {})


def _grants(cap: Cap, error: RunError) -> int | Decimal:
    """How much one approval adds: enough for this call, or the agent would have to ask again at once."""
    stated = cap.limit - cap.granted
    times: int = math.ceil(Decimal(error.context["short"]) / Decimal(stated))
    return stated * max(times, 1)


def _question(cap: Cap, error: RunError) -> str:
    used = cap.limit - error.context["left"]
    found = f"I have come to the end of a budget: {error.message}. So far {used:,} of it are used."
    if cap.scope == Scope.JOB:
        return f"{found}\nMay I have {_grants(cap, error):,} more?"
    return (
        f"{found}\nThis cap is not raised by an approval, only by an administrator or by the next day (UTC)."
        " Shall I try once more?"
    )


def _asked_today(job: Job, over: Mapping[str, Any]) -> int:
    begun = Approval.objects.filter(org_id=job.org_id, job_id=job.pk, kind=Approval.Kind.BUDGET)
    stated = begun.alias(cap=KT("arguments__cap"), whose=KT("arguments__of"))
    about = stated.filter(step__life=job.retry_count, cap=over["cap"], whose=over["of"])
    return about.filter(created_at__gte=TruncDay(Now(), tzinfo=UTC)).count()


def _number(amount: int | Decimal) -> int | float:
    """A JSON number. Money has at most six decimal places, which a float's shortest form keeps."""
    return amount if isinstance(amount, int) else float(amount)
