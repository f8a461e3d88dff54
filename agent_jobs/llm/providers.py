"""Creates pydantic-ai models on the providers' own packages, once for each name, address and key.

All use one guarded client (`infra.egress.async_client`), so that connections are reused. Only the turn's own key is
sent.
"""

import importlib
import json
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic_ai.models import Model

from agent_jobs import llm
from agent_jobs.llm.base import Access
from infra.egress import async_client
from infra.egress.addresses import Rules
from infra.storable_text import storable

MAX_ANSWER_BYTES = 10 * 1024 * 1024
# Environment variables of the providers' packages. They would send the operator's values to an organisation's address,
# or log requests.
_READ_BY_SDKS = (
    *("OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_LOG"),
    *("ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_LOG"),
)
# The smallest valid answer of each provider, for `offline`.
_ANSWERS: dict[str, dict[str, Any]] = {
    "openai": {
        "id": "none",
        "object": "chat.completion",
        "created": 0,
        "model": "none",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    "anthropic": {
        "id": "none",
        "type": "message",
        "role": "assistant",
        "model": "none",
        "content": [{"type": "text", "text": "."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "google": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "."}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    },
}
_making = threading.Lock()


def model(provider: str, name: str, access: Access) -> Model:
    rules = Rules(ports=access.ports, allow_private=access.allow_private)
    with _making:  # many turns begin at once, but only one may make it
        return _model(provider, name, access.api_key, access.base_url, rules)


def offline(provider: str) -> Model:
    """A model that answers one word, and calls nobody."""
    return _made(provider, "offline", "none", "", async_client.canned(json.dumps(_ANSWERS[provider]).encode()))


def read(provider: str) -> None:
    """Import the modules that create a provider's model, and no others."""
    for variable in _READ_BY_SDKS:
        os.environ.pop(variable, None)
    importlib.import_module(provider if provider != "google" else "google.genai")
    importlib.import_module(f"pydantic_ai.models.{provider}")
    importlib.import_module(f"pydantic_ai.providers.{provider}")


@lru_cache(maxsize=256)
def _model(provider: str, name: str, api_key: str, base_url: str, rules: Rules) -> Model:
    return _made(provider, name, api_key, base_url, _client(rules))


@lru_cache(maxsize=8)
def _client(rules: Rules) -> async_client.Client:
    """One client for all providers and keys: these come with each request."""
    return async_client.client(rules, max_bytes=MAX_ANSWER_BYTES)


def _mended(response: Any) -> Any:
    """An answer of OpenAI's or Anthropic's package, repaired for pydantic-ai.

    Replaces lone surrogates, and drops an invalid usage: a gateway's wrong counts are no reason to lose an answer.
    """
    given = storable(response.model_dump(warnings=False, exclude_unset=True))
    for choice in given.get("choices") or ():
        for call in (choice.get("message") or {}).get("tool_calls") or ():
            _mend_call(call)
    counts = [*_TOKENS_OF_OPENAI, "total_tokens"] if "choices" in given else _TOKENS_OF_ANTHROPIC
    given["usage"] = _usage(given.get("usage"), counts)
    if given["usage"] is None and "choices" not in given:
        given["usage"] = dict.fromkeys(counts, 0)
    return type(response).construct(**given)


def _mend_call(call: dict[str, Any]) -> None:
    """Gateways omit ids and types of calls, and send arguments as an object instead of text."""
    call["id"] = call.get("id") or ""
    call["type"] = call.get("type") or "function"
    function = call.get("function")
    if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {})


_TOKENS_OF_OPENAI = ("prompt_tokens", "completion_tokens")
_TOKENS_OF_ANTHROPIC = ("input_tokens", "output_tokens")


def _usage(given: Any, counts: Sequence[str]) -> dict[str, Any] | None:
    """The usage with whole numbers, or None. A repaired usage keeps only these counts."""
    stated: dict[str, Any] = given if isinstance(given, dict) else {}
    if all(type(stated.get(name)) is int for name in counts):
        return stated
    try:
        tokens = {name: int(float(stated[name])) for name in counts if name != "total_tokens"}
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return {**tokens, "total_tokens": sum(tokens.values())} if "total_tokens" in counts else tokens


def _made(provider: str, name: str, api_key: str, base_url: str, client: async_client.Client) -> Model:
    read(provider)
    given: dict[str, Any] = {
        "api_key": api_key,
        "base_url": base_url or llm.PROVIDERS[provider],
        "http_client": client,
    }
    # We retry ourselves. Set per request, this would create a new client each time.
    if provider == "openai":
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        class Completions(OpenAIChatModel):
            def _validate_completion(self, response: Any) -> Any:
                return super()._validate_completion(_mended(response))

        return Completions(name, provider=OpenAIProvider(openai_client=AsyncOpenAI(**given, max_retries=0)))
    if provider == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        class Messages(AnthropicModel):
            def _process_response(self, response: Any, *given: Any, **named: Any) -> Any:
                return super()._process_response(_mended(response), *given, **named)

        return Messages(name, provider=AnthropicProvider(anthropic_client=AsyncAnthropic(**given, max_retries=0)))
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return GoogleModel(name, provider=GoogleProvider(**given))
