"""The caps of model calls and their counters, used by `budgets.reservations`.

A scope is the owner of a cap: an organisation or a job type on a UTC day, or a job. The first call under a cap creates
the scope's counter, from the ledger and the open reservations. From then on the counter includes every call, so it
equals the sum of the scope's reservations. A scope without a cap has no counter, so its calls do not wait for each
other.

No call may begin or end while a counter is created. So calls share an advisory lock of the organisation (`share_lock`),
and creation takes it exclusively. Counters are always locked in one order: organisation, type, job.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum

from agent_jobs.budgets.prices import Price
from agent_jobs.errors import BudgetExhausted, BudgetReserved
from agent_jobs.llm import Usage
from agent_jobs.models import Approval, Budget, Reservation, UsageDay
from agent_jobs.models.budgets import Scope
from infra import meters, prepared_sql, raw_sql

# An answer shorter than this is not worth the cost of its input.
MIN_OUTPUT_TOKENS = 256
# The question to a person is posted in the thread, so it becomes input of the call.
ASKING_TOKENS = 1_000
# The day of a job's counter, which spans all days.
ALL_DAYS = date(1970, 1, 1)
# A job whose call has to wait for those under way comes back after so long.
WAIT_SECONDS = 2.0
_LOCK_SPACE = 0x616B

_CAPS = """
SELECT (now() AT TIME ZONE 'UTC')::date, o.max_tokens_per_day, o.max_cost_per_day, t.max_tokens_per_day,
    t.max_cost_per_day
FROM (SELECT) one
LEFT JOIN agent_jobs_org o ON o.id = %(org)s
LEFT JOIN agent_jobs_jobtype t ON t.org_id = o.id AND t.key = %(type)s
"""
_SHARE = "SELECT pg_advisory_xact_lock_shared(%(space)s, hashtext(%(org)s))"

_COUNTER = ("scope", "id", "used_tokens", "used_cost", "reserved_tokens", "reserved_cost")
_LOCKED = """
SELECT scope, id, used_tokens, used_cost, reserved_tokens, reserved_cost FROM agent_jobs_budget
WHERE org_id = %(org_id)s AND (scope, key, day) IN (
    (%(org)s, '', %(day)s), (%(type)s, %(job_type_key)s, %(day)s), (%(job)s, %(job_id)s, %(all_days)s))
ORDER BY scope FOR NO KEY UPDATE
"""
_SCOPES: dict[str, Any] = {"org": Scope.ORG, "type": Scope.TYPE, "job": Scope.JOB, "all_days": ALL_DAYS}


@dataclass(frozen=True, slots=True)
class Call:
    """Identifies a call's counters: its organisation, job type and job, and the day on which it began."""

    org_id: str
    job_type_key: str
    job_id: UUID | str
    day: date

    def scopes(self) -> Q:
        return (
            Q(scope=Scope.ORG, key="", day=self.day)
            | Q(scope=Scope.TYPE, key=self.job_type_key, day=self.day)
            | Q(scope=Scope.JOB, key=str(self.job_id), day=ALL_DAYS)
        )


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap on model calls. `name` is the field that sets it and `whose` its owner, both for people. `limit` is the
    value that holds; `granted` is the part of it that approvals added to the configured value.
    """

    scope: Scope
    name: str
    whose: str
    limit: int | Decimal
    granted: int | Decimal = 0


def caps_of(org_id: str, job_type_key: str, job_id: UUID | str, config: Mapping[str, Any]) -> tuple[Call, list[Cap]]:
    """The caps on a call that begins now, by the database's clock."""
    stated = prepared_sql.first(_CAPS, {"org": org_id, "type": job_type_key})
    day, org_tokens, org_cost, type_tokens, type_cost = stated
    job_cost = config.get("max_cost")
    found: Iterable[tuple[Scope, str, str, int | Decimal | None]] = (
        (Scope.ORG, "max_tokens_per_day", "the organization", org_tokens),
        (Scope.ORG, "max_cost_per_day", "the organization", org_cost),
        (Scope.TYPE, "max_tokens_per_day", f"the job type {job_type_key!r}", type_tokens),
        (Scope.TYPE, "max_cost_per_day", f"the job type {job_type_key!r}", type_cost),
        (Scope.JOB, "max_tokens", "the job", config.get("max_tokens")),
        (Scope.JOB, "max_cost", "the job", None if job_cost is None else Decimal(str(job_cost))),
    )
    caps = [Cap(scope, name, whose, limit) for scope, name, whose, limit in found if limit is not None]
    if config.get("on_budget_exhausted") == "approve" and any(cap.scope == Scope.JOB for cap in caps):
        more = granted(org_id, job_id)
        caps = [_raised(cap, more.get(cap.name)) if cap.scope == Scope.JOB else cap for cap in caps]
    return Call(org_id, job_type_key, job_id, day), caps


def granted(org_id: str, job_id: UUID | str) -> dict[str, int | Decimal]:
    """The amounts that approvals added to a job's own caps, by cap name, over all lives of the job.

    The sum only grows, so a value read before a call is never too high when the call is made.
    """
    approved = Approval.objects.filter(org_id=org_id, job_id=job_id, kind=Approval.Kind.BUDGET)
    found: dict[str, int | Decimal] = {}
    for over in approved.filter(status=Approval.Status.APPROVED).values_list("arguments", flat=True):
        if grants := over.get("grants"):
            more = grants if isinstance(grants, int) else Decimal(str(grants))
            found[over["cap"]] = found.get(over["cap"], 0) + more
    return found


def _raised(cap: Cap, more: int | Decimal | None) -> Cap:
    if not more:
        return cap
    # A cap in tokens stays an integer, one in money a Decimal.
    more = int(more) if isinstance(cap.limit, int) else Decimal(more)
    return replace(cap, limit=cap.limit + more, granted=more)


