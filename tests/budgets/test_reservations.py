"""Budgets: what model calls set aside and settle, and that no cap is passed, whoever calls at the same time."""

import logging
import threading
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Sum

from agent_jobs import duty_rounds
from agent_jobs.budgets import limits, prices, reservations
from agent_jobs.duties import duty_table
from agent_jobs.errors import BudgetExhausted, BudgetReserved, PermanentError, RetryableError
from agent_jobs.llm import Usage
from agent_jobs.models import Activity, Budget, Job, Org, Reservation, UsageDay
from agent_jobs.models.budgets import Scope
from agent_jobs.states import JobStatus
from infra import meters
from tests import rows
from tests.races import at_once, in_threads, is_anybody_locked_out
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
MODEL = "openai:gpt-5-mini"
# Money per million tokens: a token of input costs 1 millionth, one of output 2.
PRICES = {MODEL: (Decimal(1), Decimal(2)), "openai:dear": (Decimal(100), Decimal(100))}


@pytest.fixture(autouse=True)
def _prices(settings: Any) -> None:
    settings.MODEL_PRICES = PRICES
    settings.REQUIRE_MODEL_PRICE = False


def call(job: Job, **other: Any) -> dict[str, Any]:
    wanted = {
        "org_id": job.org_id,
        "job_id": job.pk,
        "job_type_key": job.job_type_key,
        "config": job.config,
        "model": MODEL,
        "input_tokens": 600,
        "max_output_tokens": 400,
    }
    return wanted | other


def reserve(job: Job, **other: Any) -> reservations.Held:
    return rows.reserved(**call(job, **other))


def capped(**config: Any) -> Job:
    return rows.job(JobStatus.RUNNING, config=config)


def counted(scope: Scope = Scope.JOB) -> tuple[int, Decimal, int, Decimal]:
    """Used and reserved, of the only counter of that scope, which is made with the first call that fits."""
    row = Budget.objects.filter(scope=scope).first() or Budget()
    return row.used_tokens, row.used_cost, row.reserved_tokens, row.reserved_cost


def ledger(**of: Any) -> dict[str, Any]:
    return UsageDay.objects.filter(**of).aggregate(
        calls=Sum("calls"), input=Sum("input_tokens"), output=Sum("output_tokens"), cost=Sum("cost")
    )


def assert_the_books_agree() -> None:
    """Every counter is the sum of the reservations of its scope, the ledger is the sum of all, and the activities of a
    job add up to what it spent."""
    for counter in Budget.objects.all():
        of = {
            Scope.ORG: {"day": counter.day},
            Scope.TYPE: {"day": counter.day, "job_type_key": counter.key},
            Scope.JOB: {"job_id": counter.key or None},
        }[Scope(counter.scope)]
        calls = Reservation.objects.filter(org_id=counter.org_id, **of)
        still_open, closed = calls.filter(status="open"), calls.exclude(status="open")
        assert counter.reserved_tokens == sum(r.reserved_input_tokens + r.reserved_output_tokens for r in still_open)
        assert counter.reserved_cost == sum(r.reserved_cost for r in still_open)
        assert counter.used_tokens == sum(r.input_tokens + r.output_tokens for r in closed)
        assert counter.used_cost == sum(r.cost for r in closed)
    closed = Reservation.objects.exclude(status="open")
    assert (ledger()["cost"] or 0) == sum(r.cost for r in closed)
    assert (ledger()["input"] or 0) == sum(r.input_tokens for r in closed)
    for job in Job.objects.all():
        calls = Activity.objects.filter(job=job, code="model.call")
        assert sum(call.consumed_credits for call in calls) == sum(r.cost for r in closed if r.job_id == job.pk)
        spent = [(r.pk, r.input_tokens) for r in closed.filter(job_id=job.pk, input_tokens__gt=0).order_by("pk")]
        told = [(call.pk, call.output["input_tokens"]) for call in calls.order_by("pk")]
        assert [pair for pair in told if pair[1]] == spent


