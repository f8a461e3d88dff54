"""After some failures of a model another one answers. If neither can, the job is told why."""

from dataclasses import dataclass, field

import pytest

from agent_jobs import llm
from agent_jobs.errors import BudgetExhausted, PermanentError, RetryableError, RunError

TURN = llm.Turn(instructions="", goal="")
BUSY = RetryableError("a answered 429", code="model_rate_limited", retry_after=30)
ROUTES = (llm.Route("a"), llm.Route("b"))


@dataclass
class Answering:
    name: str
    error: RunError | None = None
    asked: list[llm.Access] = field(default_factory=list)

    def answer(self, turn: llm.Turn, access: llm.Access, on_start: llm.OnStart | None = None) -> llm.Reply:
        self.asked.append(access)
        if on_start:
            on_start(lambda: None)
        if self.error:
            raise self.error
        return llm.Reply(text="Hello", model=self.name)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answering]:
    found = {name: Answering(name) for name in "ab"}
    monkeypatch.setattr(llm, "MODELS", found)
    return found


def test_the_first_one_answers_where_it_can(models: dict[str, Answering]) -> None:
    assert llm.ask(ROUTES, TURN).model == "a"
    assert models["b"].asked == []


@pytest.mark.parametrize(
    ("error", "is_asked"),
    [
        (BUSY, True),
        (RetryableError("", code="model_timeout"), True),
        (RetryableError("", code="model_unavailable"), True),
        (RetryableError("", code="model_unreachable"), True),
        (RetryableError("", code="model_answer_invalid"), True),
        (PermanentError("", code="model_quota_exceeded"), True),
        (RetryableError("", code="model_call_canceled"), False),
        (PermanentError("", code="model_refused"), False),
        (PermanentError("", code="model_key_refused"), False),
        (PermanentError("", code="model_key_missing"), False),
        (PermanentError("", code="model_address_refused"), False),
        (PermanentError("", code="model_unknown"), False),
        (PermanentError("", code="model_request_rejected"), False),
        (PermanentError("", code="context_too_long"), False),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_the_fallback_is_asked_where_the_first_one_cannot_answer_now(
    models: dict[str, Answering], error: RunError, is_asked: bool
) -> None:
    models["a"].error = error
    if is_asked:
        assert llm.ask(ROUTES, TURN).model == "b"
    else:
        with pytest.raises(RunError) as failure:
            llm.ask(ROUTES, TURN)
        assert failure.value is error
    assert bool(models["b"].asked) is is_asked


SLOW = RetryableError("b is slow", code="model_timeout")
SOON = RetryableError("b answered 429", code="model_rate_limited", retry_after=5)
EMPTY = PermanentError("a is empty", code="model_quota_exceeded")
CAPPED = BudgetExhausted("max_cost of the job is 1", cap="max_cost", left=0)
WRONG = PermanentError("b refused its key", code="model_key_refused")


@pytest.mark.parametrize(
    ("first", "second", "kind", "code", "retry_after"),
    [
        (BUSY, SOON, RetryableError, "model_rate_limited", 5),
        (BUSY, SLOW, RetryableError, "model_rate_limited", None),
        (BUSY, WRONG, RetryableError, "model_rate_limited", 30),
        (EMPTY, SOON, RetryableError, "model_quota_exceeded", 5),
        (EMPTY, WRONG, PermanentError, "model_quota_exceeded", None),
        (BUSY, CAPPED, RetryableError, "budget_exhausted", 30),
        (EMPTY, CAPPED, PermanentError, "budget_exhausted", None),
    ],
)
def test_where_neither_can_the_first_ones_code_or_the_cap_and_the_sooner_ones_wait_count(
    models: dict[str, Answering],
    first: RunError,
    second: RunError,
    kind: type[RunError],
    code: str,
    retry_after: float | None,
) -> None:
    models["a"].error, models["b"].error = first, second
    with pytest.raises(RunError) as failure:
        llm.ask(ROUTES, TURN)
    assert (type(failure.value), failure.value.code) == (kind, code)
    assert getattr(failure.value, "retry_after", None) == retry_after
    assert failure.value.message == f"{first.message}; the fallback: {second.message}"
    assert failure.value.context == second.context, "what a cap left is what people are asked about"


def test_a_fallback_that_is_given_up_ends_as_given_up(models: dict[str, Answering]) -> None:
    models["a"].error, models["b"].error = BUSY, RetryableError("", code=llm.CANCELED)
    with pytest.raises(RetryableError) as failure:
        llm.ask(ROUTES, TURN)
    assert failure.value.code == llm.CANCELED


def test_each_model_that_is_asked_can_be_given_up(models: dict[str, Answering]) -> None:
    models["a"].error = BUSY
    started: list[object] = []
    llm.ask(ROUTES, TURN, started.append)
    assert len(started) == 2
