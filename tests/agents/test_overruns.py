"""Over a cap a job may ask to go on: what is asked, what an answer changes, and that nothing happens twice."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db.models.functions import Now

from agent_jobs import jobs
from agent_jobs.approvals import budget_requests, decisions
from agent_jobs.approvers import Person
from agent_jobs.budgets import reservations
from agent_jobs.catalog import model_keys
from agent_jobs.errors import BudgetExhausted, Conflict, Forbidden, Invalid
from agent_jobs.jobs import repeats as once_more
from agent_jobs.llm import Usage
from agent_jobs.models import Activity, Approval, AuditEntry, Budget, Job, JobType, Org, Profile, Step
from agent_jobs.models.budgets import Scope
from agent_jobs.states import JobStatus
from agent_jobs.worker import loop
from channels_integration.models import OutboundMessage
from tests import rows
from tests.agents import scripted_models
from tests.agents.scripted_models import asked, decide, said, work
from tests.conversations import again, let_time_pass
from tests.fakes import openai
from tests.fakes.openai import FakeOpenAI, says
from tests.races import in_threads

pytestmark = pytest.mark.django_db
MODEL = "openai:gpt-fake"
ASKS = {"on_budget_exhausted": "approve"}


@pytest.fixture
def provider(settings: Any) -> Iterator[FakeOpenAI]:
    """Every call of it uses 5,030 tokens, for 0.00506 of money."""
    settings.MODEL_KEYS = {}
    settings.MODEL_PRICES = {MODEL: (Decimal(1), Decimal(2))}
    settings.REQUIRE_MODEL_PRICE = False
    rows.org("acme")
    answer = says("How are you?", tokens=(5_000, 30))
    with FakeOpenAI(lambda request: answer) as fake:
        model_keys.put_key("acme", "openai", key="sk-canary", base_url=fake.base_url, actor=rows.TESTER)
        yield fake


def hosted(config: dict[str, Any] | None = None) -> Job:
    """Its first call fits under `max_tokens`, its second does not."""
    Profile.objects.get_or_create(
        org_id="acme", key="ann", defaults={"name": "Ann", "model": MODEL, "timeout_seconds": 30}
    )
    return scripted_models.job(config={"profile_id": "ann", "max_tokens": 6_000, **ASKS, **(config or {})})


def second_turn(job: Job, text: str = "Fine") -> Job:
    scripted_models.reply(job, text, event_id=text)
    work()
    return again(job)


def parked(config: dict[str, Any] | None = None) -> Job:
    job = hosted(config)
    work()
    assert again(job).waiting_for == "reply"
    job = second_turn(job)
    assert (job.status, job.waiting_for) == (JobStatus.RUNNING, "approval")
    return job


def ended(job: Job) -> tuple[str, str]:
    return again(job).status, again(job).error_code


# --- Asking ----------------------------------------------------------------------------------------------------
def test_it_asks_in_its_thread_with_buttons_names_the_cap_and_holds_no_worker(provider: FakeOpenAI) -> None:
    job = parked()
    approval = asked(job)
    assert (approval.kind, approval.tool, approval.on_timeout) == ("budget", MODEL, "fail")
    assert approval.arguments == {"cap": "max_tokens", "of": "job", "limit": 6_000, "used": 5_030, "grants": 6_000}
    question = OutboundMessage.objects.get(pk=approval.message_key)
    assert "max_tokens of the job is 6,000" in question.text
    assert "5,030 of it are used.\nMay I have 6,000 more?" in question.text
    assert question.buttons == [["Approve", f"approve:{approval.pk}"], ["Deny", f"deny:{approval.pk}"]]
    assert job.lease_until is None
    assert len(provider.requests) == 1
    assert work() == 0


@pytest.mark.parametrize("config", [{"on_budget_exhausted": "fail"}, {"on_budget_exhausted": None}], ids=str)
def test_without_being_told_to_ask_it_fails_as_ever(provider: FakeOpenAI, config: dict[str, Any]) -> None:
    job = hosted()
    stated = {**job.config, **config}
    Job.objects.update(config={key: value for key, value in stated.items() if value is not None})
    work()
    second_turn(job)
    assert ended(job) == (JobStatus.FAILED, "budget_exhausted")
    assert not Approval.objects.exists()


def test_the_config_says_who_decides_and_how_long_they_are_waited_for(provider: FakeOpenAI) -> None:
    job = parked({"budget_approvers": ["U0BOSS"], "budget_approval_minutes": 5})
    approval = asked(job)
    assert approval.expires_at - approval.created_at == timedelta(minutes=5)
    with pytest.raises(Forbidden):
        decide(job, by="U0CAT")
    assert decide(job, by="U0BOSS").status == "approved"


def test_what_people_write_meanwhile_is_kept_for_the_agent(provider: FakeOpenAI) -> None:
    job = parked()
    scripted_models.reply(job, "Hurry up", event_id="e9")
    assert work() == 0
    decide(job)
    work()
    assert "Hurry up" in str(provider.requests[-1]["messages"])


# --- The job's own cap -----------------------------------------------------------------------------------------
def test_an_approval_grants_the_same_again_and_the_call_is_made(provider: FakeOpenAI) -> None:
    job = parked()
    provider.queue(says("Thanks.", done=True, result="fine", tokens=(5_000, 30)))
    decide(job)
    work()
    assert again(job).result == "fine"
    assert said(job)[-1] == "Thanks."
    assert len(provider.requests) == 2
    assert Budget.objects.get(scope=Scope.JOB).used_tokens == 10_060


@pytest.mark.parametrize("caps", [{"max_tokens": 7}, {"max_tokens": 100_000, "max_cost": "0.0001"}], ids=str)
def test_one_approval_grants_as_many_times_that_as_the_call_needs(provider: FakeOpenAI, caps: dict[str, Any]) -> None:
    job = hosted(caps)
    work()
    grants = asked(job).arguments["grants"]
    stated = asked(job).arguments["limit"]
    assert grants / stated == pytest.approx(round(grants / stated))
    (offer,) = re.findall(r"May I have ([\d.,]+) more\?", said(job)[0])
    assert float(offer.replace(",", "")) == grants
    decide(job)
    work()
    assert again(job).waiting_for == "reply"
    assert len(provider.requests) == 1
    # And not many times more.
    assert provider.requests[0]["max_completion_tokens"] < 1_500


def test_what_was_granted_is_used_up_and_asked_for_again(provider: FakeOpenAI) -> None:
    job = parked()
    decide(job)
    work()
    assert again(job).waiting_for == "reply"
    second_turn(job, "Fine, still")
    assert asked(job).arguments == {
        "cap": "max_tokens", "of": "job", "limit": 12_000, "used": 10_060, "grants": 6_000
    }  # fmt: skip
    decide(job)
    work()
    assert again(job).waiting_for == "reply"
    assert len(provider.requests) == 3


def test_a_cap_in_money_is_granted_to_the_last_place(provider: FakeOpenAI) -> None:
    job = parked({"max_tokens": 100_000, "max_cost": "0.007001"})
    assert asked(job).arguments == {
        "cap": "max_cost", "of": "job", "limit": 0.007001, "used": 0.00506, "grants": 0.007001
    }  # fmt: skip
    decide(job)
    assert reservations.limits.granted("acme", job.pk) == {"max_cost": Decimal("0.007001")}
    work()
    assert again(job).waiting_for == "reply"


def test_arguments_of_a_budget_are_nobodys_to_change(provider: FakeOpenAI) -> None:
    job = parked()
    with pytest.raises(Invalid) as refused:
        decide(job, arguments={"grants": 10**9})
    assert [error.field for error in refused.value.errors] == ["arguments"]
    assert asked(job)


@pytest.mark.parametrize("decided", ["denied", "late"])
def test_a_denial_and_a_time_out_end_it_with_what_it_had(provider: FakeOpenAI, decided: str) -> None:
    job = parked()
    Job.objects.update(result="half of it")
    if decided == "denied":
        decide(job, "deny", reason="too dear")
    else:
        Approval.objects.update(expires_at=Now())
        let_time_pass(job)
    work()
    job = again(job)
    assert (job.status, job.error_code, job.result) == (JobStatus.FAILED, "budget_exhausted", "half of it")
    why = "U0BOSS denied more: too dear" if decided == "denied" else "nobody allowed more in time"
    assert job.error_message == f"max_tokens of the job is 6,000, 5,030 are used, and {why}"
    assert len(provider.requests) == 1


def test_a_decision_is_told_as_what_it_is_about(provider: FakeOpenAI) -> None:
    job = parked()
    decide(job)
    note = Activity.objects.get(job=job, code="approval.approved").note
    assert note == "going on beyond max_tokens was approved by U0BOSS"
    assert AuditEntry.objects.get(action="approval.approved").after["budget"]["grants"] == 6_000


# --- Caps of others --------------------------------------------------------------------------------------------
HARD = {
    "of the organization": (Org, "organization"),
    "of the job type": (JobType, "job_type"),
}


@pytest.fixture(params=HARD)
def hard(request: pytest.FixtureRequest, provider: FakeOpenAI) -> tuple[Any, Job]:
    model, of = HARD[request.param]
    rows.job_type()
    model.objects.update(max_tokens_per_day=6_000)
    job = parked({"max_tokens": 100_000})
    assert asked(job).arguments == {"cap": "max_tokens_per_day", "of": of, "limit": 6_000, "used": 5_030}
    return model, job


def test_an_admins_cap_is_not_raised_by_an_approval_but_asked_about_again(
    hard: tuple[Any, Job], provider: FakeOpenAI
) -> None:
    _, job = hard
    decide(job)
    work()
    assert again(job).waiting_for == "approval"
    assert Approval.objects.filter(job=job).count() == 2
    assert len(provider.requests) == 1
    assert reservations.limits.granted("acme", job.pk) == {}


def test_after_an_approval_there_is_room_where_the_admin_made_some(hard: tuple[Any, Job], provider: FakeOpenAI) -> None:
    model, job = hard
    model.objects.update(max_tokens_per_day=20_000)
    decide(job)
    work()
    assert again(job).waiting_for == "reply"
    assert len(provider.requests) == 2


def test_after_an_approval_there_is_room_on_the_next_day(hard: tuple[Any, Job], provider: FakeOpenAI) -> None:
    _, job = hard
    Budget.objects.exclude(scope=Scope.JOB).update(day=datetime(2026, 1, 5, tzinfo=UTC))
    reservations.UsageDay.objects.update(day=datetime(2026, 1, 5, tzinfo=UTC))
    reservations.Reservation.objects.update(day=datetime(2026, 1, 5, tzinfo=UTC))
    decide(job)
    work()
    assert again(job).waiting_for == "reply"


def test_an_admins_cap_is_asked_about_three_times_a_day_and_no_more(
    hard: tuple[Any, Job], provider: FakeOpenAI
) -> None:
    _, job = hard
    for _ in range(budget_requests.MOST_QUESTIONS):
        decide(job)
        work()
    assert ended(job) == (JobStatus.FAILED, "budget_exhausted")
    assert Approval.objects.filter(job=job).count() == 3
    assert len(provider.requests) == 1


def test_questions_of_the_days_before_do_not_count(hard: tuple[Any, Job], provider: FakeOpenAI) -> None:
    _, job = hard
    for _ in range(4):
        Approval.objects.update(created_at=datetime.now(UTC) - timedelta(days=1))
        decide(job)
        work()
    assert again(job).waiting_for == "approval"


# --- Of a fallback ---------------------------------------------------------------------------------------------
DEAR = "openai:gpt-dear"


def too_dear(provider: FakeOpenAI, settings: Any, error: openai.Answer, config: dict[str, Any] | None = None) -> Job:
    """Its model fails at its second call, and the fallback is too dear for what the job may cost."""
    settings.MODEL_PRICES = {**settings.MODEL_PRICES, DEAR: (Decimal(1_000), Decimal(1_000))}
    job = hosted({"max_tokens": 100_000, "max_cost": "0.1", **(config or {})})
    Profile.objects.update(fallback_model=DEAR)
    work()
    assert again(job).waiting_for == "reply"
    Job.objects.update(result="half of it")
    provider.queue(error)
    return second_turn(job)


FIRST_FAILS = {
    "for now": openai.error(503),
    "for good": openai.error(429, "insufficient_quota", kind="insufficient_quota"),
}


@pytest.mark.parametrize("failure", FIRST_FAILS)
def test_a_fallback_that_is_over_a_cap_asks_for_more(provider: FakeOpenAI, settings: Any, failure: str) -> None:
    job = too_dear(provider, settings, FIRST_FAILS[failure], {"max_task_retries": 3})
    assert (job.status, job.waiting_for) == (JobStatus.RUNNING, "approval")
    over = asked(job).arguments
    assert over.pop("grants") > 3, "as much as the fallback may cost"
    assert over == {"cap": "max_cost", "of": "job", "limit": 0.1, "used": 0.00506}
    assert "; the fallback: max_cost of the job is 0.1, and the 0.094940 that are left" in said(job)[-1]
    assert work() == 0
    decide(job)
    work()
    assert again(job).waiting_for == "reply", "the first model is asked again, and can by now"
    assert [request["model"] for request in provider.requests] == ["gpt-fake"] * 3


@pytest.mark.parametrize("failure", FIRST_FAILS)
def test_a_fallback_that_is_over_a_cap_ends_it_with_what_it_had(
    provider: FakeOpenAI, settings: Any, failure: str
) -> None:
    job = too_dear(provider, settings, FIRST_FAILS[failure], {"on_budget_exhausted": "fail"})
    assert (*ended(job), again(job).result) == (JobStatus.FAILED, "budget_exhausted", "half of it")
    assert not Approval.objects.exists()


def test_a_fallback_that_is_over_a_cap_takes_no_retry_of_the_first_model_away(
    provider: FakeOpenAI, settings: Any
) -> None:
    job = too_dear(provider, settings, openai.error(503), {"on_budget_exhausted": "fail", "max_task_retries": 1})
    assert (job.status, job.waiting_for) == (JobStatus.RUNNING, "retry")
    provider.queue(openai.error(503))
    let_time_pass(job)
    work()
    assert ended(job) == (JobStatus.FAILED, "budget_exhausted")


# --- Crashes ---------------------------------------------------------------------------------------------------
class _Killed(BaseException):
    """Stands for a worker's death in the middle of its turn."""


