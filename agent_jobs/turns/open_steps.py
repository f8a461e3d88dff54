"""Writes the begin and the outcome of a turn's steps, and the approvals that some of them wait for.

Every write checks the lease, and is retried during a short outage of the database.
"""

import time
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs import tools
from agent_jobs.approvals import budget_requests, decisions, edit_form, question_text
from agent_jobs.budgets import call_activity
from agent_jobs.errors import LeaseLost, RunError
from agent_jobs.lifecycle import Claim
from agent_jobs.models import Approval, Job, Message, Step
from agent_jobs.runners.base import AwaitApproval
from agent_jobs.states import JobStatus
from agent_jobs.turns import steps
from agent_jobs.turns.database_retries import patiently


class OpenSteps:
    """The steps of one claim's turn, from their begin to their outcome. `walk` has those recorded before."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._job_id, self._token = claim.id, claim.token
        self.walk = steps.Walk(claim)

    # --- Steps ---
    def begin(self, step: Step, *, asks_for: tools.Declared | None = None) -> None:
        def begin() -> None:
            with transaction.atomic():
                self.walk.insert(step)
                if asks_for is not None:
                    self._ask_for_approval(step, asks_for)

        patiently(begin)

    def mark_called(self, step: Step) -> None:
        def mark() -> None:
            with transaction.atomic():
                self.locked()
                Step.objects.filter(pk=step.pk).update(called_at=Now())

        patiently(mark)

    def end(
        self,
        step: Step,
        output: Mapping[str, Any],
        tool: tools.Declared | None = None,
        arguments: Mapping[str, Any] | None = None,
        began: float | None = None,
    ) -> None:
        """Write the outcome of a step, even if the job is lost: the call has happened all the same.

        Another process that has lost the job may have been quicker. Then its outcome holds, and `step.output` is that.
        A tool call also gets an activity with its arguments.
        """
        if tool is None:
            patiently(lambda: steps.close(step, output))
            return
        shown = patiently(lambda: tools.blotted(self._claim.org_id, tool, arguments or {}))
        seconds = time.monotonic() - began if began is not None else None

        def end() -> None:
            with transaction.atomic():
                self.close(step, output, shown, seconds=seconds)

        patiently(end)

    def close(self, step: Step, output: Mapping[str, Any], shown: Any, *, seconds: float | None = None) -> None:
        """Write the outcome of a step within the caller's transaction, otherwise as `end` does."""
        if steps.close(step, output):
            call_activity.write_tool(step, output, shown, task_id=str(self._claim.task_id), seconds=seconds)

    def locked(self) -> Job:
        mine = Job.objects.filter(
            pk=self._job_id, lease_token=self._token, status=JobStatus.RUNNING, lease_until__isnull=False
        )
        job = mine.select_for_update(no_key=True).first()
        if job is None:
            raise LeaseLost("this worker no longer holds the job")
        return job

    # --- Approvals ---
    def decided(self, step: Step) -> Approval | None:
        """The approval of a step, after applying its time-out; None if it needs none."""
        approval = Approval.objects.filter(step=step).first()
        if approval is None:
            return None
        with transaction.atomic():
            return decisions.settle_time_out(approval, self.locked())

    def park(self, approval: Approval) -> AwaitApproval:
        left = ExpressionWrapper(F("expires_at") - Now(), DurationField())
        seconds = Approval.objects.values_list(left, flat=True).get(pk=approval.pk).total_seconds()
        has_begun = approval.timer_seconds is None
        assert approval.message_key is not None
        is_asked = (
            bool(approval.asked_in) or Message.objects.filter(job_id=self._job_id, key=approval.message_key).exists()
        )
        return AwaitApproval(
            message_id=str(approval.message_key),
            seconds=max(seconds, 0.0) if has_begun else approval.timer_seconds or 0.0,
            say=() if is_asked else (approval.question,),
            buttons=edit_form.buttons(approval, self._claim.platform),
            has_begun=has_begun,
        )

    def ask_for_more(self, step: Step, error: RunError) -> Approval | None:
        def ask() -> Approval | None:
            with transaction.atomic():
                return budget_requests.ask(self.locked(), step, error)

        return patiently(ask)

    def _ask_for_approval(self, step: Step, tool: tools.Declared) -> None:
        arguments, approval_id = step.input["arguments"], uuid7()
        address = f"/services/agent-jobs/{step.job_id}/approvals/{approval_id}"
        asked = {
            "org_id": step.org_id,
            "job_id": step.job_id,
            "tool": tool.name,
            "id": approval_id,
            "question": question_text.worded(tool, arguments, address=address),
            "arguments": arguments,
            "approvers": list(tool.approvers),
            "on_timeout": tool.on_timeout,
            "message_key": uuid7(),
            **decisions.time_for(tool.approval_minutes, self._claim.platform),
        }
        Approval.objects.get_or_create(step=step, defaults=asked)
