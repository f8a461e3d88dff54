"""Turns a runner's outcome into the settlement of the turn.

Holds the rules of retries and endings, as pure functions; `follow_ups` has those of silence. Nothing here writes.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from agent_jobs import timing
from agent_jobs.conversation import agent_messages
from agent_jobs.conversation.agent_messages import Undelivered
from agent_jobs.errors import BudgetReserved, LeaseLost
from agent_jobs.hours.deferral import Deferred
from agent_jobs.lifecycle import Claim, Note, Settlement, SpokenLine, endings
from agent_jobs.runners.base import AwaitApproval, AwaitReply, Done, Failed, Outcome, Wake
from agent_jobs.states import ActivityStatus, JobStatus, TaskStatus, WaitingFor
from agent_jobs.turns import follow_ups
from channels_integration import outbox
from channels_integration.messages import Button, Outgoing
from infra import tracing
from infra.storable_text import storable

_NOTHING_UNDELIVERED = Undelivered()
# The wait before a retry that does not count, so that a worker of another release may take the job. A deploy takes
# minutes.
_UNCOUNTED_RETRIES = timing.RetryPolicy(sys.maxsize, initial_seconds=30, max_seconds=30)
# The wait for other jobs' model calls to be settled. The error itself states a minimum.
_BUDGET_WAITS = timing.RetryPolicy(sys.maxsize, initial_seconds=3, max_seconds=3)


def without_runner(claim: Claim) -> Outcome | None:
    """The outcome of a turn that needs no runner; None for other turns.

    The job expired in the queue, or nobody answered and no follow-up is left (`turns.follow_ups`).
    """
    # After an outage, a worker may claim a job before the sweep finds it expired.
    if (ttl := timing.queue_ttl(claim.config)) and claim.seconds_late > ttl.total_seconds():
        return Failed(endings.EXPIRED, endings.expiry_message(claim.config))
    return follow_ups.ended(claim)


def settlement(
    claim: Claim,
    outcome: Outcome | Deferred,
    *,
    seconds_left: float,
    rng: random.Random,
    undelivered: Undelivered = _NOTHING_UNDELIVERED,
) -> Settlement:
    """The settlement of a turn. `seconds_left`: time until the job's deadline; a retry must fit into it.

    `undelivered`: the undelivered messages of this life; the caller reads them only if the turn ends without a message.
    """
    if isinstance(outcome, Failed) and outcome.code == LeaseLost.code:
        return _nothing(claim)
    # Built first: activities of one moment are listed by id, and the model calls precede the messages.
    calls = _calls(outcome)
    say = [part for text in outcome.say for part in _parts(claim, storable(text), outcome)]
    outgoing = [outbox.as_record(_outgoing(claim, text, outcome)) for text in say]
    delivered = [record["status"] == "sent" for record in outgoing]
    heard = max(claim.inbox_count, _heard(outcome))
    went_on = replace(
        _blank(claim),
        inbox_seen=heard,
        follow_ups_sent=0 if claim.wake == Wake.REPLY else claim.follow_ups_sent,
        follow_ups_total=claim.follow_ups_total,
        failed_attempts=claim.failed_attempts,
        result=claim.result,
        task_report=outcome.report if isinstance(outcome, Done | Failed) else None,
        outgoing=outgoing,
        lines=[
            SpokenLine(record["id"], text, done, heard)
            for record, text, done in zip(outgoing, say, delivered, strict=True)
        ],
        notes=calls + _said(outgoing, say, delivered),
    )
    match outcome:
        case Done():
            return _done(went_on, outcome, undelivered, is_delivered=all(delivered))
        case AwaitReply():
            return _awaits(went_on, claim, undelivered, delivered)
        case Deferred():
            return _deferred(went_on, claim, outcome)
        case AwaitApproval():
            return _awaits_approval(went_on, claim, outcome)
        case Failed():
            return _failed(went_on, claim, outcome, seconds_left=seconds_left, rng=rng)


def _blank(turn: Claim | Settlement) -> Settlement:
    """The settlement of a completed turn whose job goes on. Callers replace the fields that differ."""
    return Settlement(turn.id, turn.token, turn.task_id, JobStatus.RUNNING, TaskStatus.COMPLETED)


def _nothing(claim: Claim) -> Settlement:
    """A settlement that matches no lease and changes nothing, for a turn whose lease was lost."""
    return replace(_blank(claim), token=-1, task_status=TaskStatus.FAILED)


def unstorable(settlement: Settlement) -> Settlement:
    """The settlement of a turn whose outcome the database refuses (say, half a surrogate pair in `result_data`)."""
    message = "the outcome of the turn cannot be stored as text"
    went_on = replace(_blank(settlement), task_status=TaskStatus.FAILED, task_result=message)
    return _failing(went_on, "invalid_result", message)


def _heard(outcome: Outcome | Deferred) -> int:
    """How many human messages the turn took in, including those that came during it."""
    return outcome.heard if isinstance(outcome, Done | AwaitReply) else 0


def _parts(claim: Claim, text: str, outcome: Outcome | Deferred) -> tuple[str, ...]:
    """A question with buttons stays one message; it is worded short enough (`approvals.question_text`)."""
    return (text,) if isinstance(outcome, AwaitApproval) else agent_messages.parts(claim, text)


def _outgoing(claim: Claim, text: str, outcome: Outcome | Deferred) -> Outgoing:
    asks = outcome if isinstance(outcome, AwaitApproval) else None
    return agent_messages.outgoing(
        claim,
        text,
        key=UUID(asks.message_id) if asks else uuid7(),
        trace=tracing.current(),
        buttons=tuple(Button(*button) for button in asks.buttons) if asks else (),
    )


def _calls(outcome: Outcome | Deferred) -> list[Note]:
    return [
        Note(
            "model.call",
            ActivityStatus.COMPLETED,
            f"asked model {call.model}",
            id=str(uuid7()),
            input=call.input,
            output={**call.output, "input_tokens": call.usage.input_tokens, "output_tokens": call.usage.output_tokens},
        )
        for call in outcome.calls
        if not call.is_told
    ]


def _said(outgoing: Sequence[dict[str, Any]], say: Sequence[str], delivered: Sequence[bool]) -> list[Note]:
    return [
        Note(
            "message.out",
            ActivityStatus.COMPLETED if done else ActivityStatus.SUBMITTED,
            f"said: {text[: endings.NOTE_LENGTH]}",
            id=record["id"],
            output={"text": text},
        )
        for record, text, done in zip(outgoing, say, delivered, strict=True)
    ]


def _done(went_on: Settlement, outcome: Done, undelivered: Undelivered, *, is_delivered: bool) -> Settlement:
    result = storable(outcome.result)
    went_on = replace(went_on, result=result, result_data=outcome.result_data, task_result=result)
    waits = replace(went_on, waiting_for=WaitingFor.DELIVERY)
    if not is_delivered:
        return waits
    if undelivered.lost:
        return _delivery_failed(went_on, undelivered.lost)
    ends = replace(went_on, status=JobStatus.COMPLETED, note=endings.completed_note(result))
    return _resting_on(undelivered, waits, ends)


def _resting_on(undelivered: Undelivered, waits: Settlement, if_delivered: Settlement) -> Settlement:
    if undelivered.pending is None:
        return if_delivered
    return replace(waits, rests_on=undelivered.pending, if_delivered=if_delivered)


def _delivery_failed(went_on: Settlement, lost: UUID) -> Settlement:
    return _failing(went_on, endings.DELIVERY_FAILED, endings.delivery_failure(*outbox.failure_of(lost)))


def _failing(went_on: Settlement, code: str, message: str, *, result: str | None = None) -> Settlement:
    return replace(
        went_on,
        status=JobStatus.FAILED,
        result=result or f"{code}: {message}",
        error_code=code,
        error_message=message,
        note=f"FAILED {code}: {message[: endings.NOTE_LENGTH]}",
    )


def _awaits(went_on: Settlement, claim: Claim, undelivered: Undelivered, delivered: Sequence[bool]) -> Settlement:
    if undelivered.lost:
        return _delivery_failed(went_on, undelivered.lost)
    if claim.wake == Wake.SILENCE:
        went_on = replace(
            went_on,
            follow_ups_sent=went_on.follow_ups_sent + 1,
            follow_ups_total=went_on.follow_ups_total + 1,
        )
    seconds = follow_ups.seconds_of_silence(claim.config, went_on.follow_ups_sent)
    went_on = replace(went_on, waiting_for=WaitingFor.REPLY, task_result="waiting for a reply")
    if not all(delivered):
        return replace(went_on, timer_message_id=went_on.lines[-1].key, timer_seconds=seconds)
    waits = replace(went_on, timer_message_id=str(undelivered.pending), timer_seconds=seconds)
    return _resting_on(undelivered, waits, replace(went_on, wake_seconds=seconds))


def _deferred(went_on: Settlement, claim: Claim, outcome: Deferred) -> Settlement:
    """Put the turn off to the end of the quiet hours. Its messages, counters and wake reason stay for the next one."""
    return replace(
        went_on,
        task_result=outcome.note,
        waiting_for=WaitingFor.QUIET_HOURS,
        wake_seconds=outcome.seconds,
        resume=claim.wake,
        inbox_seen=claim.inbox_seen,
        follow_ups_sent=claim.follow_ups_sent,
        notes=[Note("job.deferred", ActivityStatus.COMPLETED, outcome.note)],
    )


def _awaits_approval(went_on: Settlement, claim: Claim, outcome: AwaitApproval) -> Settlement:
    """Park the turn. It is not over, so the messages that it has not taken in stay for its resumption.

    If the question was sent by an earlier turn, the job also wakes after `seconds`: its delivery may have come already.
    """
    if not outcome.has_begun:
        went_on = replace(went_on, timer_message_id=outcome.message_id, timer_seconds=outcome.seconds)
    return replace(
        went_on,
        task_result="waiting for approval",
        waiting_for=WaitingFor.APPROVAL,
        wake_seconds=outcome.seconds if outcome.has_begun or not outcome.say else None,
        resume=claim.wake,
        inbox_seen=claim.inbox_seen,
        follow_ups_sent=claim.follow_ups_sent,
    )


def _failed(
    went_on: Settlement,
    claim: Claim,
    outcome: Failed,
    *,
    seconds_left: float,
    rng: random.Random,
) -> Settlement:
    message = storable(outcome.message)
    failed_attempts = claim.failed_attempts + outcome.counts
    went_on = replace(
        went_on,
        task_status=TaskStatus.FAILED,
        task_result=f"{outcome.code}: {message}",
        failed_attempts=failed_attempts,
    )
    waits_for_budget = outcome.code == BudgetReserved.code
    uncounted = _BUDGET_WAITS if waits_for_budget else _UNCOUNTED_RETRIES
    policy = timing.RetryPolicy.of(claim.config) if outcome.counts else uncounted
    if outcome.is_retryable and failed_attempts < policy.max_attempts:
        wait = policy.wait_seconds(failed_attempts, retry_after=outcome.retry_after, rng=rng)
        if wait < seconds_left:
            note = Note(
                "task.failed",
                ActivityStatus.COMPLETED,
                f"attempt failed, next one in {wait:.0f} s: {outcome.code}: {message[: endings.NOTE_LENGTH]}",
            )
            return replace(
                went_on,
                task_status=TaskStatus.WAITED if waits_for_budget else TaskStatus.FAILED,
                waiting_for=WaitingFor.RETRY,
                wake_seconds=wait,
                resume=claim.wake,
                # The retry takes in the messages that this turn did not.
                inbox_seen=claim.inbox_seen,
                # A job may wait for budget for hours, every few seconds: one task tells it, and no activities.
                notes=went_on.notes if waits_for_budget else [*went_on.notes, note],
            )
    return _failing(went_on, outcome.code, message, result=claim.result)
