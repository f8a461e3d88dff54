"""Repairs answers of providers and gateways before pydantic-ai validates them.

Wrong counts, lone surrogates and missing ids are no reason to lose an answer that was paid for. OpenAI's and
Anthropic's packages hand over an answer as it came; Google's validates it at once, so its bytes are repaired.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from infra.egress import async_client
from infra.storable_text import storable

# The counts that are read; everything else of a usage is dropped, whatever its form. Required ones come first.
_OF_OPENAI = {"prompt_tokens": True, "completion_tokens": True}
_OF_OPENAI_INPUT = {"cached_tokens": False}
_OF_ANTHROPIC = {
    "input_tokens": True,
    "output_tokens": True,
    "cache_read_input_tokens": False,
    "cache_creation_input_tokens": False,
}
_OF_GOOGLE = {
    "promptTokenCount": True,
    "candidatesTokenCount": False,
    "totalTokenCount": False,
    "cachedContentTokenCount": False,
    "thoughtsTokenCount": False,
    "toolUsePromptTokenCount": False,
}


def mended(response: Any) -> Any:
    """An answer of OpenAI's or Anthropic's package, repaired for pydantic-ai."""
    given = storable(response.model_dump(warnings=False, exclude_unset=True))
    if given.get("choices") == []:
        given["choices"] = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None}}]
    for choice in given.get("choices") or ():
        for call in (choice.get("message") or {}).get("tool_calls") or ():
            _mend_call(call)
    if "choices" in given:
        given["usage"] = _openai_usage(given.get("usage"))
    else:
        given["usage"] = _counts(given.get("usage"), _OF_ANTHROPIC) or {"input_tokens": 0, "output_tokens": 0}
    return type(response).construct(**given)


async def mend_google(response: async_client.Response) -> None:
    """A hook of an HTTP client: replaces the usage of Google's answers by counts that its package accepts."""
    if response.status_code == 200 and isinstance(response.stream, async_client.ByteStream):
        response.stream = _GoogleAnswer(response.stream)


class _GoogleAnswer(async_client.ByteStream):
    def __init__(self, stream: async_client.ByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = b"".join([chunk async for chunk in self._stream])
        try:
            given = json.loads(body)
            if isinstance(given, dict) and "usageMetadata" in given:
                given["usageMetadata"] = _counts(given["usageMetadata"], _OF_GOOGLE)
                body = json.dumps(given).encode()
        except (ValueError, RecursionError):
            pass  # the package says what it cannot read
        yield body

    async def aclose(self) -> None:
        await self._stream.aclose()


def _mend_call(call: dict[str, Any]) -> None:
    """Gateways omit ids and types of calls, and send arguments as an object instead of text."""
    call["id"] = call.get("id") or ""
    call["type"] = call.get("type") or "function"
    function = call.get("function")
    if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {})


def _openai_usage(stated: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = _counts(stated, _OF_OPENAI)
    if found is None:
        return None
    details = _counts(stated.get("prompt_tokens_details"), _OF_OPENAI_INPUT)
    return {**found, "total_tokens": sum(found.values())} | ({"prompt_tokens_details": details} if details else {})


def _counts(stated: Any, names: Mapping[str, bool]) -> dict[str, int] | None:
    """These counts as whole numbers; None if a required one is missing or is no count."""
    found: dict[str, int] = {}
    for name, is_required in names.items():
        try:
            count = int(float(stated[name]))
        except (LookupError, TypeError, ValueError, OverflowError):
            count = -1
        if count >= 0:
            found[name] = count
        elif is_required:
            return None
    return found
