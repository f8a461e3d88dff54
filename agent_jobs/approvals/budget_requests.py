"""Over a cap, where the job's config says `on_budget_exhausted: approve`: a person is asked whether it may go on.

What is asked for hangs on the call of a model that was not made, as a tool's approval hangs on the tool's call. An
approval raises the job's own caps (`max_tokens`, `max_cost`) by what they say, or as many times that as the call needs,
once each: nothing is written for that, for the limit is at any moment what the config says and the sum of what was
approved (`spending.granted`). So there is no moment between a decision and its effect, and nothing that could be added
twice.

A cap of the job type or of the organisation is an admin's, and no approval lifts it: one only has the call tried once
more, for the admin may have raised it meanwhile, or another UTC day begun. If there is no room even then, it is asked
again. That cannot go on by itself, for no question is asked before somebody has answered the last one, and a time-out
ends the job. Nor do people go round in circles with it: of such a cap, `MOST_QUESTIONS` are asked in a job's life on a
UTC day, and then the job ends as it would have without. A job's own cap has no such bound, for each answer buys
something.
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
    """What is asked of people about a call that was not made, the job's row locked; None where that is not to be asked.

    A second time about the same step it is the first question.
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
    """The end of a job that nobody let go on."""
    over = approval.arguments
    cap = f"{over['cap']} of the {over['of'].replace('_', ' ')} is {over['limit']:,}, {over['used']:,} are used"
    if approval.status == Approval.Status.EXPIRED:
        return BudgetExhausted(f"{cap}, and nobody allowed more in time")
    why = f": {approval.reason}" if approval.reason else ""
    return BudgetExhausted(f"{cap}, and {approval.decided_by} denied more{why}")


def _over(cap: Cap, error: RunError) -> dict[str, Any]:
    """What an approval's `arguments` are: `{"cap": "max_tokens", "of": "job", "limit": 6000, "used": 5930,
    "grants": 6000}`. `used` has what is set aside for calls under way in it; only a job's own cap has `grants`."""
    used = cap.limit - error.context["left"]
    over = {"cap": cap.name, "of": _OF[cap.scope], "limit": _number(cap.limit), "used": _number(used)}
    return over | ({"grants": _number(_grants(cap, error))} if cap.scope == Scope.JOB else {})


def _grants(cap: Cap, error: RunError) -> int | Decimal:
    """What one approval adds: enough for the call that it is asked for, or the same would be asked again at once."""
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
    """As JSON: money has six places at most, which a float's shortest form keeps."""
    return amount if isinstance(amount, int) else float(amount)
