"""Creates pydantic-ai models on the providers' own packages, once for each name, address and key.

They share guarded clients (`infra.egress.async_client`), so that connections are reused. Only the turn's own key is
sent.
"""

import importlib
import os
import threading
from functools import lru_cache
from typing import Any

from pydantic_ai.models import Model

from agent_jobs import llm
from agent_jobs.llm import answer_mending
from agent_jobs.llm.base import Access
from infra.egress import async_client
from infra.egress.addresses import Rules

MAX_ANSWER_BYTES = 10 * 1024 * 1024
# Environment variables of the providers' packages. They would send the operator's values to an organisation's address,
# or log requests.
_READ_BY_SDKS = (
    *("OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_LOG"),
    *("ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_LOG"),
)
_making = threading.Lock()


def model(provider: str, name: str, access: Access) -> Model:
    rules = Rules(ports=access.ports, allow_private=access.allow_private)
    with _making:  # many turns begin at once, but only one may make it
        return _model(provider, name, access.api_key, access.base_url, rules)


def read(provider: str) -> None:
    """Import the modules that create a provider's model, and no others."""
    for variable in _READ_BY_SDKS:
        os.environ.pop(variable, None)
    importlib.import_module(provider if provider != "google" else "google.genai")
    importlib.import_module(f"pydantic_ai.models.{provider}")
    importlib.import_module(f"pydantic_ai.providers.{provider}")


@lru_cache(maxsize=256)
def _model(provider: str, name: str, api_key: str, base_url: str, rules: Rules) -> Model:
    return _made(provider, name, api_key, base_url, _client(rules, is_google=provider == "google"))


@lru_cache(maxsize=8)
def _client(rules: Rules, *, is_google: bool) -> async_client.Client:
    """One client for all models and keys: these come with each request."""
    client = async_client.client(rules, max_bytes=MAX_ANSWER_BYTES)
    if is_google:
        client.event_hooks = {"response": [answer_mending.mend_google]}
    return client


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
                return super()._validate_completion(answer_mending.mended(response))

        return Completions(name, provider=OpenAIProvider(openai_client=AsyncOpenAI(**given, max_retries=0)))
    if provider == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        class Messages(AnthropicModel):
            def _process_response(self, response: Any, *given: Any, **named: Any) -> Any:
                return super()._process_response(answer_mending.mended(response), *given, **named)

        return Messages(name, provider=AnthropicProvider(anthropic_client=AsyncAnthropic(**given, max_retries=0)))
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return GoogleModel(name, provider=GoogleProvider(**given))
