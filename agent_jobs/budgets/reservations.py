"""Budgets of model calls, in tokens and money, per job and, by UTC day, per job type and organisation.

Before a call, `set_aside` reserves what it is likely to cost at most; afterwards `settle` replaces that by the actual
cost. Both update the counters of capped scopes (`budgets.limits`), and the ledger (UsageDay) records every call. A call
counts on the day on which it began. `closing` wraps a whole call.

A reservation has the estimated input (`llm.token_bounds`), which real input rarely exceeds and never by more than
BYTES_PER_TOKEN times. The output has at most `max_output_tokens`, which shrinks to what the caps leave if a useful
answer still fits. So concurrent calls pass a cap by at most the estimates of the calls under way when it fills. If a
provider reports more than the reservation, we count its figure and log a warning.

A reservation that nobody settles (its worker was killed) is closed at its full amount, since the provider may have
billed it. The next turn of the job closes it (`expire`), or the sweep does (`expire_lost`). If the call returns after
that, its settlement corrects the ledger. Calls that count, and calls that the provider refused, leave an activity of
the job (`budgets.call_activity`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs import llm
from agent_jobs.budgets import call_activity, limits, prices
from agent_jobs.budgets.call_activity import Told
from agent_jobs.errors import PermanentError, RetryableError, RunError
from agent_jobs.llm import Usage
from agent_jobs.models import Job, Reservation, UsageDay
from infra import database, meters, prepared_sql
from infra.quarantine import Quarantine

log = logging.getLogger(__name__)
_expiry_failed: Quarantine[UUID] = Quarantine("reservations")
_BATCH = 200
# Protects against absurd figures from a provider: one call never counts more than this.
_MOST_TOKENS = 10**12
# Provider answers that are not billed. A call that timed out, was cut off or was misunderstood may be billed.
_UNBILLED = frozenset(
    {
        "context_too_long",
        "model_key_missing",
        "model_key_refused",
        "model_quota_exceeded",
        "model_rate_limited",
        "model_request_rejected",
        "model_unavailable",
        "model_unknown",
    }
)
_WHOSE = ("org_id", "job_type_key", "job_id", "day")
_OPEN, _SETTLED, _EXPIRED = Reservation.Status.OPEN, Reservation.Status.SETTLED, Reservation.Status.EXPIRED
_UNTOLD = Told()
_NO_ANSWER = Told(output={"error": "worker_lost"}, error="nobody knows how the call ended")

_RESERVE = """
INSERT INTO agent_jobs_reservation (id, org_id, job_id, job_type_key, model, day, status, reserved_input_tokens,
    reserved_output_tokens, reserved_cost, input_tokens, output_tokens, cost)
VALUES (%(id)s, %(org)s, %(job)s, %(type)s, %(model)s, %(day)s, 'open', %(input)s, %(output)s, %(cost)s, 0, 0, 0)
"""
_LOCK_JOB = "SELECT FROM agent_jobs_job WHERE id = %(job)s FOR NO KEY UPDATE"
_LEFT = """
UPDATE agent_jobs_reservation SET status = %(status)s, model = %(model)s, input_tokens = %(input)s,
    output_tokens = %(output)s, cost = %(cost)s, closed_at = statement_timestamp()
WHERE id = %(id)s
"""
_BOOK = """
INSERT INTO agent_jobs_usageday AS u
    (org_id, day, job_type_key, model, part, calls, input_tokens, cached_input_tokens, output_tokens, cost)
VALUES (%(org)s, %(day)s, %(type)s, %(model)s, %(part)s, %(calls)s, %(input)s, %(cached)s, %(output)s, %(cost)s)
ON CONFLICT (org_id, day, job_type_key, model, part) DO UPDATE SET calls = u.calls + excluded.calls,
    input_tokens = u.input_tokens + excluded.input_tokens,
    cached_input_tokens = u.cached_input_tokens + excluded.cached_input_tokens,
    output_tokens = u.output_tokens + excluded.output_tokens, cost = u.cost + excluded.cost
