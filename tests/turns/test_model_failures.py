"""Every failure of a model, through the worker's loop and over a real socket, and what the job tells."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_jobs.catalog import model_keys
from agent_jobs.models import Activity, Job, Profile
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from channels_integration.models import Channel
from tests import rows
from tests.conversations import QuietKeeper, again, answer, ask, let_time_pass, texts
from tests.fakes import openai
from tests.fakes.openai import FakeOpenAI, completion, says

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider(settings: Any) -> Iterator[FakeOpenAI]:
    """Reached by acme's own key, at an address of acme's."""
    settings.MODEL_KEYS = {}
    Channel.objects.create(org_id="acme", platform="null", code="nowhere")
    rows.org("acme")
    with FakeOpenAI() as fake:
        model_keys.put_key("acme", "openai", key="sk-canary", base_url=fake.base_url, actor=rows.TESTER)
        yield fake


@pytest.fixture
def worker() -> Worker:
    return Worker(QuietKeeper())


def hosted(retries: int = 1, **profile: Any) -> Job:
    defaults = {"name": "Ann", "model": "openai:gpt-fake", "timeout_seconds": 30}
    Profile.objects.create(org_id="acme", key="ann", **{**defaults, **profile})
    return ask(config={"profile_id": "ann", "max_task_retries": retries, "task_retry_interval": 0.01})


FAILURES: list[tuple[str, openai.Answer, str, bool]] = [
    ("429", openai.error(429, "rate_limit_exceeded"), "model_rate_limited", True),
    ("500", openai.error(500), "model_unavailable", True),
    ("time-out", openai.Answer(hold=True), "model_timeout", True),
    ("cut", openai.Answer(body=completion("x" * 5000).body, cut=True), "model_unreachable", True),
    ("garbage", openai.Answer(body=b"<html>"), "model_answer_invalid", True),
    ("401", openai.error(401, "invalid_api_key"), "model_key_refused", False),
    ("404", openai.error(404, "model_not_found"), "model_unknown", False),
    ("400", openai.error(400), "model_request_rejected", False),
    ("quota", openai.error(429, "insufficient_quota", kind="insufficient_quota"), "model_quota_exceeded", False),
    ("redirect", openai.Answer(307, headers={"Location": "/"}), "model_address_refused", False),
]


@pytest.mark.parametrize(
    ("failure", "code", "is_retryable"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
def test_a_failure_is_retried_or_ends_the_job_with_its_code(
    worker: Worker, provider: FakeOpenAI, failure: openai.Answer, code: str, is_retryable: bool
) -> None:
    job = hosted(timeout_seconds=1 if failure.hold else 30)
    provider.queue(failure, failure)
    worker.serve("agents")
    if is_retryable:
        assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "retry")
        let_time_pass(job)
        worker.serve("agents")
    job = again(job)
    assert (job.status, job.error_code, job.failed_attempts) == (JobStatus.FAILED, code, 1 + is_retryable)
    if not failure.hold:  # a busy machine may take longer than that to ask at all
        assert len(provider.requests) == 1 + is_retryable
    assert job.error_message
    assert "sk-canary" not in str(list(Activity.objects.filter(job=job).values_list("note", "input", "output")))
    assert texts(job) == []


def test_a_retry_waits_as_long_as_the_provider_asks(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted()
    provider.queue(openai.error(429, "rate_limit_exceeded", Retry_After="40"))
    worker.serve("agents")
    wake_at = again(job).wake_at
    assert wake_at is not None
    assert 15 < (wake_at - datetime.now(UTC)).total_seconds() <= 90
    let_time_pass(job)
    worker.serve("agents")
    assert (again(job).waiting_for, texts(job)) == ("reply", ["Hello"])


def test_a_conversation_with_a_hosted_model_ends_with_its_result(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted()
    provider.queue(says("Plans?"), says("Thanks!", done=True, result="Ann rests", result_data={"plan": "rest"}))
    worker.serve("agents")
    answer(job, "I rest.")
    worker.serve("agents")
    job = again(job)
    assert (job.status, job.result, job.result_data) == (JobStatus.COMPLETED, "Ann rests", {"plan": "rest"})
    assert set(provider.keys) == {"Bearer sk-canary"}


def test_the_fallback_answers_and_the_job_says_so(worker: Worker, provider: FakeOpenAI) -> None:
    model_keys.put_key("acme", "anthropic", key="sk-other", base_url=provider.base_url, actor=rows.TESTER)
    job = hosted(fallback_model="anthropic:claude-fake")
    provider.queue(openai.error(503), openai.message("Hello from the other one"))
    worker.serve("agents")
    assert (again(job).waiting_for, texts(job)) == ("reply", ["Hello from the other one"])
    assert provider.keys == ["Bearer sk-canary", "Bearer sk-other"]
    called = Activity.objects.get(job=job, code="model.call", status="completed")
    assert "anthropic:claude-fake" in called.note


def test_a_fallback_whose_key_went_away_is_told_of_where_the_model_answers_and_where_it_does_not(
    worker: Worker, provider: FakeOpenAI
) -> None:
    job = hosted(fallback_model="anthropic:claude-fake")
    no_key = "there is no key for anthropic: neither the organization nor the operator has one"
    worker.serve("agents")
    assert Activity.objects.get(job=job, code="model.call").input["without_fallback"] == no_key

    provider.queue(openai.error(503), openai.error(503))
    answer(job)
    worker.serve("agents")
    let_time_pass(job)
    worker.serve("agents")
    job = again(job)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "model_unavailable")
    assert job.error_message.endswith(f"; the fallback: {no_key}")
    assert provider.keys == ["Bearer sk-canary"] * 3


def test_a_key_that_went_away_ends_the_job_with_a_sentence(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted()
    model_keys.remove_key("acme", "openai", actor=rows.TESTER)
    worker.serve("agents")
    job = again(job)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "model_key_missing")
    assert job.error_message == "there is no key for openai: neither the organization nor the operator has one"
    assert provider.requests == []


def test_a_name_that_leads_inside_ends_the_job_and_nothing_is_asked(
    worker: Worker, provider: FakeOpenAI, settings: Any
) -> None:
    job = hosted()
    settings.ALLOW_PRIVATE_ADDRESSES = False
    worker.serve("agents")
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "model_address_refused")
    assert provider.requests == []


def test_a_conversation_that_is_too_long_is_cut_and_the_job_says_so(worker: Worker, provider: FakeOpenAI) -> None:
    job = hosted(context_tokens=1_000)
    worker.serve("agents")
    for number in range(40):
        answer(job, f"{number} ".ljust(400, "x"), event_id=f"e{number}")
    worker.serve("agents")
    sent = str(provider.requests[-1]["messages"])
    assert "39 xxx" in sent
    assert "20 xxx" not in sent
    left_out = Activity.objects.filter(job=job, code="model.call").latest("created_at", "id").input["left_out"]
    assert f"[… {left_out} earlier messages left out …]" in sent
    assert left_out > 20
