"""Calls models within their budgets, registers each call so that it can be aborted, and records it as an activity.

One transaction reserves the budget and records the start of a call. Another one settles the cost and records the
outcome. So each call takes two commits, and the ledger and the journal always agree.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from django.db import transaction

from agent_jobs import llm
from agent_jobs.budgets import reservations
from agent_jobs.budgets.call_activity import Told
from agent_jobs.errors import LeaseLost, RetryableError
from agent_jobs.lifecycle import Claim
from agent_jobs.llm import token_bounds
from agent_jobs.runners.base import Interrupted, ModelCall
from agent_jobs.turns.calls_in_flight import CALLS, give_back
from agent_jobs.turns.database_retries import patiently
from infra.egress import addresses
from infra.storable_text import storable

_T = TypeVar("_T")


class ModelCalls:
    """The model calls of one turn. `made` holds those that were answered."""

    def __init__(self, claim: Claim, routes: Sequence[llm.Route]) -> None:
        self._claim = claim
        self._job_id, self._token = claim.id, claim.token
        self._routes = routes
        self.made: list[ModelCall] = []

    def ask(
        self,
        turn: llm.Turn,
        asked: Mapping[str, Any],
        *,
        heard: int | None = None,
        begin: Callable[[], object] | None = None,
        end: Callable[[llm.Reply], object] | None = None,
    ) -> llm.Reply:
        """The reply of the first model that gives one. `asked` describes the request for the activity.

        `heard`: the number of human messages already seen; one more interrupts the call; None disables that. `begin`
        and `end` record the start and the outcome within a transaction, and may run twice. Raises RunError, LeaseLost
        and Interrupted.
        """
        call = _Call(self._claim, asked, begin, end)
        began = time.monotonic()
        with CALLS.call(self._job_id, self._token, heard=heard) as flying:
            try:
                with addresses.asking_for(self._claim.org_id):
                    reply = llm.ask(self._routes, turn, flying.begun, call.make)
            except RetryableError:
                if flying.is_lost:
                    raise LeaseLost("this worker no longer holds the job") from None
                if flying.is_interrupted:
                    raise Interrupted from None
                raise
        self.made.append(
            ModelCall(
                reply.model or self._routes[0].model,
                input=dict(asked),
                output=_told(reply),
                usage=reply.usage,
                is_told=bool(llm.provider_of(reply.model or self._routes[0].model)),
                seconds=time.monotonic() - began,
            )
        )
        return reply


class _Call:
    """One request, which may go to several models until one answers."""

    def __init__(
        self,
        claim: Claim,
        asked: Mapping[str, Any],
        begin: Callable[[], object] | None,
        end: Callable[[llm.Reply], object] | None,
    ) -> None:
        self._claim, self._asked = claim, asked
        self._begin, self._end = begin, end

    def make(self, route: llm.Route, turn: llm.Turn, on_start: llm.OnStart | None) -> llm.Reply:
        if llm.provider_of(route.model):
            return self._paid(route, turn, on_start)
        return self._free(route, turn, on_start)

    def _free(self, route: llm.Route, turn: llm.Turn, on_start: llm.OnStart | None) -> llm.Reply:
        """Call a model that ships with the service: it costs nothing and answers at once."""
        if self._begin:
            patiently(lambda: self._open(_nothing))
        reply = llm.answer(route, turn, on_start)
        if self._end:
            patiently(lambda: self._close(reply, _nothing))
        return reply

    def _paid(self, route: llm.Route, turn: llm.Turn, on_start: llm.OnStart | None) -> llm.Reply:
        """Call one model of a provider. The ledger writes its activity when it settles the cost."""
        stake: dict[str, Any] = {
            "org_id": self._claim.org_id,
            "job_id": self._claim.id,
            "job_type_key": self._claim.job_type_key,
            "config": self._claim.config,
            "model": route.model,
            "input_tokens": token_bounds.estimate(turn),
            "max_output_tokens": route.access.max_output_tokens,
        }
        held = patiently(lambda: self._open(lambda: reservations.set_aside(**stake)))
        with reservations.closing(held, told=Told(str(self._claim.task_id), input=self._asked)):
            access = replace(route.access, max_output_tokens=held.max_output_tokens)
            give_back()
            reply = llm.answer(replace(route, access=access), turn, on_start)
            output = storable(_told(reply))
            patiently(lambda: self._close(reply, lambda: held.settle(reply.usage, model=reply.model, output=output)))
        return reply

    def _open(self, reserve: Callable[[], _T]) -> _T:
        with transaction.atomic():
            if self._begin:
                self._begin()
            return reserve()

    def _close(self, reply: llm.Reply, settle: Callable[[], _T]) -> _T:
        with transaction.atomic():
            if self._end:
                self._end(reply)
            return settle()


def _nothing() -> None:
    pass


def _told(reply: llm.Reply) -> dict[str, Any]:
    """The output that an activity shows for a reply."""
    told: dict[str, Any] = {"text": "\n".join(reply.say), "is_done": reply.is_done}
    told |= {"tools": [call.name for call in reply.calls]}
    told |= {"finish_reason": reply.finish} if reply.finish else {}
    return told | ({"slip": {"code": reply.slip.code, "message": reply.slip.what}} if reply.slip else {})