def take_up(job: Job) -> None:
    """Its worker has died; another takes the turn up."""
    scripted_models.crash(job)
    work()


def test_who_takes_it_up_before_anything_was_asked_asks_once(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hosted()
    work()
    scripted_models.reply(job)
    with monkeypatch.context() as patch:
        patch.setattr(budget_requests, "ask", _dies)
        with pytest.raises(_Killed):
            work()
    assert not Approval.objects.exists()
    take_up(job)
    assert again(job).waiting_for == "approval"
    assert len([text for text in said(job) if "May I have" in text]) == 1


def test_who_takes_it_up_after_it_was_written_down_says_it_once(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hosted()
    work()
    scripted_models.reply(job)
    with monkeypatch.context() as patch:
        patch.setattr(loop.outcomes, "settlement", _dies)
        with pytest.raises(_Killed):
            work()
    approval = asked(job)
    take_up(job)
    assert asked(job) == approval
    assert len([text for text in said(job) if "May I have" in text]) == 1
    assert OutboundMessage.objects.filter(pk=approval.message_key).count() == 1


@pytest.mark.parametrize("decision", ["approve", "deny"])
def test_who_takes_it_up_after_the_decision_finds_it_and_asks_nothing(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """Killed on taking the answer in, and again when all of the turn was done but its end."""
    job = parked()
    decide(job, decision)
    with monkeypatch.context() as patch:
        patch.setattr(loop.outcomes, "settlement", _dies)
        with pytest.raises(_Killed):
            work()
    take_up(job)
    assert Approval.objects.filter(job=job).count() == 1
    if decision == "approve":
        assert again(job).waiting_for == "reply"
        assert len(provider.requests) == 2, "what came of the call is not paid for a second time"
        assert reservations.limits.granted("acme", job.pk) == {"max_tokens": 6_000}
    else:
        assert ended(job) == (JobStatus.FAILED, "budget_exhausted")


def test_who_takes_it_up_between_the_approval_and_the_call_makes_the_call(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = parked()
    decide(job)
    with monkeypatch.context() as patch:
        patch.setattr(reservations, "set_aside", _dies)
        with pytest.raises(_Killed):
            work()
    take_up(job)
    assert again(job).waiting_for == "reply"
    assert Approval.objects.filter(job=job).count() == 1
    assert len(provider.requests) == 2


def test_waking_a_moment_too_soon_asks_nothing_twice(provider: FakeOpenAI) -> None:
    job = parked()
    let_time_pass(job)
    work()
    assert again(job).waiting_for == "approval"
    assert len([text for text in said(job) if "May I have" in text]) == 1


def _dies(*args: Any, **options: Any) -> None:
    raise _Killed


# --- Other ways on ---------------------------------------------------------------------------------------------
def test_a_canceled_job_has_nothing_left_to_approve(provider: FakeOpenAI) -> None:
    job = parked()
    approval = asked(job)
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    assert Approval.objects.get(pk=approval.pk).status == "withdrawn"
    with pytest.raises(Conflict):
        decisions.decide("acme", approval.pk, "approve", by=Person("slack", "U0BOSS"), actor=rows.TESTER)
    assert reservations.limits.granted("acme", job.pk) == {}


def test_a_retry_after_a_denial_asks_afresh_and_keeps_what_was_granted(provider: FakeOpenAI) -> None:
    job = parked()
    decide(job)
    work()
    second_turn(job, "Fine, still")
    decide(job, "deny")
    work()
    assert ended(job) == (JobStatus.FAILED, "budget_exhausted")
    once_more.retry("acme", job.pk, actor=rows.TESTER)
    work()
    assert asked(job).arguments["limit"] == 12_000
    decide(job)
    work()
    assert again(job).waiting_for == "reply"


def test_a_replay_has_the_cap_alone_and_may_take_over_what_was_paid_for(provider: FakeOpenAI) -> None:
    provider.queue(says("First", tokens=(5_000, 30)))
    job = parked()
    decide(job)
    work()
    with pytest.raises(Invalid, match="1 steps of the job's first turn"):
        once_more.replay("acme", job.pk, once_more.Changes(from_step=3), actor=rows.TESTER)
    rows.job_type(runner="conversation")
    made = once_more.replay("acme", job.pk, once_more.Changes(from_step=2), actor=rows.TESTER)
    assert made.config["on_budget_exhausted"] == "approve"
    assert reservations.limits.granted("acme", made.pk) == {}
    requests = len(provider.requests)
    work()
    assert again(made).waiting_for == "reply"
    assert said(made) == ["First"]
    assert len(provider.requests) == requests


def test_a_call_that_was_not_made_is_no_step_that_a_replay_may_use(provider: FakeOpenAI) -> None:
    job = hosted({"max_tokens": 300})
    work()
    assert again(job).waiting_for == "approval"
    assert Step.objects.get(job=job).output is None
    with pytest.raises(Invalid, match="from 1 to 1"):
        once_more.replay("acme", job.pk, once_more.Changes(from_step=2), actor=rows.TESTER)


# --- Races -----------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_no_call_is_ever_over_the_cap_and_what_was_granted(settings: Any) -> None:
    """Twenty threads set aside what they can, while five people approve, each of them another question, and twice."""
    settings.MODEL_PRICES = {}
    settings.REQUIRE_MODEL_PRICE = False
    job = rows.parked(config={"max_tokens": 3_000, **ASKS})
    questions = [rows.budget_approval(job, grants=3_000) for _ in range(5)]
    held: list[Any] = []

    def spend() -> None:
        for _ in range(3):
            with contextlib.suppress(BudgetExhausted):
                held.append(rows.reserved(**_call(job)))

    def approve(approval: Approval) -> None:
        for _ in range(2):
            with contextlib.suppress(Conflict):
                decisions.decide("acme", approval.pk, "approve", by=Person("slack", "U0BOSS"), actor=rows.TESTER)
            Job.objects.filter(pk=job.pk).update(queue_at=None)

    in_threads(*[spend] * 20, *(partial(approve, approval) for approval in questions))
    counter = Budget.objects.get(scope=Scope.JOB)
    assert counter.reserved_tokens == 1_000 * len(held) <= 18_000
    # What the race left, is there now; and then nothing is.
    while len(held) < 18:
        held.append(rows.reserved(**_call(job)))
    with pytest.raises(BudgetExhausted, match="is 18,000, and the 0 that are left"):
        rows.reserved(**_call(job))
    for place in held:
        place.settle(Usage(900, 100))
    assert Budget.objects.get(scope=Scope.JOB).used_tokens == 18_000


def _call(job: Job) -> dict[str, Any]:
    return {
        "org_id": "acme",
        "job_id": job.pk,
        "job_type_key": job.job_type_key,
        "config": job.config,
        "model": MODEL,
        "input_tokens": 900,
        "max_output_tokens": 100,
    }
