"""The interface to language models: takes a turn, returns a reply. Knows neither jobs nor channels.

`scripted` is a test double that ships with the service: it follows a script and costs nothing. Every profile that names
no other model uses it. Hosted models are named `provider:model` (`openai:gpt-5-mini`, `anthropic:claude-…`,
`google:gemini-…`). The first call of a provider in a process imports its package, which takes a second or more.

This is a package, because the shapes, the double and the providers change for different reasons.
"""

import re
from collections.abc import Callable, Sequence

from agent_jobs.errors import BudgetExhausted, BudgetReserved, PermanentError, RetryableError, RunError
from agent_jobs.llm import answer_parsing
from agent_jobs.llm.base import Access, Line, Model, ModelStep, OnStart, Reply, Route, Slip, Tool, ToolCall, Turn, Usage
from agent_jobs.llm.scripted import ScriptedModel

__all__ = [
    "MODELS",
    "PROVIDERS",
    "Access",
    "Line",
    "Model",
    "ModelStep",
    "OnStart",
    "Reply",
    "Route",
    "Slip",
    "Tool",
    "ToolCall",
    "Turn",
    "Usage",
    "answer",
    "ask",
    "check",
    "get",
    "provider_of",
]

MODELS: dict[str, Model] = {"scripted": ScriptedModel()}
# Providers and their addresses.
PROVIDERS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
CANCELED = "model_call_canceled"
_HOSTED = re.compile(r"([a-z]+):([A-Za-z0-9][A-Za-z0-9._:/@-]{0,119})")


def provider_of(name: str) -> str:
    """`"openai"` for `"openai:gpt-5-mini"`; empty for models that ship with the service."""
    hosted = _HOSTED.fullmatch(name)
    return hosted[1] if hosted and name not in MODELS else ""


def check(name: str) -> str:
    """A complaint about the name of a model; empty if it is valid."""
    if name in MODELS or provider_of(name) in PROVIDERS:
        return ""
    return f"must be {', '.join(MODELS)}, or a hosted model as provider:model; providers are {', '.join(PROVIDERS)}"


def get(name: str) -> Model:
    if name in MODELS:
        return MODELS[name]
    if complaint := check(name):
        raise PermanentError(f"there is no model {name!r}: it {complaint}", code="model_unknown")
    from agent_jobs.llm.hosted import HostedModel

    return HostedModel(provider_of(name), name.partition(":")[2])


def answer(route: Route, turn: Turn, on_start: OnStart | None = None) -> Reply:
    """Call exactly this route, without fallback. The reply is safe to store in the database."""
    return answer_parsing.sound(get(route.model).answer(turn, route.access, on_start))


Call = Callable[[Route, Turn, OnStart | None], Reply]


def ask(routes: Sequence[Route], turn: Turn, on_start: OnStart | None = None, call: Call = answer) -> Reply:
    """Call the first model, and the next one if that cannot answer now. `Reply.model` says which one answered.

    `call` makes each single call; a caller may wrap `answer`.

    Raises the first model's error. If a retry of either may succeed, that is a RetryableError. If a cap prevented the
    fallback's call, the error has the cap's code and context.
    """
    first, *others = routes
    if first.unreachable:
        raise PermanentError(first.unreachable, code="model_key_missing")
    try:
        return call(first, turn, on_start)
    except RunError as error:
        # Another model may answer if this one's account is empty. Other permanent errors would repeat (a refusal, an
        # invalid request), or need a person (a wrong key).
        may_help = isinstance(error, RetryableError) or error.code == "model_quota_exceeded"
        if error.code in (CANCELED, BudgetReserved.code) or not may_help:
            raise
        if not others:
            raise
        failed = error
    try:
        return ask(others, turn, on_start, call)
    except RunError as error:
        if error.code in (CANCELED, BudgetReserved.code):
            raise
        raise _both(failed, error) from error


def _both(failed: RunError, fallback: RunError) -> RunError:
    """Combine two errors: the first one's code, and the earlier of their retry times.

    A cap's code comes first, because people can raise a cap, and may be asked to.
    """
    message = f"{failed.message}; the fallback: {fallback.message}"
    is_capped = fallback.code == BudgetExhausted.code
    code, context = (fallback.code, fallback.context) if is_capped else (failed.code, {})
    retryable = [error for error in (failed, fallback) if isinstance(error, RetryableError)]
    if not retryable:
        return PermanentError(message, code=code, **context)
    waits = [error.retry_after for error in retryable]
    retry_after = None if None in waits else min(wait for wait in waits if wait is not None)
    return RetryableError(message, code=code, retry_after=retry_after, **context)
