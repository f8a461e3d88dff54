"""The seam to language models: a turn goes in, a reply comes out. Knows neither jobs nor channels.

`scripted` is a double that ships: it thinks nothing and costs nothing, and every profile that names no other model runs
on it. Hosted models are named `provider:model` (`openai:gpt-5-mini`, `anthropic:claude-…`, `google:gemini-…`); what
speaks to them takes a second or more to read, so a worker reads it when it has a quiet second, where a profile names
one (`preload`), and else with the first call.

A package rather than one file, for the shapes, the double and the providers change for different reasons.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from agent_jobs.errors import BudgetExhausted, PermanentError, RetryableError, RunError
from agent_jobs.llm import reading
from agent_jobs.llm.base import Access, Line, Model, OnStart, Reply, Route, Slip, Step, Tool, ToolCall, Turn, Usage
from agent_jobs.llm.scripted import ScriptedModel

__all__ = [
    "MODELS",
    "PROVIDERS",
    "Access",
    "Line",
    "Model",
    "OnStart",
    "Reply",
    "Route",
    "Slip",
    "Step",
    "Tool",
    "ToolCall",
    "Turn",
    "Usage",
    "answer",
    "ask",
    "check",
    "get",
    "preload",
    "provider_of",
]

MODELS: dict[str, Model] = {"scripted": ScriptedModel()}
# Providers, and the address of each.
PROVIDERS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
CANCELED = "model_call_canceled"
_HOSTED = re.compile(r"([a-z]+):([A-Za-z0-9][A-Za-z0-9._:/@-]{0,119})")


def provider_of(name: str) -> str:
    """`"openai"` of `"openai:gpt-5-mini"`; empty for the models that ship."""
    hosted = _HOSTED.fullmatch(name)
    return hosted[1] if hosted and name not in MODELS else ""


def check(name: str) -> str:
    """What is wrong with the name of a model; empty if nothing is."""
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


def preload(providers: Iterable[str]) -> None:
    """Read what speaks to these providers, which takes a second or more of CPU: before the first turn, not in it."""
    if wanted := [provider for provider in providers if provider in PROVIDERS]:
        from agent_jobs.llm import hosted

        hosted.preload(wanted)


def answer(route: Route, turn: Turn, on_start: OnStart | None = None) -> Reply:
    """Of this very model, as the database can hold it."""
    return reading.sound(get(route.model).answer(turn, route.access, on_start))


Call = Callable[[Route, Turn, OnStart | None], Reply]


def ask(routes: Sequence[Route], turn: Turn, on_start: OnStart | None = None, call: Call = answer) -> Reply:
    """The answer of the first model, or of the next one where that cannot answer now. The reply says whose it is.

    `call` makes each single call, for who has something to do around it.

    Raises what the first one raised; where they differ in that, as RetryableError, for one of them may answer later.
    Where it was a cap that kept the next one from being asked, that is its code, and the cap is told of.
    """
    first, *others = routes
    if first.unreachable:
        raise PermanentError(first.unreachable, code="model_key_missing")
    try:
        return call(first, turn, on_start)
    except RunError as error:
        # Another model may answer where this one's account is empty. Any other permanent error would be the same again
        # (a refusal, a request that does not hold), or somebody has to look (a wrong key).
        may_help = isinstance(error, RetryableError) or error.code == "model_quota_exceeded"
        if error.code == CANCELED or not may_help:
            raise
        if not others:
            raise
        failed = error
    try:
        return ask(others, turn, on_start, call)
    except RunError as error:
        if error.code == CANCELED:
            raise
        raise _both(failed, error) from error


def _both(failed: RunError, fallback: RunError) -> RunError:
    """One error of two: what the first was, and when the sooner of them is worth another try.

    A cap comes before what the first was: people can do something about it, and may be asked to.
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
