"""The worker's loop: claim, take the turn, settle it and claim the next in one statement, until the queue is empty.

There is one `Worker` per process. A limited number of threads serves each queue (`ConcurrencyLimit`). Celery's Django
fix-up is off, so the loop drops broken database connections itself.

`tasks` receives the signals to stop. `lease_keeper` says what happens then, `watchdog` when a process stops itself.
"""

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DataError, IntegrityError
from structlog.contextvars import bound_contextvars

from agent_jobs import lifecycle, runners
from agent_jobs.budgets import prices
from agent_jobs.conversation import agent_messages
from agent_jobs.conversation.agent_messages import Undelivered
from agent_jobs.duties import recovery
from agent_jobs.errors import LeaseLost, RunError
from agent_jobs.hours import deferral
from agent_jobs.lifecycle import Claim, OrgRotation, Settlement, queues
from agent_jobs.runners import invocation
from agent_jobs.runners.base import AwaitReply, Done, Failed, Outcome, Runner
from agent_jobs.states import TERMINAL, WaitingFor
from agent_jobs.turns import calls_in_flight, outcomes, runs
from agent_jobs.turns.database_retries import patiently
from agent_jobs.worker import isolated_turn, lane_threads
from agent_jobs.worker.lease_keeper import Keeper
from agent_jobs.worker.watchdog import Watchdog
from channels_integration import outbox
from infra import database, meters, tracing
from infra.concurrency import ConcurrencyLimit

log = logging.getLogger(__name__)
_SLICE_SECONDS = 10.0
# After this many claims that found only rows locked by other workers, the queue counts as empty.
_EMPTY_ROUNDS = 8
# A runner ends an attempt at its time limit by itself; the guard comes this much later.
_TIMEOUT_MARGIN_SECONDS = 30.0
# Errors of a single outcome that cannot be written. The rest of its batch is then written without it.
_UNSTORABLE = (DataError, IntegrityError, TypeError, ValueError)