def affordable(
    caps: Sequence[Cap], counters: Mapping[int, Budget], *, price: Price, input_tokens: int, output_tokens: int
) -> int:
    """How many output tokens fit under every cap together with that input: at most `output_tokens`.

    Raises BudgetExhausted, which names the tightest cap, if they are too few for an answer. Its context has the cap,
    the amount `left`, and how much more the call needs (`short`). Raises BudgetReserved instead if only the calls under
    way of other jobs leave too little.
    """

    def most(left: int | Decimal) -> int | None:
        return (
            left - input_tokens if isinstance(left, int) else price.output_tokens_for(left, input_tokens=input_tokens)
        )

    fits, fits_later = output_tokens, output_tokens
    tightest: Cap | None = None
    for cap in caps:
        found = most(_left(cap, counters[cap.scope]))
        if found is not None and found < fits:
            fits, tightest = found, cap
        later = most(_left(cap, counters[cap.scope], with_reserved=cap.scope != Scope.JOB))
        fits_later = fits_later if later is None else min(fits_later, later)
    least = min(MIN_OUTPUT_TOKENS, output_tokens)
    if tightest is None or fits >= least:
        return fits
    if fits_later >= least:
        raise BudgetReserved(
            f"calls under way have reserved the rest of {tightest.name} of {tightest.whose}", retry_after=WAIT_SECONDS
        )
    meters.add("budget_refusals", scope=Scope(tightest.scope).name.lower())
    left = _left(tightest, counters[tightest.scope])
    call = Usage(input_tokens + ASKING_TOKENS, least)
    needed = call.input_tokens + call.output_tokens if isinstance(left, int) else price.cost(call)
    raise BudgetExhausted(
        f"{tightest.name} of {tightest.whose} is {tightest.limit:,}, and the {max(left, 0):,} that are left are too"
        f" little for a call with an estimated {input_tokens:,} tokens of input",
        cap=tightest,
        left=left,
        short=needed - left,
    )


def _left(cap: Cap, counter: Budget, *, with_reserved: bool = False) -> int | Decimal:
    """The rest of the cap; `with_reserved` also counts the reservations of calls under way as left."""
    if isinstance(cap.limit, int):
        return cap.limit - counter.used_tokens - (0 if with_reserved else counter.reserved_tokens)
    return cap.limit - counter.used_cost - (0 if with_reserved else counter.reserved_cost)


# --- Counters --------------------------------------------------------------------------------------------------
def share_lock(org_id: str) -> None:
    """Prevents the creation of counters of the organisation until the transaction ends. Take it before locking
    counters.
    """
    prepared_sql.first(_SHARE, {"space": _LOCK_SPACE, "org": org_id})


def locked(call: Call) -> dict[int, Budget]:
    """The existing counters of the call's scopes, by scope, locked for update."""
    found = prepared_sql.all_rows(_LOCKED, {**asdict(call), **_SCOPES, "job_id": str(call.job_id)})
    return {row[0]: Budget(**dict(zip(_COUNTER, row, strict=True))) for row in found}


def add(
    counters: Mapping[int, Budget],
    *,
    used_tokens: int = 0,
    used_cost: Decimal | int = 0,
    reserved_tokens: int = 0,
    reserved_cost: Decimal | int = 0,
) -> None:
    """Add to locked counters."""
    if counters:
        Budget.objects.filter(pk__in=[row.pk for row in counters.values()]).update(
            used_tokens=F("used_tokens") + used_tokens,
            used_cost=F("used_cost") + used_cost,
            reserved_tokens=F("reserved_tokens") + reserved_tokens,
            reserved_cost=F("reserved_cost") + reserved_cost,
        )


def ensure(call: Call, caps: Sequence[Cap]) -> None:
    """Create missing counters for scopes that have a cap. Do not call it while holding the shared lock."""
    capped = {cap.scope for cap in caps}
    if not capped:
        return
    known = Budget.objects.filter(call.scopes(), org_id=call.org_id).values_list("scope", flat=True)
    if missing := capped - {Scope(scope) for scope in known}:
        with transaction.atomic():
            raw_sql.run("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCK_SPACE, call.org_id])
            Budget.objects.bulk_create([_made(call, scope) for scope in sorted(missing)], ignore_conflicts=True)


def _made(call: Call, scope: Scope) -> Budget:
    """A new counter with everything that its scope has spent and reserved so far."""
    tokens = F("input_tokens") + F("output_tokens")
    calls = Reservation.objects.filter(org_id=call.org_id)
    spent: QuerySet[Any]
    if scope == Scope.JOB:
        key, day = str(call.job_id), ALL_DAYS
        calls = calls.filter(job_id=call.job_id)
        spent = calls.exclude(status=Reservation.Status.OPEN)
    else:
        key, day = call.job_type_key if scope == Scope.TYPE else "", call.day
        of_type = {"job_type_key": key} if scope == Scope.TYPE else {}
        calls = calls.filter(day=day, **of_type)
        spent = UsageDay.objects.filter(org_id=call.org_id, day=day, **of_type)
    used = spent.aggregate(tokens=Sum(tokens), cost=Sum("cost"))
    held = calls.filter(status=Reservation.Status.OPEN).aggregate(
        tokens=Sum(F("reserved_input_tokens") + F("reserved_output_tokens")), cost=Sum("reserved_cost")
    )
    return Budget(
        org_id=call.org_id,
        scope=scope,
        key=key,
        day=day,
        used_tokens=used["tokens"] or 0,
        used_cost=used["cost"] or 0,
        reserved_tokens=held["tokens"] or 0,
        reserved_cost=held["cost"] or 0,
    )