# --- Caps ------------------------------------------------------------------------------------------------------
# One call sets aside 600 of input and 400 of output: 1,000 tokens and 0.001400 of money.
_ORG, _TYPE = {"max_tokens_per_day": 9_000}, {"max_tokens_per_day": 5_000}
CAPS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], int, str]] = [
    ("no cap", {}, {}, {}, 9, ""),
    ("tokens, organization", {"max_tokens_per_day": 3_000}, {}, {}, 3, "max_tokens_per_day of the organization"),
    ("money, organization", {"max_cost_per_day": "0.0028"}, {}, {}, 2, "max_cost_per_day of the organization"),
    ("tokens, type", {}, {"max_tokens_per_day": 4_000}, {}, 4, "max_tokens_per_day of the job type 'greet'"),
    ("money, type", {}, {"max_cost_per_day": "0.0014"}, {}, 1, "max_cost_per_day of the job type 'greet'"),
    ("tokens, job", {}, {}, {"max_tokens": 2_000}, 2, "max_tokens of the job"),
    ("money, job, as a number", {}, {}, {"max_cost": 0.0042}, 3, "max_cost of the job"),
    ("money, job, as a text", {}, {}, {"max_cost": "0.0042"}, 3, "max_cost of the job"),
    ("the innermost is the tightest", _ORG, _TYPE, {"max_tokens": 2_000}, 2, "max_tokens of the job"),
    ("the outermost is the tightest", {"max_tokens_per_day": 1_000}, _TYPE, {"max_tokens": 2_000}, 1, "organization"),
    ("too small for any", {}, {}, {"max_tokens": 700}, 0, "max_tokens of the job"),
]


@pytest.mark.parametrize(
    ("about", "org", "job_type", "config", "fits", "named"), CAPS, ids=lambda value: str(value)[:40]
)
def test_as_many_calls_are_made_as_every_cap_has_room_for(
    about: str, org: dict[str, Any], job_type: dict[str, Any], config: dict[str, Any], fits: int, named: str
) -> None:
    rows.org("acme", **org)
    rows.job_type(**job_type)
    job = capped(**config)
    for _ in range(fits):
        assert reserve(job).max_output_tokens == 400
    if named:
        is_own = "of the job is" in f"{named} is" or not fits
        with pytest.raises(BudgetExhausted if is_own else BudgetReserved, match=named) as refused:
            reserve(job)
        assert refused.value.code == ("budget_exhausted" if is_own else "budget_reserved")
    assert Reservation.objects.count() == fits
    assert_the_books_agree()


def test_the_refusal_says_how_much_was_left() -> None:
    with pytest.raises(BudgetExhausted) as refused:
        reserve(capped(max_tokens=1_234), input_tokens=1_000)
    assert refused.value.message == (
        "max_tokens of the job is 1,234, and the 1,234 that are left are too little for a call with an estimated 1,000"
        " tokens of input"
    )


def test_what_was_not_used_is_there_for_the_next_call() -> None:
    job = capped(max_tokens=1_000)
    first = reserve(job)
    with pytest.raises(BudgetExhausted):
        reserve(job)
    first.settle(Usage(100, 50))
    assert counted() == (150, Decimal("0.000200"), 0, Decimal(0))
    assert reserve(job, input_tokens=400).max_output_tokens == 400


@pytest.mark.parametrize(
    ("config", "output_tokens"),
    [
        ({"max_tokens": 1_000}, 400),
        ({"max_tokens": 999}, 399),
        ({"max_tokens": 856}, 256),
        ({"max_tokens": 855}, None),
        ({"max_cost": "0.001400"}, 400),
        ({"max_cost": "0.001399"}, 399),
        ({"max_cost": "0.001112"}, 256),
        ({"max_cost": "0.001111"}, None),
        ({"max_cost": "0.000001"}, None),
    ],
)
def test_the_output_shrinks_to_what_is_left_while_an_answer_still_fits(
    config: dict[str, Any], output_tokens: int | None
) -> None:
    job = capped(**config)
    if output_tokens is None:
        with pytest.raises(BudgetExhausted):
            reserve(job)
        assert counted() == (0, 0, 0, 0)
    else:
        assert reserve(job).max_output_tokens == output_tokens


def test_who_asks_for_a_short_answer_may_have_it() -> None:
    assert reserve(capped(max_tokens=610), max_output_tokens=10).max_output_tokens == 10


def test_an_other_organisation_an_other_type_and_an_other_job_have_budgets_of_their_own() -> None:
    for org_id in ("acme", "rival"):
        rows.org(org_id, max_tokens_per_day=2_000)
        rows.job_type(org_id, max_tokens_per_day=1_000)
    reserve(rows.job(JobStatus.RUNNING))
    with pytest.raises(BudgetReserved, match="job type"):
        reserve(rows.job(JobStatus.RUNNING))
    reserve(rows.job(JobStatus.RUNNING, job_type_key="other"))
    reserve(rows.job(JobStatus.RUNNING, "rival"))


