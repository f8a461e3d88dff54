"""The seam to language models: a turn goes in, a reply comes out. Knows neither jobs nor channels.

`scripted` is a double that ships: it thinks nothing and costs nothing, and every profile that names no other model runs
on it. Hosted models are named `provider:model` (`openai:gpt-5-mini`, `anthropic:claude-…`, `google:gemini-…`); what
speaks to them is imported when the first one is asked.

A package rather than one file, for the shapes, the double and the providers change for different reasons.
"""

import re

from agent_jobs.errors import PermanentError
from agent_jobs.llm.base import Access, Line, Model, Reply, Step, Tool, ToolCall, Turn, Usage
from agent_jobs.llm.scripted import ScriptedModel

__all__ = [
    "MODELS",
    "PROVIDERS",
    "Access",
    "Line",
    "Model",
    "Reply",
    "Step",
    "Tool",
    "ToolCall",
    "Turn",
    "Usage",
    "check",
    "get",
    "provider_of",
]

MODELS: dict[str, Model] = {"scripted": ScriptedModel()}
# Providers, and the environment variable that holds the operator's own key for each.
PROVIDERS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GOOGLE_API_KEY"}
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