class Worker:
    """A worker process: its keeper, its watchdog, and for each queue a limit and a position in the round robin."""

    def __init__(self, keeper: Keeper, *, rng: random.Random | None = None) -> None:
        self.keeper = keeper
        self.watchdog = Watchdog(keeper)
        self.rng = rng or random.SystemRandom()
        shares = lane_threads.shares(runners.RUNNERS, threads=settings.WORKER_THREADS)
        self._limits = {lane: ConcurrencyLimit(share) for lane, share in shares.items()}
        self._turns = {lane: OrgRotation() for lane in queues.LANES}

    def serve(self, lane: str) -> int:
        """Work in the queue `lane` until it is empty. Returns the number of turns taken. Safe to call at any time."""
        return self._limits[lane].answer(lambda: self._drain(lane))

    def _drain(self, lane: str) -> int:
        taken: dict[UUID, Claim] = {}
        try:
            with database.outage_survived(log, f"queue {lane}"):
                return self._loop(lane, taken)
            return 0
        finally:
            for claim in taken.values():
                self.keeper.let_go(claim.id, claim.token)

    def _loop(self, lane: str, taken: dict[UUID, Claim]) -> int:
        batch = max(runner.batch_size for runner in runners.RUNNERS if runner.lane == lane)
        until = time.monotonic() + _SLICE_SECONDS
        settlements: list[Settlement] = []
        turns_taken = empty_rounds = 0
        full: set[str] = set()
        while True:
            worker_id = self.keeper.worker_id
            may_claim = worker_id is not None and not self.keeper.is_stopping and time.monotonic() < until
            if not may_claim and not settlements:
                break
            answer = self._settle_and_claim(
                settlements,
                lane=lane,
                turn=self._turns[lane] if may_claim else None,
                worker_id=worker_id or 0,
                batch=batch,
            )
            self._after(settlements, answer.settled, taken)
            settlements = []
            if answer.claimed:
                empty_rounds = 0
                full.clear()
                if answer.has_more and not turns_taken:
                    queues.ring(lane)  # wakes one more thread, which wakes the next, while there is work
                claimed_at = time.monotonic()
                _count_claims(answer.claimed, lane)
                for claim in answer.claimed:
                    taken[claim.id] = claim
                    self.keeper.hold(claim.id, claim.token)
                for claim in answer.claimed:
                    turns_taken += 1
                    settlements.append(self._take_turn(claim, claimed_at))
            elif answer.is_full and answer.org_id not in full:
                full.add(str(answer.org_id))  # another organisation may have work that may run
            elif answer.is_full:
                return turns_taken
            elif may_claim:
                empty_rounds += 1
                if not answer.has_more or empty_rounds > _EMPTY_ROUNDS:
                    return turns_taken
        if turns_taken:
            queues.ring(lane)
        return turns_taken

    def _take_turn(self, claim: Claim, claimed_at: float) -> Settlement:
        with bound_contextvars(org=claim.org_id, job=str(claim.id), task=str(claim.task_id)):
            with tracing.span("turn", parent=claim.trace, kind="consumer", **_traits_of(claim)) as traced:
                settlement = self._turn_of(claim, claimed_at)
                if traced:
                    traced.set_attribute("job.status", str(settlement.status))
                    traced.set_attribute("error.code", settlement.error_code)
            log.debug("turn %s ended: %s %s", claim.attempt, settlement.status, settlement.waiting_for)
            return settlement

    def _turn_of(self, claim: Claim, claimed_at: float) -> Settlement:
        """Take the turn. An internal error becomes its outcome, so that the lease does not lapse."""
        try:
            return self._taken(claim, claimed_at)
        except LeaseLost as error:
            failed = Failed(error.code, error.message)
        except RunError as error:
            failed = invocation.failure(error)
        except Exception as error:
            failed = _fault(claim, error)
        seconds_left = claim.seconds_left - (time.monotonic() - claimed_at)
        try:
            return outcomes.settlement(claim, failed, seconds_left=seconds_left, rng=self.rng)
        except Exception as error:  # for example, this release cannot read values of its config
            plain = replace(claim, config={})
            return outcomes.settlement(plain, _fault(claim, error), seconds_left=seconds_left, rng=self.rng)

    def _taken(self, claim: Claim, claimed_at: float) -> Settlement:
        runner = runners.get(claim.runner)
        stated = claim
        claim, deferred = patiently(lambda: deferral.defer(stated, rng=self.rng))
        outcome: Outcome | deferral.Deferred | None = deferred or outcomes.without_runner(claim)
        if outcome is None:
            began = time.monotonic()
            outcome = self._call(claim, runner, claim.seconds_left - (began - claimed_at))
            _count_turn(runner, outcome, time.monotonic() - began)
        seconds_left = claim.seconds_left - (time.monotonic() - claimed_at)
        return outcomes.settlement(
            claim, outcome, seconds_left=seconds_left, rng=self.rng, undelivered=_undelivered(claim, outcome)
        )

    def _call(self, claim: Claim, runner: Runner, seconds_left: float) -> Outcome:
        is_alone = claim.crash_count >= recovery.MAX_CRASHES - 1
        if is_alone:
            # The last attempt runs in its own process: if this job kills its workers, other jobs are not affected.
            seconds = min(seconds_left, _limit_seconds(claim))
            if runner.has_conversation:
                calls_in_flight.give_back()
                return invocation.call_alone(runner, claim, seconds=seconds, take=isolated_turn.take)
            return runs.take_plain_alone(claim, runner, seconds=seconds)
        with self.watchdog.turn(claim.id, seconds_left=seconds_left, limit_seconds=_limit_seconds(claim)):
            return runs.take(claim, runner) if runner.has_conversation else runs.take_plain(claim, runner)

    def _settle_and_claim(self, settlements: Sequence[Settlement], **claim: Any) -> lifecycle.ClaimResult:
        """Call `lifecycle.settle_and_claim`, and retry during a short outage so that finished turns are not lost.

        Settling twice is safe: the second call finds the lease gone. Raises the database error after LEASE_SECONDS, or
        at once if there is nothing to settle.
        """
        until = time.monotonic() + settings.LEASE_SECONDS
        is_retried = False
        while True:
            try:
                answer = lifecycle.settle_and_claim(settlements, lease_seconds=settings.LEASE_SECONDS, **claim)
                if is_retried:
                    # The first commit may have succeeded without an acknowledgement.
                    lost = [settlement for settlement in settlements if settlement.id not in answer.settled]
                    answer = replace(answer, settled=answer.settled | lifecycle.were_settled(lost))
                return answer
            except _UNSTORABLE:
                if not settlements:
                    raise
                return _settle_one_by_one(settlements)
            except database.Error as error:
                if not database.is_unavailable(error) or not settlements or time.monotonic() > until:
                    raise
                is_retried = True
                database.drop_session()
                threading.Event().wait(self.rng.uniform(0.2, 1.0))

    def _after(self, settlements: Sequence[Settlement], settled: frozenset[UUID], taken: dict[UUID, Claim]) -> None:
        for settlement in settlements:
            claim = taken.pop(settlement.id)
            self.keeper.let_go(claim.id, claim.token)
            if claim.id in settled:
                _count_end(settlement)
                if settlement.status in TERMINAL:
                    self.keeper.note_done(claim.org_id)
            else:
                meters.add("lease_losses")
                log.info("job %s: lease %s was lost, discarded its turn", claim.id, claim.token)
        lifecycle.budget_waits.join([settlement for settlement in settlements if settlement.id in settled])
        if any(
            record["status"] == "pending"
            for settlement in settlements
            if settlement.id in settled
            for record in settlement.outgoing
        ):
            outbox.ring()