def test_another_day_begins_at_nothing_and_a_late_settlement_counts_for_its_own(db: None) -> None:
    rows.org("acme", max_tokens_per_day=1_000)
    job = capped(max_tokens=5_000)
    held = reserve(job)
    with pytest.raises(BudgetReserved):
        reserve(job)
    for model in (Budget.objects.filter(scope=Scope.ORG), Reservation.objects):
        model.update(day=date(2026, 1, 5))
    today = reserve(job)
    reservations.settle(held.id, Usage(300, 100))
    days = Budget.objects.filter(scope=Scope.ORG).order_by("day").values_list("used_tokens", "reserved_tokens")
    assert list(days) == [(400, 0), (0, 1_000)]
    assert counted(Scope.JOB)[0] == 400, "the job's own cap is for all its days"
    assert ledger(day=date(2026, 1, 5))["calls"] == 1
    today.settle(Usage(1, 1))
    assert_the_books_agree()


def test_days_are_those_of_the_database_in_utc() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT (now() AT TIME ZONE 'UTC')::date")
        (today,) = cursor.fetchone()
    reserve(capped())
    assert Reservation.objects.get().day == today


def test_without_a_cap_there_is_no_counter_to_wait_for() -> None:
    reserve(capped()).settle(Usage(10, 10))
    assert not Budget.objects.exists()
    assert ledger()["calls"] == 1


def test_a_cap_that_is_set_during_the_day_knows_what_was_spent_before() -> None:
    job = capped()
    reserve(job).settle(Usage(700, 0))
    under_way = reserve(job)
    Org.objects.update(max_tokens_per_day=2_000)
    with pytest.raises(BudgetReserved, match="reserved the rest of max_tokens_per_day"):
        reserve(job)
    under_way.settle(Usage(100, 0))
    reserve(job)
    assert counted(Scope.ORG)[0] == 800
    assert_the_books_agree()


# --- Settling --------------------------------------------------------------------------------------------------
def test_a_settled_call_is_in_the_ledger_by_day_type_and_model_that_answered() -> None:
    job = capped(max_cost=1)
    spent = reserve(job).settle(Usage(100, 10), model="openai:dear")
    assert (spent.reserved_cost, spent.cost, spent.status) == (Decimal("0.001400"), Decimal("0.011000"), "settled")
    row = UsageDay.objects.get()
    assert (row.org_id, row.job_type_key, row.model, row.calls) == ("acme", "greet", "openai:dear", 1)
    assert (row.input_tokens, row.output_tokens, row.cost) == (100, 10, Decimal("0.011000"))
    assert_the_books_agree()


def test_a_fraction_of_the_least_money_is_rounded_up() -> None:
    assert reserve(capped(), model="openai:gpt-5-mini").settle(Usage(1, 0)).cost == Decimal("0.000001")


def test_a_second_settlement_changes_nothing_and_answers_the_first() -> None:
    held = reserve(capped(max_tokens=5_000))
    assert reservations.settle(held.id, Usage(100, 10)).input_tokens == 100
    assert reservations.settle(held.id, Usage(999, 999)).input_tokens == 100
    assert reservations.release(held.id).input_tokens == 100
    assert counted()[0] == 110
    assert ledger()["calls"] == 1


def test_more_than_was_expected_is_believed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    job = capped(max_tokens=1_500)
    reserve(job).settle(Usage(2_000, 300))
    assert counted()[0] == 2_300
    assert "used 2300 tokens and cost 0.002600, more than its reservation of 1000 tokens and 0.001400" in caplog.text
    with pytest.raises(BudgetExhausted, match="the 0 that are left"):
        reserve(job)


@pytest.mark.parametrize(
    ("model", "usage", "tokens"),
    [
        (MODEL, Usage(), 1_000),
        ("scripted", Usage(), 0),
        (MODEL, Usage(-5, 7), 7),
        (MODEL, Usage(10**30, 0), 10**12),
    ],
)
def test_what_cannot_be_true_does_not_get_round_the_cap(model: str, usage: Usage, tokens: int) -> None:
    """A hosted model that reports nothing, say, counts as the most; what ships does cost nothing."""
    reserve(capped(max_tokens=5_000), model=model).settle(usage)
    assert counted()[0] == tokens


