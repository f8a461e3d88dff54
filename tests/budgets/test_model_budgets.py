"""Budgets through a worker's loop, against a provider over a real socket: what a job under a cap says and costs."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agent_jobs import jobs, llm
from agent_jobs.budgets import reservations
from agent_jobs.catalog import model_keys
from agent_jobs.jobs import repeats as once_more
from agent_jobs.llm import Usage
from agent_jobs.models import Activity, Approval, Budget, Job, Org, Profile, Reservation, Step, Task, UsageDay
from agent_jobs.models.budgets import Scope
from agent_jobs.reads import explanations
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from channels_integration.models import Channel
from tests import rows
from tests.conversations import QuietKeeper, again, answer, ask, let_time_pass, texts
from tests.fakes import openai
from tests.fakes.openai import FakeOpenAI, completion, says
from tests.races import in_threads
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
MODEL = "openai:gpt-fake"


@pytest.fixture
def provider(settings: Any) -> Iterator[FakeOpenAI]:
    settings.MODEL_KEYS = {}
    settings.MODEL_PRICES = {MODEL: (Decimal(1), Decimal(2)), "openai:*": (Decimal(10), Decimal(10))}
    settings.REQUIRE_MODEL_PRICE = False
    Channel.objects.create(org_id="acme", platform="null", code="nowhere")
    rows.org("acme")
    with FakeOpenAI(lambda request: completion("How are you?", tokens=(1_200, 30))) as fake:
        model_keys.put_key("acme", "openai", key="sk-canary", base_url=fake.base_url, actor=rows.TESTER)
        yield fake


@pytest.fixture
def worker() -> Worker:
    return Worker(QuietKeeper())


def hosted(profile: dict[str, Any] | None = None, **config: Any) -> Job:
    columns = {"name": "Ann", "model": MODEL, "timeout_seconds": 30, **(profile or {})}
    Profile.objects.create(org_id="acme", key="ann", **columns)
    return ask(config={"profile_id": "ann", "max_task_retries": 1, "task_retry_interval": 0.01, **config})


def test_a_call_leaves_its_credits_and_its_line_in_the_ledger(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted()
    worker.serve("agents")
    call = Activity.objects.get(job=job, code="model.call")
    held = Reservation.objects.get()
    assert (call.allocated_credits, call.consumed_credits) == (held.reserved_cost, Decimal("0.001260"))
    assert call.output["input_tokens"] == 1_200
    assert call.allocated_credits > call.consumed_credits
    row = UsageDay.objects.get()
    assert (row.job_type_key, row.model, row.calls, row.input_tokens, row.cost) == (
        "greet",
        MODEL,
        1,
        1_200,
        Decimal("0.001260"),
    )


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ((Decimal(1), Decimal(2)), "0.100020"),
        ((Decimal(1), Decimal(2), Decimal("0.1")), "0.011820"),
        ((Decimal(1), Decimal(2), Decimal(0)), "0.002020"),
    ],
)
@pytest.mark.parametrize("cached", [98_000, 98_000.0])
def test_cached_input_has_its_own_price(
    worker: Worker, provider: FakeOpenAI, settings: Any, prices: tuple[Decimal, ...], cost: str, cached: float
) -> None:
    settings.MODEL_PRICES = {MODEL: prices}
    usage = {"prompt_tokens": 100_000, "completion_tokens": 10, "total_tokens": 100_010}
    usage |= {"prompt_tokens_details": {"cached_tokens": cached}}
    provider.answer = lambda request: completion("How are you?", usage=usage)
    job = hosted()
    worker.serve("agents")

    call = Activity.objects.get(job=job, code="model.call")
    assert (call.consumed_credits, call.output["cached_input_tokens"]) == (Decimal(cost), 98_000)
    booked = UsageDay.objects.get()
    assert (booked.cost, booked.input_tokens, booked.cached_input_tokens) == (Decimal(cost), 100_000, 98_000)


def test_a_job_over_its_cap_fails_with_what_it_had_and_asks_nobody(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted(max_tokens=6_000)
    worker.serve("agents")
    assert again(job).waiting_for == "reply"
    Job.objects.filter(pk=job.pk).update(config=job.config | {"max_tokens": 1_300}, result="half of it")
    answer(job)
    worker.serve("agents")
    job = again(job)
    assert (job.status, job.error_code, job.result) == (JobStatus.FAILED, "budget_exhausted", "half of it")
    assert "max_tokens of the job is 1,300, and the 70 that are left are too little" in job.error_message
    assert len(provider.requests) == 1
    assert texts(job) == ["How are you?", "Fine"], "nothing was said after the answer"


def test_a_retried_job_goes_on_with_what_its_former_life_has_left_of_its_cap(
    worker: Worker, provider: FakeOpenAI
) -> None:
    job = hosted({"max_output_tokens": 400}, max_tokens=6_000)
    provider.queue(completion("How are you?", tokens=(5_400, 30)))
    worker.serve("agents")
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    once_more.retry("acme", job.pk, actor=rows.TESTER)
    worker.serve("agents")
    job = again(job)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "budget_exhausted")
    assert "max_tokens of the job is 6,000, and the 570 that are left are too little" in job.error_message
    assert len(provider.requests) == 1


def test_the_days_cap_of_the_organisation_holds_for_all_its_jobs(worker: Worker, provider: FakeOpenAI) -> None:
    Org.objects.update(max_tokens_per_day=3_500)
    jobs = [hosted(), *(ask(config={"profile_id": "ann"}) for _ in range(3))]
    worker.serve("agents")
    ended = sorted((again(job).status, again(job).error_code) for job in jobs)
    assert ended == [(JobStatus.FAILED, "budget_exhausted")] * 2 + [(JobStatus.RUNNING, "")] * 2
    assert len(provider.requests) == 2


@pytest.mark.parametrize("config", [{}, {"on_budget_exhausted": "approve"}])
@pytest.mark.parametrize("scope", [Scope.ORG, Scope.TYPE])
def test_a_job_whose_call_fits_when_others_are_settled_waits_for_them(
    worker: Worker, provider: FakeOpenAI, scope: Scope, config: dict[str, Any]
) -> None:
    other = hosted()
    worker.serve("agents")
    if scope == Scope.ORG:
        Org.objects.update(max_tokens_per_day=20_000)
    else:
        rows.job_type(max_tokens_per_day=20_000)
    stake = {"org_id": "acme", "job_type_key": other.job_type_key, "config": {}, "model": MODEL}
    held = rows.reserved(**stake, job_id=other.pk, input_tokens=17_000, max_output_tokens=1_000)
    job = ask(config={"profile_id": "ann", **config})

    for _ in range(3):
        worker.serve("agents")
        job = again(job)
        assert (job.status, job.waiting_for, job.failed_attempts) == (JobStatus.RUNNING, "retry", 0)
        assert job.lease_until is None  # it holds no worker
        Job.objects.filter(pk=job.pk).update(wake_at=datetime.now(UTC) + timedelta(hours=1))  # on slow machines
        assert "It waits for budget: calls under way have reserved" in explanations.of("acme", job.pk).state
        let_time_pass(job)
    held.settle(Usage(400, 100))
    worker.serve("agents")

    assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "reply")
    waited, answered = job.tasks.order_by("number")
    assert (waited.number, waited.status, answered.number, answered.status) == (1, "WAITED", 2, "COMPLETED")
    assert "calls under way have reserved" in waited.result
    assert Step.objects.get(job=job).number == 1
    assert not Approval.objects.exists()
    assert not Activity.objects.filter(job=job, code="task.failed").exists()
    assert Budget.objects.get(scope=scope).used_tokens == 1_230 + 500 + 1_230


def test_a_turn_that_did_work_before_it_waited_stays_a_task_of_its_own(worker: Worker, provider: FakeOpenAI) -> None:
    other = hosted()
    worker.serve("agents")
    Org.objects.update(max_tokens_per_day=20_000)
    stake = {"org_id": "acme", "job_type_key": other.job_type_key, "config": {}, "model": MODEL, "job_id": other.pk}
    job = ask(config={"profile_id": "ann"})

    def serve(*, under_way: int) -> None:
        held = rows.reserved(**stake, input_tokens=under_way, max_output_tokens=1_000)
        worker.serve("agents")
        held.settle(Usage(1, 1))
        let_time_pass(job)

    serve(under_way=17_000)
    provider.queue(completion(None, tokens=(12_000, 5)))  # a slip: the turn calls the model again
    serve(under_way=4_000)
    serve(under_way=1)

    tasks = job.tasks.order_by("number").values_list("number", "status")
    assert list(tasks) == [(1, "WAITED"), (2, "WAITED"), (3, "COMPLETED")]


def test_a_call_that_fits_nothing_ends_its_job_whatever_is_under_way(worker: Worker, provider: FakeOpenAI) -> None:
    Org.objects.update(max_tokens_per_day=1_500)
    job = hosted()
    worker.serve("agents")

    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "budget_exhausted")


@pytest.mark.parametrize("scope", [Scope.ORG, Scope.TYPE])
@pytest.mark.django_db(transaction=True)
def test_twenty_jobs_at_once_that_use_half_a_cap_between_them_all_complete(
    worker: Worker, provider: FakeOpenAI, scope: Scope
) -> None:
    """Each call reserves some 6,000 tokens and uses 500, so three fit under the cap at once and the others wait."""
    if scope == Scope.ORG:
        Org.objects.update(max_tokens_per_day=20_000)
    else:
        rows.job_type(max_tokens_per_day=20_000)
    somebody_waits = threading.Event()

    def answer_when_somebody_waits(request: Any) -> openai.Answer:
        assert somebody_waits.wait(PATIENCE)
        return says("Hello", done=True, result="greeted", tokens=(450, 50))

    provider.answer = answer_when_somebody_waits
    given = [hosted(), *(ask(config={"profile_id": "ann"}) for _ in range(19))]
    ended = Job.objects.filter(pk__in=[job.pk for job in given], finished_at__isnull=False)
    waiting = Job.objects.filter(waiting_for="retry")

    def serve() -> None:
        own, until = Worker(QuietKeeper()), time.monotonic() + PATIENCE
        while ended.count() < len(given) and time.monotonic() < until:
            own.serve("agents")
            for job in waiting:
                let_time_pass(job)

    def watch() -> None:
        wait_for(waiting.exists, what="a job waits for the calls under way")
        somebody_waits.set()

    in_threads(*[serve] * 5, watch)
    assert {again(job).status for job in given} == {JobStatus.COMPLETED}
    assert len(provider.requests) == len(given)
    budget = Budget.objects.get(scope=scope)
    assert (budget.used_tokens, budget.reserved_tokens) == (20 * 500, 0)
    assert not Activity.objects.filter(code="task.failed").exists()


def test_a_small_cap_makes_calls_for_a_short_prompt(worker: Worker, provider: FakeOpenAI) -> None:
    provider.answer = lambda request: says("How are you?", tokens=(480, 20))
    job = hosted(max_tokens=3_000)
    worker.serve("agents")
    answer(job)
    worker.serve("agents")

    assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "reply")
    assert len(provider.requests) == 2


def test_input_of_a_token_a_byte_passes_a_cap_by_one_estimate_at_most(worker: Worker, provider: FakeOpenAI) -> None:
    def one_token_a_byte(request: Any) -> openai.Answer:
        return says("How are you?", tokens=(len(json.dumps([request["messages"], request["tools"]])), 20))

    provider.answer = one_token_a_byte
    Profile.objects.create(org_id="acme", key="ann", name="Ann", model=MODEL, timeout_seconds=30)
    job = ask(prompt="x9Qz" * 1_000, config={"profile_id": "ann", "max_tokens": 4_000})
    worker.serve("agents")
    answer(job)
    worker.serve("agents")

    held = Reservation.objects.get()
    used = Budget.objects.get(scope=Scope.JOB).used_tokens
    assert 4_000 < used <= 4_000 + held.reserved_input_tokens
    assert again(job).error_code == "budget_exhausted"


def test_what_is_left_of_a_cap_bounds_the_output_that_is_asked_for(worker: Worker, provider: FakeOpenAI) -> None:
    hosted({"max_output_tokens": 4_000}, max_tokens=5_000)
    worker.serve("agents")
    (request,) = provider.requests
    asked = request.get("max_completion_tokens") or request["max_tokens"]
    held = Reservation.objects.get()
    assert 256 <= asked == held.reserved_output_tokens < 4_000
    assert held.reserved_input_tokens + held.reserved_output_tokens == 5_000


def test_a_fallback_has_a_reservation_of_its_own_and_a_refused_call_costs_nothing(
    worker: Worker, provider: FakeOpenAI
) -> None:
    job = hosted({"fallback_model": "openai:gpt-other"}, max_tokens=50_000)
    provider.queue(openai.error(429, "rate_limit_exceeded"))
    worker.serve("agents")
    made = Reservation.objects.order_by("id").values_list("model", "status", "input_tokens", "cost")
    assert list(made) == [
        (MODEL, "settled", 0, 0),
        ("openai:gpt-other", "settled", 1_200, Decimal("0.012300")),
    ]
    told = Activity.objects.filter(job=job, code="model.call").order_by("id")
    assert list(told.values_list("status", "consumed_credits")) == [("failed", 0), ("completed", Decimal("0.012300"))]


@pytest.mark.parametrize(
    ("refusal", "output"),
    [
        (
            openai.error(429, "rate_limit_exceeded", Retry_After="40"),
            {"error": "model_rate_limited", "retry_after": 40},
        ),
        (openai.error(429, "rate_limit_exceeded"), {"error": "model_rate_limited"}),
        (openai.error(503), {"error": "model_unavailable"}),
        (openai.error(401, "invalid_api_key"), {"error": "model_key_refused"}),
    ],
    ids=lambda value: str(value.get("error")) if isinstance(value, dict) else str(value.status),
)
def test_a_call_that_the_provider_refused_is_told_of_and_cost_nothing(
    worker: Worker, provider: FakeOpenAI, refusal: openai.Answer, output: dict[str, Any]
) -> None:
    job = hosted(max_tokens=50_000)
    provider.queue(refusal)
    worker.serve("agents")
    told = Activity.objects.get(job=job, code="model.call")
    assert (told.status, told.consumed_credits) == ("failed", 0)
    assert told.allocated_credits == Reservation.objects.get().reserved_cost > 0
    assert told.output == {**output, "input_tokens": 0, "output_tokens": 0}
    assert told.note == f"asked model {MODEL}: {output['error']}: openai answered {refusal.status}"
    assert str(told.execution_id) == str(Task.objects.get(job=job).pk)
    assert Budget.objects.get(scope=Scope.JOB, key=str(job.pk)).used_cost == 0


def test_a_call_that_timed_out_counts_as_the_most_it_may_have_cost(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted({"timeout_seconds": 1}, max_tokens=50_000)
    provider.queue(openai.Answer(hold=True))
    worker.serve("agents")
    assert again(job).waiting_for == "retry"
    held = Reservation.objects.get()
    assert (held.status, held.cost) == ("expired", held.reserved_cost)
    lost = Activity.objects.get(job=job, code="model.call")
    assert lost.status == "failed"
    assert (lost.allocated_credits, lost.consumed_credits) == (held.reserved_cost, held.reserved_cost)
    assert lost.note.startswith(f"asked model {MODEL}: model_timeout: ")
    assert lost.note.endswith("; all that was set aside for it is counted")
    assert (lost.output["error"], lost.input["lines"]) == ("model_timeout", 0)
    assert str(lost.execution_id) == str(Task.objects.get(job=job).pk)
    let_time_pass(job)
    worker.serve("agents")
    assert again(job).waiting_for == "reply"
    assert Reservation.objects.filter(status="settled").count() == 1
    assert_activities_add_up(job)


def test_a_turn_that_is_thrown_away_leaves_what_its_calls_cost(
    worker: Worker, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is canceled after the model has answered, before that is written down: nothing of the turn is kept."""
    job = hosted(max_tokens=50_000)
    answer_of = llm.answer

    def answer_and_cancel(*given: Any) -> llm.Reply:
        reply = answer_of(*given)
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
        return reply

    monkeypatch.setattr(llm, "answer", answer_and_cancel)
    worker.serve("agents")
    assert (again(job).status, texts(job)) == (JobStatus.CANCELED, [])
    assert Activity.objects.get(job=job, code="model.call").output["text"] == "How are you?"
    assert_activities_add_up(job)


