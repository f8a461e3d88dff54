"""The journal of a turn: records each model or tool call as a step before making it, and its outcome before the next.

A turn that resumes after a crash, a failure or an approval replays the recorded steps. A call with an outcome is not
made again. A call without one has an unknown outcome, because its worker died. The journal asks the model again, which
has no visible effect. It calls a tool again only if the tool is declared idempotent; otherwise it tells the model that
the outcome is unknown.

Every write checks the lease. A job that is canceled, overdue or held by another worker raises LeaseLost, which ends the
turn. Its running call is aborted within one to two seconds (`calls_in_flight`). During a short outage of the database,
writes are retried (`database_retries`), so that the results of outside calls are kept.

This module decides what is recorded and in which order; `model_calls` calls models and pays for them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs import llm, tools
from agent_jobs.approvals import budget_requests, decision_texts, decisions, edit_form, question_text
from agent_jobs.budgets import call_activity, reservations
from agent_jobs.conversation import agent_messages, human_messages
from agent_jobs.errors import BudgetExhausted, LeaseLost, PermanentError, RetryableError, RunError
from agent_jobs.lifecycle import Claim
from agent_jobs.llm import answer_parsing, context
from agent_jobs.models import Approval, Job, Message, Step
from agent_jobs.runners.base import AwaitApproval, Interrupted, ModelCall, Said
from agent_jobs.sandbox import json_schema
from agent_jobs.states import JobStatus
from agent_jobs.turns import argument_repair, steps
from agent_jobs.turns.calls_in_flight import CALLS, give_back
from agent_jobs.turns.database_retries import patiently
from agent_jobs.turns.model_calls import ModelCalls
from infra.storable_text import storable

_UNKNOWN = "Nobody knows whether this was done: the process that did it was stopped. Do not assume either."
_MOST_CHARACTERS = 20_000
_MOST_TOLD = 500
# How often the context is halved if it is too long for the model.
_MOST_CUTS = 2
# Name and call id of a step that sends the text that the model wrote beside its tool calls.
_SAY = "say"
# `count_heard` reads the database again only after this time; the next turn takes in newer messages.
_NEWS_SECONDS = 0.25


class TurnJournal:
    """The journal of one claim's turn. Not thread-safe."""

    def __init__(
        self,
        claim: Claim,
        routes: Sequence[llm.Route],
        offered: Sequence[tools.Declared] = (),
        result_schema: Mapping[str, Any] | None = None,
    ) -> None:
        self._claim = claim
        self._job_id, self._token = claim.id, claim.token
        self._routes = routes
        self._tools = {tool.name: tool for tool in offered}
        self._result_schema = result_schema or {}
        self._interrupts = claim.config.get("on_message") == "interrupt"
        # The built-in model without tools costs nothing and has no side effects, so its steps are not recorded.
        self._is_kept = bool(offered) or any(llm.provider_of(route.model) for route in routes)
        self._steps = steps.Walk(claim)
        # A replay may start with steps copied from its original job (`jobs.repeats`).
        if self._is_kept and (claim.attempt > 1 or claim.life or claim.is_replay):
            self._steps.read()
        self._heard = claim.inbox_count
        self._looked_at = time.monotonic()
        self._models = ModelCalls(claim, routes)
        self._context_tokens = routes[0].access.context_tokens
        self._seen = 0  # human messages in the last request to the model
        self._answered: tuple[Step, Mapping[str, Any]] | None = None

    @property
    def calls(self) -> list[ModelCall]:
        return self._models.made

    # --- For the runner ---
    @property
    def is_ahead(self) -> bool:
        return any(step.kind == Step.Kind.MODEL and step.output is not None for step in self._steps.ahead)

    def lines(self) -> tuple[Said, ...]:
        found = patiently(lambda: agent_messages.said_in(self._job_id))
        self._heard, self._looked_at = sum(said.is_human for said in found), time.monotonic()
        return found

    def count_heard(self) -> int:
        if time.monotonic() - self._looked_at > _NEWS_SECONDS:
            self._heard = patiently(lambda: human_messages.count(self._claim))
        return self._heard

    def fitted(self, result_data: Any) -> tuple[Any, str]:
        found = argument_repair.fitted(self._result_schema, result_data)
        errors = json_schema.params_errors(self._result_schema, found, at="result_data")
        return found, "; ".join(f"{error.field} {error.message}" for error in errors[:3])

    def ask(self, turn: llm.Turn, *, may_interrupt: bool = True) -> llm.Reply | AwaitApproval:
        """If the model refuses the context as too long, halve it and ask again, at most _MOST_CUTS times."""
        self._seen = sum(line.is_human for line in turn.lines)
        for may_cut in (*[True] * _MOST_CUTS, False):
            shown, left_out = context.cut(turn, self._context_tokens)
            try:
                reply = self._asked(shown, left_out, may_interrupt=may_interrupt)
                if isinstance(reply, AwaitApproval) or not _is_too_long(reply):
                    return reply
                assert reply.slip is not None
                raise PermanentError(reply.slip.what, code=answer_parsing.CONTEXT_TOO_LONG)
            except PermanentError as error:
                self._context_tokens = context.size(shown) // 2
                is_cut = context.cut(turn, self._context_tokens)[0] != shown
                if error.code != answer_parsing.CONTEXT_TOO_LONG or not may_cut or not is_cut:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def disown(self, code: str) -> None:
        if self._answered:
            step, record = self._answered
            patiently(lambda: steps.rewrite(step, {**record, "error": code}))

    def say(self, texts: Sequence[str]) -> None:
        for text in texts:
            step = self._steps.recorded(Step.Kind.TOOL, call_id=_SAY)
            if step is None:
                if self._steps.ahead:
                    return  # an earlier release recorded this turn, and did not send text beside tool calls
                step = self._steps.planned(Step.Kind.TOOL, _SAY, {"arguments": {"text": text}}, call_id=_SAY)
                self._begin(step)
            if step.output is None:
                self._say(step, text)

    def perform(self, call: llm.ToolCall) -> str | AwaitApproval:
        tool = self._tools.get(call.name)
        if tool is None:
            complaint = f"There is no tool {call.name[:64]!r}. The tools are: {', '.join(self._tools) or 'none'}."
            return self._refuse(call, tools.Declared(call.name, "", "", {}), complaint)
        arguments = argument_repair.fitted(tool.parameters, dict(call.arguments))
        if complaint := tools.argument_errors(tool, arguments):
            return self._refuse(call, tool, complaint)
        step = self._steps.recorded(Step.Kind.TOOL, call_id=call.id)
        if step is None:
            needs_approval = tool.requires_approval or tool.kind == "ask_approval"
            given = {"arguments": arguments, "parameters": dict(tool.parameters)}
            step = self._steps.planned(Step.Kind.TOOL, tool.name, given, call_id=call.id)
            self._begin(step, asks_for=tool if needs_approval else None)
            if needs_approval:
                return patiently(lambda: self._park(Approval.objects.get(step=step)))
            return self._call(step, tool, arguments)
        if step.output is not None:
            return str(step.output["text"])
        return self._take_up(step, tool, arguments)

    # --- Models ---
    def _asked(self, turn: llm.Turn, left_out: int, *, may_interrupt: bool) -> llm.Reply | AwaitApproval:
        """Call the model, or return the recorded reply."""
        if recorded := self._steps.recorded(Step.Kind.MODEL):
            if recorded.output is not None:
                self._answered = recorded, recorded.output
                return steps.reply_of(recorded.output)
            if parked := self._give_up(recorded):
                return parked
        asked: dict[str, Any] = {"lines": len(turn.lines), "steps": len(turn.steps)}
        asked |= {"told": turn.steps[-1].note[:_MOST_TOLD]} if turn.steps and turn.steps[-1].note else {}
        asked |= {"left_out": left_out} if left_out else {}
        if why := self._routes[-1].unreachable:
            asked["without_fallback"] = why
        heard = self._heard if self._interrupts and may_interrupt else None
        if not self._is_kept:
            return self._models.ask(turn, asked, heard=heard)
        step = self._steps.planned(Step.Kind.MODEL, self._routes[0].model, asked)
        try:
            return self._models.ask(
                turn,
                {**asked, "step": step.number},
                heard=heard,
                begin=lambda: self._steps.insert(step),
                end=lambda reply: self._answer(step, reply),
            )
        except (RetryableError, PermanentError) as error:
            self._begin(step)  # if the reservation failed, the step has not been written yet
            if error.code == BudgetExhausted.code and (approval := self._ask_for_more(step, error)):
                return patiently(lambda: self._park(approval))
            self._end(step, {"error": error.code, "message": error.message})
            raise
        except Interrupted:
            self._end(step, {"error": "interrupted"})
            raise

    def _answer(self, step: Step, reply: llm.Reply) -> None:
        record = asdict(reply) | ({"error": answer_parsing.CONTEXT_TOO_LONG} if _is_too_long(reply) else {})
        self._answered = step, record
        steps.close(step, record)

    def _give_up(self, step: Step) -> AwaitApproval | None:
        """Decide about a model call that began and has no outcome. Returns None if it may be made again, as a new step.

        That is so if its worker died or a person has allowed more budget. Returns AwaitApproval while that decision is
        pending; raises BudgetExhausted if it was refused.
        """
        approval = patiently(lambda: self._decided(step))
        if approval is None:
            self._end(step, {"error": "worker_lost"})
            patiently(lambda: reservations.expire(self._job_id))
            return None
        if approval.status == Approval.Status.PENDING:
            return patiently(lambda: self._park(approval))
        if approval.status != Approval.Status.APPROVED:
            raise budget_requests.refused(
                approval
            )  # the step stays open, so that a resumed turn finds this refusal again
        self._end(step, {"error": BudgetExhausted.code})
        return None

    def _ask_for_more(self, step: Step, error: RunError) -> Approval | None:
        def ask() -> Approval | None:
            with transaction.atomic():
                return budget_requests.ask(self._locked(), step, error)

        return patiently(ask)

    # --- Tools ---
    def _refuse(self, call: llm.ToolCall, tool: tools.Declared, complaint: str) -> str:
        """Record a tool call that is not made, with the complaint that the model gets."""
        step = self._steps.recorded(Step.Kind.TOOL, call_id=call.id)
        if step is not None and step.output is not None:
            return str(step.output["text"])
        if step is None:
            step = self._steps.planned(Step.Kind.TOOL, tool.name, {"arguments": call.arguments}, call_id=call.id)
            self._begin(step)
        self._end(step, {"text": complaint, "is_error": True}, tool, call.arguments)
        return complaint

    def _call(self, step: Step, tool: tools.Declared, arguments: Mapping[str, Any], *, told: str = "") -> str:
        """Make the tool call. `told` precedes the answer: a person's changes or words about the approval."""
        if tool.kind == "send_message":
            return self._say(step, storable(arguments["text"]), told=told)
        began = time.monotonic()
        if tool.kind == "ask_approval":
            answer = tools.ToolAnswer("" if told else "Approved.")
        else:
            self._mark_called(step)
            give_back()
            with CALLS.call(self._job_id, self._token) as flying:

                def on_start(give_up: Any) -> None:
                    flying.give_up = give_up

                try:
                    # Safe to retry: the call reads its secrets from the database before it sends anything, not after.
                    answer = patiently(
                        lambda: tools.call(self._claim.org_id, tool, arguments, key=str(step.pk), on_start=on_start)
                    )
                except RunError as error:
                    # A RunError means that the tool did nothing, so a retry of the turn may call it afresh.
                    self._end(step, {"error": error.code, "message": error.message}, tool, arguments, began)
                    raise
                if flying.is_lost:
                    raise LeaseLost("this worker no longer holds the job")
        text = f"{told}\n{answer.text}".strip()[:_MOST_CHARACTERS]
        self._end(step, {"text": text, "is_error": answer.is_error}, tool, arguments, began)
        return text

    def _say(self, step: Step, text: str, *, told: str = "") -> str:
        answer = f"{told}\nSent.".strip()

        def say() -> None:
            with transaction.atomic():
                job = self._locked()
                # The step is closed already if an earlier commit succeeded without an acknowledgement.
                if Step.objects.filter(pk=step.pk, output__isnull=True).exists():
                    agent_messages.say(job, text, heard=self._seen)
                    self._close(step, {"text": answer, "is_error": False}, {"text": text})

        patiently(say)
        return answer

    def _take_up(self, step: Step, tool: tools.Declared, arguments: Mapping[str, Any]) -> str | AwaitApproval:
        """Resume a tool call that began and has no outcome: its approval is pending or decided, or its worker died."""
        approval = patiently(lambda: self._decided(step))
        told = ""
        if approval is not None:
            if approval.status == Approval.Status.PENDING:
                return patiently(lambda: self._park(approval))
            if approval.status != Approval.Status.APPROVED:
                if approval.on_timeout == "fail" and approval.status == Approval.Status.EXPIRED:
                    raise PermanentError(f"the approval of {approval.tool} has expired", code="approval_expired")
                text = decision_texts.refused(approval)
                self._end(step, {"text": text, "is_error": True}, tool, arguments)
                return text
            if approval.edited_arguments is not None:
                arguments = approval.edited_arguments
            told = decision_texts.allowed(approval)
        if step.called_at is None or tool.is_idempotent or tool.kind in ("send_message", "ask_approval"):
            return self._call(step, tool, arguments, told=told)
        self._end(step, {"text": _UNKNOWN, "is_error": True}, tool, arguments)
        return _UNKNOWN

    def _decided(self, step: Step) -> Approval | None:
        """The approval of a step, after applying its time-out; None if it needs none."""
        approval = Approval.objects.filter(step=step).first()
        if approval is None:
            return None
        with transaction.atomic():
            return decisions.settle_time_out(approval, self._locked())

    def _park(self, approval: Approval) -> AwaitApproval:
        left = ExpressionWrapper(F("expires_at") - Now(), DurationField())
        seconds = Approval.objects.values_list(left, flat=True).get(pk=approval.pk).total_seconds()
        has_begun = approval.timer_seconds is None
        assert approval.message_key is not None
        is_asked = Message.objects.filter(job_id=self._job_id, key=approval.message_key).exists()
        return AwaitApproval(
            message_id=str(approval.message_key),
            seconds=max(seconds, 0.0) if has_begun else approval.timer_seconds or 0.0,
            say=() if is_asked else (approval.question,),
            buttons=edit_form.buttons(approval, self._claim.platform),
            has_begun=has_begun,
        )

    # --- Rows ---
    def _begin(self, step: Step, *, asks_for: tools.Declared | None = None) -> None:
        def begin() -> None:
            with transaction.atomic():
                self._steps.insert(step)
                if asks_for is not None:
                    self._ask_for_approval(step, asks_for)

        patiently(begin)

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

    def _mark_called(self, step: Step) -> None:
        def mark() -> None:
            with transaction.atomic():
                self._locked()
                Step.objects.filter(pk=step.pk).update(called_at=Now())

        patiently(mark)

    def _end(
        self,
        step: Step,
        output: Mapping[str, Any],
        tool: tools.Declared | None = None,
        arguments: Mapping[str, Any] | None = None,
        began: float | None = None,
    ) -> None:
        """Write the outcome of a step, even if the job is lost: the call has happened all the same.

        A tool call also gets an activity with its arguments.
        """
        if tool is None:
            patiently(lambda: steps.close(step, output))
            return
        shown = patiently(lambda: tools.blotted(self._claim.org_id, tool, arguments or {}))
        seconds = time.monotonic() - began if began is not None else None

        def end() -> None:
            with transaction.atomic():
                self._close(step, output, shown, seconds=seconds)

        patiently(end)

    def _close(self, step: Step, output: Mapping[str, Any], shown: Any, *, seconds: float | None = None) -> None:
        """Needs a transaction."""
        if steps.close(step, output):
            call_activity.write_tool(step, output, shown, task_id=str(self._claim.task_id), seconds=seconds)

    def _locked(self) -> Job:
        mine = Job.objects.filter(
            pk=self._job_id, lease_token=self._token, status=JobStatus.RUNNING, lease_until__isnull=False
        )
        job = mine.select_for_update(no_key=True).first()
        if job is None:
            raise LeaseLost("this worker no longer holds the job")
        return job


def _is_too_long(reply: llm.Reply) -> bool:
    return reply.slip is not None and reply.slip.code == answer_parsing.CONTEXT_TOO_LONG