def test_what_was_counted_is_told_to_prometheus(django_capture_on_commit_callbacks: Any) -> None:
    meters.flush()
    before = meters.totals() or {}
    with django_capture_on_commit_callbacks(execute=True):
        reserve(capped()).settle(Usage(100, 10))
    meters.flush()
    after = meters.totals() or {}
    grown = {
        (name, dict(labels).get("kind")): round(after[name, labels] - before.get((name, labels), 0), 6)
        for name, labels in after
        if dict(labels).get("model") == MODEL and name.startswith("model_")
    }
    assert grown == {("model_tokens", "input"): 100, ("model_tokens", "output"): 10, ("model_cost", None): 0.00012}


# --- Calls that do not come back -------------------------------------------------------------------------------
def ask(job: Job, error: BaseException | None, *, settles: bool = False, before: Any = None) -> None:
    with reservations.closing(reserve(job)) as held:
        if settles:
            held.settle(Usage(5, 5), model=MODEL)
        if before:
            before()
        if error:
            raise error


@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (RetryableError("429", code="model_rate_limited"), 0),
        (RetryableError("503", code="model_unavailable"), 0),
        (PermanentError("401", code="model_key_refused"), 0),
        (RetryableError("silence", code="model_timeout"), 1_000),
        (RetryableError("cut", code="model_unreachable"), 1_000),
        (RetryableError("garbage", code="model_answer_invalid"), 1_000),
        (KeyError("a bug of ours"), 1_000),
        (SystemExit(), 1_000),
        (None, 1_000),
    ],
    ids=repr,
)
def test_a_call_without_a_settlement_counts_as_nothing_only_where_the_provider_refused_it(
    error: BaseException | None, tokens: int
) -> None:
    job = capped(max_tokens=5_000)
    with pytest.raises(type(error)) if error else nullcontext():
        ask(job, error)
    assert counted() == (tokens, Decimal("0.001400") if tokens else 0, 0, 0)
    assert (ledger()["calls"] or 0) == (1 if tokens else 0)
    assert_the_books_agree()


def test_a_call_that_was_settled_is_not_touched_by_what_goes_wrong_after_it() -> None:
    with pytest.raises(KeyError):
        ask(capped(max_tokens=5_000), KeyError(), settles=True)
    assert counted()[0] == 10


def test_nothing_is_called_where_nothing_could_be_set_aside() -> None:
    called: list[int] = []
    with pytest.raises(BudgetExhausted):
        ask(capped(max_tokens=10), None, before=lambda: called.append(1))
    assert not called


def test_who_takes_up_a_job_closes_what_its_dead_worker_had_set_aside() -> None:
    job, other = capped(max_tokens=1_000), capped(max_tokens=1_000)
    reserve(job)
    reserve(other)
    for _ in range(2):
        reservations.expire(job.pk)
    spent = Reservation.objects.get(job_id=job.pk)
    assert (spent.input_tokens, spent.output_tokens) == (600, 400)
    assert (spent.cost, spent.status) == (Decimal("0.001400"), "expired")
    assert Reservation.objects.get(job_id=other.pk).status == "open"
    with pytest.raises(BudgetExhausted):
        reserve(job)
    assert_the_books_agree()


def test_a_call_that_comes_back_after_it_was_given_up_sets_the_books_right() -> None:
    job = capped(max_tokens=5_000)
    held = reserve(job)
    reservations.expire(job.pk)
    assert counted() == (1_000, Decimal("0.001400"), 0, 0)
    assert held.settle(Usage(100, 10), model="openai:dear").status == "settled"
    assert counted() == (110, Decimal("0.011000"), 0, 0)
    assert [ledger(model=MODEL)[name] for name in ("calls", "input", "output", "cost")] == [0, 0, 0, 0]
    assert ledger(model="openai:dear")["calls"] == 1
    assert_the_books_agree()


HOUR = timedelta(hours=1)
DAY = timedelta(days=1)  # longer than a run of all tests, from when they are collected