def assert_activities_add_up(job: Job) -> None:
    spent = Budget.objects.get(scope=Scope.JOB, key=str(job.pk))
    calls = Activity.objects.filter(job=job, code="model.call")
    assert sum(call.consumed_credits for call in calls) == spent.used_cost > 0
    tokens = [call.output["input_tokens"] + call.output["output_tokens"] for call in calls]
    assert sum(tokens) == spent.used_tokens


def test_who_takes_up_the_turn_of_a_dead_worker_closes_what_it_had_set_aside(
    worker: Worker, provider: FakeOpenAI
) -> None:
    job = hosted(max_tokens=50_000)
    Job.objects.filter(pk=job.pk).update(attempt=1)
    Step.objects.create(org_id="acme", job=job, life=0, number=1, turn=job.turn, kind="model", name=MODEL)
    left = rows.reserved(
        org_id="acme",
        job_id=job.pk,
        job_type_key="greet",
        config=job.config,
        model=MODEL,
        input_tokens=4_000,
        max_output_tokens=1_000,
    )
    worker.serve("agents")
    assert again(job).waiting_for == "reply"
    assert Reservation.objects.get(pk=left.id).status == "expired"
    assert UsageDay.objects.filter(input_tokens__gte=0).count() in (1, 2)
    assert sum(row.input_tokens for row in UsageDay.objects.all()) == 4_000 + 1_200
    assert "nobody knows how the call ended" in Activity.objects.get(pk=left.id).note
    assert_activities_add_up(job)

    reservations.settle(left.id, Usage(7, 3))  # it does come back, to a worker that was only slow
    assert Activity.objects.get(pk=left.id).output == {"input_tokens": 7, "output_tokens": 3}
    assert Activity.objects.get(pk=left.id).note == f"asked model {MODEL}"
    assert_activities_add_up(job)