def _limit_seconds(claim: Claim) -> float:
    """The time after which a turn counts as stuck. A longer time limit of its attempts raises it."""
    attempt = float(claim.config.get("attempt_timeout_seconds", 0))
    return max(float(settings.TURN_SECONDS), attempt + _TIMEOUT_MARGIN_SECONDS)


def _fault(claim: Claim, error: Exception) -> Failed:
    if database.is_unavailable(error):
        log.warning("job %s: database unavailable: %s", claim.id, database.reason(error))
        return Failed(LeaseLost.code, "the database is unavailable")
    log.error("job %s: an internal error ended its turn", claim.id, exc_info=error)
    return Failed("internal_error", f"a fault of the service: {type(error).__name__}", is_retryable=True)


def _undelivered(claim: Claim, outcome: Outcome | deferral.Deferred) -> Undelivered:
    """The messages that a turn without a message of its own has to wait for.

    A turn with a message waits for that one, which is sent after all earlier ones. A job without a channel has none.
    """
    if claim.platform and isinstance(outcome, Done | AwaitReply) and not outcome.say:
        return patiently(lambda: agent_messages.undelivered(claim.id, claim.life))
    return Undelivered()


def _settle_one_by_one(settlements: Sequence[Settlement]) -> lifecycle.ClaimResult:
    """Settle a batch that holds an unstorable outcome: that job fails, the others keep their outcomes."""
    settled: set[UUID] = set()
    for settlement in settlements:
        try:
            answer = lifecycle.settle_and_claim([settlement])
        except _UNSTORABLE as error:
            log.error("job %s: cannot store the outcome of a turn: %s", settlement.id, str(error).strip())
            answer = lifecycle.settle_and_claim([outcomes.unstorable(settlement)])
        settled |= answer.settled
    return lifecycle.ClaimResult(frozenset(settled), org_id=None, has_more=True)


def _traits_of(claim: Claim) -> dict[str, Any]:
    return {
        "job.id": str(claim.id),
        "task.id": str(claim.task_id),
        "runner": claim.runner,
        "attempt": claim.attempt,
        "lane": runners.get(claim.runner).lane,
    }


def _count_claims(claims: Sequence[Claim], lane: str) -> None:
    meters.add("turns", len(claims), lane=lane)
    for claim in claims:
        if claim.attempt == 1:
            meters.observe("start_latency_seconds", claim.seconds_late, lane=lane)


def _count_turn(runner: Runner, outcome: Outcome, seconds: float) -> None:
    meters.observe("turn_seconds", seconds, runner=runner.name)
    for call in outcome.calls:
        meters.observe("model_call_seconds", call.seconds, model=prices.label(call.model))
        tracing.past_span("model call", seconds=call.seconds, model=call.model)


def _count_end(settlement: Settlement) -> None:
    if settlement.status in TERMINAL:
        meters.add("ends", status=str(settlement.status), code=settlement.error_code)
    elif settlement.waiting_for == WaitingFor.RETRY:
        meters.add("retries")