@pytest.mark.parametrize(
    ("columns", "age", "is_closed"),
    [
        ({"lease_until": None}, timedelta(seconds=40), True),
        ({"lease_until": None}, timedelta(seconds=1), False),
        ({"lease_until": datetime.now(UTC) + DAY}, timedelta(seconds=40), False),
        ({"lease_until": datetime.now(UTC) - HOUR}, timedelta(seconds=40), True),
        ({"lease_until": datetime.now(UTC) + DAY}, timedelta(seconds=900 + 40), True),
    ],
    ids=["nobody is at it", "only just given up", "somebody is at it", "the lease lapsed", "no turn takes so long"],
)
def test_the_sweep_closes_what_nobody_will(
    settings: Any, columns: dict[str, Any], age: timedelta, is_closed: bool
) -> None:
    settings.LEASE_SECONDS, settings.TURN_SECONDS = 30, 900
    job = rows.job(JobStatus.RUNNING, config={"max_tokens": 5_000})
    reserve(job)
    Job.objects.update(**columns)
    Reservation.objects.update(created_at=datetime.now(UTC) - age)
    reservations.expire_lost()
    assert Reservation.objects.get().status == ("expired" if is_closed else "open")
    assert counted()[0] == (1_000 if is_closed else 0)


def test_the_sweep_of_recovery_is_that_sweep() -> None:
    reserve(rows.job(JobStatus.COMPLETED))
    Reservation.objects.update(created_at=datetime.now(UTC) - HOUR)
    duty_rounds.each(duty_table.BELLS["sweep"])
    assert Reservation.objects.get().status == "expired"


def test_a_reservation_of_a_job_that_is_gone_is_closed_too() -> None:
    job = capped()
    reserve(job)
    Job.objects.all().delete()
    Reservation.objects.update(created_at=datetime.now(UTC) - HOUR)
    assert reservations.expire_lost() == 1


# --- Prices ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "cost"),
    [
        ("openai:gpt-5-mini", 3),
        ("openai:other", 30),
        ("anthropic:claude", 300),
        ("scripted", 0),
    ],
)
def test_a_price_is_the_models_own_or_its_providers_or_the_one_for_all(settings: Any, model: str, cost: int) -> None:
    settings.MODEL_PRICES = {
        "openai:gpt-5-mini": (Decimal(1), Decimal(2)),
        "openai:*": (Decimal(10), Decimal(20)),
        "*": (Decimal(100), Decimal(200)),
    }
    assert reserve(capped(), model=model).settle(Usage(10**6, 10**6)).cost == cost


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("openai:gpt-5", "openai:gpt-5"),
        ("openai:their-own-words", "openai:other"),
        ("google:x", "google:other"),
        ("scripted", "scripted"),
        ("canary", "other"),
        ("nobody:canary", "other"),
    ],
)
def test_metrics_name_only_models_that_the_operator_knows(settings: Any, model: str, label: str) -> None:
    settings.MODEL_PRICES = {"openai:gpt-5": (Decimal(1), Decimal(1)), "openai:*": (Decimal(1), Decimal(1))}

    assert prices.label(model) == label


def test_a_model_without_a_price_is_free_or_refused_as_the_setting_says(settings: Any) -> None:
    reserve(capped(), model="google:gemini")
    assert Reservation.objects.get().reserved_cost == 0
    settings.REQUIRE_MODEL_PRICE = True
    with pytest.raises(PermanentError, match="google:gemini") as refused:
        reserve(capped(), model="google:gemini")
    assert refused.value.code == "model_price_missing"
    reserve(capped(), model=MODEL)
    reserve(capped(), model="scripted")


def test_a_cap_on_money_does_not_hold_what_costs_nothing() -> None:
    job = capped(max_cost="0.000001")
    for _ in range(3):
        assert reserve(job, model="google:gemini").max_output_tokens == 400


# --- Many at once ----------------------------------------------------------------------------------------------
RACES = {
    "of the organisation, tokens": ({"max_tokens_per_day": 7_900}, {}),
    "of the organisation, money": ({"max_cost_per_day": "0.011"}, {}),
    "of the type, tokens": ({}, {"max_tokens_per_day": 7_900}),
    "of all, the type's is the tightest": ({"max_tokens_per_day": 9_000}, {"max_cost_per_day": "0.0105"}),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("race", RACES)
def test_twenty_jobs_at_once_set_aside_exactly_what_a_cap_has_room_for(race: str) -> None:
    """Seven calls fit, and not a useful answer more; counters are made in the race, too."""
    org, job_type = RACES[race]
    rows.org("acme", **org)
    rows.job_type(**job_type)
    jobs = [rows.job(JobStatus.RUNNING, config={"max_tokens": 1_000_000}) for _ in range(20)]
    # What is left above seven calls is less than the input of another one.
    outcomes = at_once(*[lambda job=job: reserve(job, input_tokens=900, max_output_tokens=100) for job in jobs])
    held = [outcome for outcome in outcomes if isinstance(outcome, reservations.Held)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetReserved)]
    assert (len(held), len(refused)) == (_room(org, job_type), 20 - _room(org, job_type))
    assert_the_books_agree()

    settled = in_threads(*[lambda n=n, one=one: one.settle(Usage(10 + n, n)) for n, one in enumerate(held)])
    assert [spent.output_tokens for spent in settled] == list(range(len(held)))
    assert_the_books_agree()
    assert not Budget.objects.exclude(reserved_tokens=0, reserved_cost=0).exists()
    assert ledger()["calls"] == len(held)


