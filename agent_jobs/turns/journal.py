"""The journal of a turn: records each model or tool call as a step before making it, and its outcome before the next.

A turn that resumes after a crash, a failure or an approval replays the recorded steps. A call with an outcome is not
made again. A call without one has an unknown outcome, because its worker died. The journal asks the model again, which
has no visible effect. It calls a tool again only if the tool is declared idempotent; otherwise it tells the model that
the outcome is unknown.

Every write checks the lease. A job that is canceled, overdue or held by another worker raises LeaseLost, which ends the
turn. Its running call is aborted within one to two seconds (`calls_in_flight`). During a short outage of the database,
writes are retried (`database_retries`), so that the results of outside calls are kept.

This module asks the model; `model_calls` pays for that, `tool_calls` calls tools, `open_steps` writes the rows.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agent_jobs import llm, tools
from agent_jobs.approvals import budget_requests
from agent_jobs.budgets import reservations
from agent_jobs.conversation import agent_messages, human_messages
from agent_jobs.errors import BudgetExhausted, BudgetReserved, PermanentError, RetryableError
from agent_jobs.lifecycle import Claim
from agent_jobs.llm import answer_parsing, context
from agent_jobs.models import Approval, Step
from agent_jobs.runners.base import AwaitApproval, Interrupted, ModelCall, Said
from agent_jobs.sandbox import json_schema
from agent_jobs.turns import argument_repair, steps
from agent_jobs.turns.database_retries import patiently
from agent_jobs.turns.model_calls import ModelCalls
from agent_jobs.turns.open_steps import OpenSteps
from agent_jobs.turns.tool_calls import ToolCalls

_MOST_TOLD = 500
# How often the context is halved if it is too long for the model.
_MOST_CUTS = 2
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
        self._result_schema = result_schema or {}
        self._interrupts = claim.config.get("on_message") == "interrupt"
        # The built-in model without tools costs nothing and has no side effects, so its steps are not recorded.
        self._is_kept = bool(offered) or any(llm.provider_of(route.model) for route in routes)
        self._open = OpenSteps(claim)
        # A replay may start with steps copied from its original job (`jobs.repeats`).
        if self._is_kept and (claim.attempt > 1 or claim.life or claim.is_replay):
            self._open.walk.read()
        self._heard = claim.inbox_count
        self._looked_at = time.monotonic()
        self._tool_calls = ToolCalls(claim, offered, self._open)
        self._models = ModelCalls(claim, routes)
        self._context_tokens = routes[0].access.context_tokens
        self._answered: tuple[Step, Mapping[str, Any]] | None = None

    @property
    def calls(self) -> list[ModelCall]:
        return self._models.made

    # --- For the runner ---
    @property
    def is_ahead(self) -> bool:
        return any(step.kind == Step.Kind.MODEL and step.output is not None for step in self._open.walk.ahead)

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
        self._tool_calls.heard = sum(line.is_human for line in turn.lines)
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
        self._tool_calls.say(texts)

    def perform(self, call: llm.ToolCall) -> str | AwaitApproval:
        return self._tool_calls.perform(call)

    # --- Models ---
    def _asked(self, turn: llm.Turn, left_out: int, *, may_interrupt: bool) -> llm.Reply | AwaitApproval:
        """Call the model, or return the recorded reply."""
        if recorded := self._open.walk.recorded(Step.Kind.MODEL):
            if recorded.output is None and (parked := self._give_up(recorded)):
                return parked
            if "error" not in recorded.output:
                self._answered = recorded, recorded.output
                return steps.reply_of(recorded.output)
        asked: dict[str, Any] = {"lines": len(turn.lines), "steps": len(turn.steps)}
        asked |= {"told": turn.steps[-1].note[:_MOST_TOLD]} if turn.steps and turn.steps[-1].note else {}
        asked |= {"left_out": left_out} if left_out else {}
        if why := self._routes[-1].unreachable:
            asked["without_fallback"] = why
        heard = self._heard if self._interrupts and may_interrupt else None
        if not self._is_kept:
            return self._models.ask(turn, asked, heard=heard)
        step = self._open.walk.planned(Step.Kind.MODEL, self._routes[0].model, asked)
        try:
            return self._models.ask(
                turn,
                {**asked, "step": step.number},
                heard=heard,
                begin=lambda: self._open.walk.insert(step),
                end=lambda reply: self._answer(step, reply),
            )
        except (RetryableError, PermanentError) as error:
            if error.code == BudgetReserved.code:  # a call that waits for a budget is no step yet
                raise
            self._open.begin(step)  # if the reservation failed, the step has not been written yet
            if error.code == BudgetExhausted.code and (approval := self._open.ask_for_more(step, error)):
                return patiently(lambda: self._open.park(approval))
            self._open.end(step, {"error": error.code, "message": error.message})
            raise
        except Interrupted:
            self._open.end(step, {"error": "interrupted"})
            raise

    def _answer(self, step: Step, reply: llm.Reply) -> None:
        record = asdict(reply) | ({"error": answer_parsing.CONTEXT_TOO_LONG} if _is_too_long(reply) else {})
        self._answered = step, record
        steps.close(step, record)

    def _give_up(self, step: Step) -> AwaitApproval | None:
        """Decide about a model call that began and has no outcome. Returns None if that decision is its outcome now.

        The call may then be made again, as a new step: its worker died, or a person has allowed more budget. But if the
        worker was only slow, it may have written an answer meanwhile, and that is the outcome. Returns AwaitApproval
        while a person's decision is pending; raises BudgetExhausted if it was refused.
        """
        approval = patiently(lambda: self._open.decided(step))
        if approval is None:
            self._open.end(step, {"error": "worker_lost"})
            patiently(lambda: reservations.expire(self._job_id))
            return None
        if approval.status == Approval.Status.PENDING:
            return patiently(lambda: self._open.park(approval))
        if approval.status != Approval.Status.APPROVED:
            raise budget_requests.refused(
                approval
            )  # the step stays open, so that a resumed turn finds this refusal again
        self._open.end(step, {"error": BudgetExhausted.code})
        return None


def _is_too_long(reply: llm.Reply) -> bool:
    return reply.slip is not None and reply.slip.code == answer_parsing.CONTEXT_TOO_LONG