"""


@dataclass(slots=True)
class Held:
    """A reservation held by the caller of the model, with at most `max_output_tokens` of output."""

    id: UUID
    model: str
    max_output_tokens: int
    call: limits.Call
    told: Told = _UNTOLD
    is_closed: bool = False

    def settle(self, usage: Usage, *, model: str = "", output: Mapping[str, Any] | None = None) -> Reservation:
        """Settle this call (`settle`). `output` is its result, for its activity."""
        cached = {"cached_input_tokens": usage.cached_input_tokens} if usage.cached_input_tokens > 0 else {}
        told = replace(self.told, output={**(output or {}), **cached})
        settled = settle(self.id, usage, model=model, told=told, call=self.call)
        self.is_closed = True
        return settled


# --- Before a call ---------------------------------------------------------------------------------------------
def set_aside(
    *,
    org_id: str,
    job_id: UUID | str,
    job_type_key: str,
    config: Mapping[str, Any],
    model: str,
    input_tokens: int,
    max_output_tokens: int,
) -> Held:
    """Reserve what a call is likely to cost at most. `input_tokens` is the estimate of its input, `config` the job's.

    Raises BudgetExhausted if a cap leaves too little, BudgetReserved if it does so only because of calls under way, and
    PermanentError (`model_price_missing`). Call it within a transaction; other calls under the same caps wait until it
    ends.
    """
    if complaint := prices.check(model):
        raise PermanentError(f"the model {model!r} {complaint}", code="model_price_missing")
    price = prices.of(model)
    call, caps = limits.caps_of(org_id, job_type_key, job_id, config)
    limits.ensure(call, caps)
    limits.share_lock(org_id)
    counters = limits.locked(call)
    output_tokens = limits.affordable(
        caps, counters, price=price, input_tokens=input_tokens, output_tokens=max_output_tokens
    )
    cost = price.cost(Usage(input_tokens, output_tokens))
    limits.add(counters, reserved_tokens=input_tokens + output_tokens, reserved_cost=cost)
    held = Held(uuid7(), model, output_tokens, call)
    whose = {"id": held.id, "org": org_id, "job": job_id, "type": job_type_key, "model": model, "day": call.day}
    prepared_sql.run(_RESERVE, {**whose, "input": input_tokens, "output": output_tokens, "cost": cost})
    return held


@contextmanager
def closing(held: Held, *, told: Told = _UNTOLD) -> Iterator[Held]:
    """Wraps a call: `with reservations.closing(held): … held.settle(reply.usage)`.

    A call that ends without a settlement counts as nothing if its error says that the provider refused it, otherwise as
    the full reservation. Do not enter it within a transaction. `told` goes into its activity. An error of the call
    passes through.
    """
    held.told = told
    try:
        yield held
    except BaseException as error:
        if isinstance(error, RunError):
            held.told = _told_of(error, told)
        is_refused = isinstance(error, RunError) and error.code in _UNBILLED
        _leave(held, release if is_refused else _expire)
        raise
    _leave(held, _expire)


def _told_of(error: RunError, told: Told) -> Told:
    wait = error.retry_after if isinstance(error, RetryableError) else None
    output = {"error": error.code} if wait is None else {"error": error.code, "retry_after": wait}
    return replace(told, output=output, error=f"{error.code}: {error.message}")


def _leave(held: Held, close: Callable[[UUID, Told], Reservation]) -> None:
    if held.is_closed:
        return
    try:
        close(held.id, held.told if held.told.error else replace(held.told, error=_NO_ANSWER.error))
        held.is_closed = True
    except database.Error as error:
        if not database.is_unavailable(error):
            raise
        # Let the call's own error propagate, which matters more. The sweep will find this reservation.
        log.warning("reservation %s could not be closed and stays open: %s", held.id, str(error).strip())


# --- After a call ----------------------------------------------------------------------------------------------
def settle(
    reservation_id: UUID,
    usage: Usage,
    *,
    model: str = "",
    told: Told = _UNTOLD,
    call: limits.Call | None = None,
) -> Reservation:
    """Settle a call that returned with this usage. `model` is the one that answered, if it differs from the one asked.

    A second settlement changes nothing and returns the first. A hosted model that reports no usage counts as the full
    reservation; otherwise a provider could evade every cap by reporting nothing. May be called within a transaction.
    """
    return _close(reservation_id, _SETTLED, lambda row: _truth(row, usage, model), told, call)


def release(reservation_id: UUID, told: Told = _UNTOLD) -> Reservation:
    """Close a reservation whose call the provider refused and does not bill."""
    return _close(reservation_id, _SETTLED, lambda row: _Use(row.model), told)


def expire(job_id: UUID | str) -> None:
    """Close the job's open reservations from earlier calls. Call it on claiming the job, when no earlier call can be
    running.
    """
    left = Reservation.objects.filter(job_id=job_id, status=_OPEN).order_by("id").values_list("id", flat=True)
    for reservation_id in list(left):
        _expire(reservation_id)


def expire_lost() -> int:
    """Close reservations of jobs that no worker holds, and those older than any turn. Returns how many."""
    lease, turn = timedelta(seconds=settings.LEASE_SECONDS), timedelta(seconds=settings.TURN_SECONDS)
    is_leased = Exists(Job.objects.filter(pk=OuterRef("job_id"), lease_until__gt=Now()))
    lost = Reservation.objects.filter(~is_leased | Q(created_at__lt=Now() - turn - lease), status=_OPEN)
    lost = lost.filter(created_at__lt=Now() - lease).exclude(pk__in=_expiry_failed.rows())
    expired = 0
    for reservation_id in list(lost.order_by("created_at").values_list("id", flat=True)[:_BATCH]):
        with _expiry_failed.row(reservation_id):
            _expire(reservation_id)
            expired += 1
    return expired


def _expire(reservation_id: UUID, told: Told = _NO_ANSWER) -> Reservation:
    return _close(reservation_id, _EXPIRED, _most, told)


# --- The ledger ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Use:
    """The cost of a call in the ledger."""

    model: str
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Decimal = Decimal(0)

    @property
    def tokens(self) -> int:
        return self.usage.input_tokens + self.usage.output_tokens


def _most(row: Reservation) -> _Use:
    return _Use(row.model, 1, Usage(row.reserved_input_tokens, row.reserved_output_tokens), row.reserved_cost)


def _truth(row: Reservation, usage: Usage, model: str) -> _Use:
    read, written = (min(max(tokens, 0), _MOST_TOKENS) for tokens in (usage.input_tokens, usage.output_tokens))
    usage = Usage(read, written, min(max(usage.cached_input_tokens, 0), read))
    if usage == Usage() and llm.provider_of(row.model):
        log.warning("job %s: %s reported no usage, the whole reservation is counted", row.job_id, row.model)
        return _most(row)
    model = (model or row.model)[: Reservation.MODEL_LENGTH]
    truth = _Use(model, 1, usage, prices.of(model).cost(usage))
    if truth.tokens > _most(row).tokens or truth.cost > row.reserved_cost:
        log.warning(
            "job %s: a call of %s used %s tokens and cost %s, more than its reservation of %s tokens and %s",
            *(row.job_id, model, truth.tokens, truth.cost, _most(row).tokens, row.reserved_cost),
        )
    return truth


def _close(
    reservation_id: UUID,
    status: Reservation.Status,
    decide: Callable[[Reservation], _Use],
    told: Told,
    call: limits.Call | None = None,
) -> Reservation:
    """Replace the reserved amount in counters and ledger by what the call counts as. After an expiry, replace the
    expired amount. `call` identifies the call's counters, if known.
    """
    with transaction.atomic(savepoint=False):
        call = call or limits.Call(*Reservation.objects.values_list(*_WHOSE).get(pk=reservation_id))
        prepared_sql.run(
            _LOCK_JOB, {"job": call.job_id}
        )  # the activity needs this lock, and jobs are locked before counters
        limits.share_lock(call.org_id)
        counters = limits.locked(call)
        row = prepared_sql.instance(Reservation, "id = %(id)s", {"id": reservation_id}, and_then="FOR UPDATE")
        if row is None:
            raise Reservation.DoesNotExist(f"there is no reservation {reservation_id}")
        if row.status in (_SETTLED, status):
            return row
        was_open = row.status == _OPEN
        before, after = _Use(row.model) if was_open else _most(row), decide(row)
        limits.add(
            counters,
            used_tokens=after.tokens - before.tokens,
            used_cost=after.cost - before.cost,
            reserved_tokens=-_most(row).tokens if was_open else 0,
            reserved_cost=-row.reserved_cost if was_open else 0,
        )
        row.status, row.model, row.cost = status, after.model, after.cost
        row.input_tokens, row.output_tokens = after.usage.input_tokens, after.usage.output_tokens
        spent = {"model": row.model, "input": row.input_tokens, "output": row.output_tokens, "cost": row.cost}
        prepared_sql.run(_LEFT, {"id": row.pk, "status": status, **spent})
        if after.calls or not was_open or told.error:
            call_activity.write(row, told)
        for use, sign in sorted(((before, -1), (after, 1)), key=lambda entry: entry[0].model):
            _book(row, use, sign)
        if status == _SETTLED:
            transaction.on_commit(lambda: _count(after), robust=True)
    return row


def _book(row: Reservation, use: _Use, sign: int) -> None:
    """Add to the ledger. Do it last in the transaction, because many calls share these rows."""
    if not use.calls:
        return
    line = {"org": row.org_id, "day": row.day, "type": row.job_type_key, "model": use.model}
    usage = {"input": sign * use.usage.input_tokens, "cached": sign * use.usage.cached_input_tokens}
    usage |= {"output": sign * use.usage.output_tokens}
    part = row.pk.int % UsageDay.PARTS
    prepared_sql.run(_BOOK, {**line, "part": part, "calls": sign * use.calls, "cost": sign * use.cost, **usage})


def _count(use: _Use) -> None:
    meters.add("model_tokens", use.usage.input_tokens, model=prices.label(use.model), kind="input")
    meters.add("model_tokens", use.usage.output_tokens, model=prices.label(use.model), kind="output")
    meters.add("model_cost", float(use.cost), model=prices.label(use.model))