def _room(org: dict[str, Any], job_type: dict[str, Any]) -> int:
    """Calls of 1,000 tokens and 0.001100 of money."""
    tokens = min(caps.get("max_tokens_per_day", 10**9) for caps in (org, job_type))
    money = min(Decimal(caps.get("max_cost_per_day", 10**9)) for caps in (org, job_type))
    return min(tokens // 1_000, int(money / Decimal("0.0011")))


@pytest.mark.django_db(transaction=True)
def test_the_end_of_a_call_locks_its_job_before_the_counters() -> None:
    """As the beginning of a call does. The other order ends in a deadlock with whoever holds the job."""
    rows.org("acme")
    rows.job_type()
    job = rows.job(JobStatus.RUNNING, config={"max_tokens": 100_000})
    held = reserve(job)
    has_job = threading.Event()

    def begin() -> None:
        with transaction.atomic():
            Job.objects.select_for_update(no_key=True).get(pk=job.pk)
            has_job.set()
            wait_for(is_anybody_locked_out, what="the end of the call waits for the job")
            assert limits.locked(held.call)

    def end() -> None:
        assert has_job.wait(PATIENCE)
        held.settle(Usage(100, 10))

    in_threads(begin, end)
    assert_the_books_agree()


@pytest.mark.django_db(transaction=True)
def test_calls_that_begin_end_and_are_given_up_at_once_leave_books_that_agree() -> None:
    """Under caps that come and go, so that counters are made while calls of before are under way."""
    rows.org("acme")
    rows.job_type()
    jobs = [rows.job(JobStatus.RUNNING, config={"max_tokens": 100_000} if n % 2 else {}) for n in range(8)]

    def live(place: int) -> None:
        for turn in range(12):
            if place == 0:
                Org.objects.update(max_tokens_per_day=None if turn % 3 == 0 else 30_000)
            held = reserve(jobs[place])
            if turn % 4 == 3:
                reservations.expire(jobs[place].pk)
            held.settle(Usage(100 + turn, place))

    in_threads(*[partial(live, place) for place in range(8)])
    assert_the_books_agree()
    assert ledger()["calls"] == 8 * 12
    assert ledger()["input"] == 8 * sum(100 + turn for turn in range(12))


@pytest.mark.django_db(transaction=True)
def test_a_process_that_dies_in_between_leaves_what_it_set_aside_and_nothing_half_done() -> None:
    """Its session is cut: in the middle of reserving nothing stays, after it all of it, until it is closed."""
    rows.org("acme", max_tokens_per_day=1_000)
    job = rows.job(JobStatus.RUNNING)

    def die(*_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservations.prepared_sql, "run", die)
        with pytest.raises((OperationalError, InterfaceError)):
            reserve(job)
    connection.close()
    assert (Budget.objects.count(), Reservation.objects.count()) == (0, 0)

    held = reserve(job)
    with pytest.raises(BudgetReserved):
        reserve(job)
    reservations.expire(job.pk)
    held.settle(Usage(1, 1))
    assert_the_books_agree()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_at_the_end_leaves_the_reservation_to_the_sweep(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    job = rows.job(JobStatus.RUNNING)

    def away(*_: object, **__: object) -> None:
        raise OperationalError("gone")

    with pytest.raises(RetryableError, match="silence"):
        ask(
            job,
            RetryableError("silence", code="model_timeout"),
            before=lambda: monkeypatch.setattr(limits, "locked", away),
        )
    assert "stays open: gone" in caplog.text
    assert Reservation.objects.get().status == "open"
