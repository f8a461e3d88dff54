"""The bound on what a request can be: never below what is really sent, whatever is in it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agent_jobs import llm
from agent_jobs.llm import token_bounds
from agent_jobs.llm.hosted import HostedModel
from tests.fakes.openai import FakeOpenAI

TURN = llm.Turn(instructions="Be kind.", goal="Ask Ann for her plans.")
TOOL = llm.Tool(
    "weather", "Tells the weather. " * 30, {"type": "object", "properties": {"city": {"enum": ["Ulm", "Zürich"]}}}
)
CALL = llm.ToolCall("call_1", "weather", {"city": "Zürich", "note": '"quoted"\n' * 40})
STEP = llm.ModelStep((CALL, replace(CALL, id="call_2")), {"call_1": "☔" * 90})
SAID = 'Grüße 👋🏽 "so" \\ \n\t' * 20
SCHEMA = {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(60)}}
TURNS = {
    "nothing said yet": TURN,
    "nothing at all": llm.Turn("", ""),
    "long instructions": replace(TURN, instructions="Sei freundlich! 💚 " * 500),
    "people and the agent": replace(TURN, lines=(llm.Line("agent", SAID, False), llm.Line("Änne", SAID, True)) * 20),
    "many short lines": replace(TURN, lines=tuple(llm.Line("A", "?", True) for _ in range(500))),
    "a follow-up": replace(TURN, is_follow_up=True, follow_up=2, max_follow_ups=3),
    "tools": replace(TURN, tools=tuple(replace(TOOL, name=f"weather_{n}") for n in range(10))),
    "steps": replace(TURN, tools=(TOOL,), steps=(STEP,) * 9),
    "a result by schema": replace(TURN, result_schema=SCHEMA, steps=(llm.ModelStep(note="It has no field_3. " * 9),)),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNS)
def test_what_is_sent_is_never_more_than_was_said(provider: FakeOpenAI, name: str) -> None:
    """The texts of a request that a model gets to see: contents, calls and tools, each with room for its role."""
    access = llm.Access(api_key="k", base_url=provider.base_url, timeout_seconds=60, allow_private=True)
    HostedModel("openai", "gpt-fake").answer(TURNS[name], access)
    (request,) = provider.requests
    seen = [_text(message.get("content")) for message in request["messages"]]
    calls = [call for message in request["messages"] for call in message.get("tool_calls") or ()]
    seen += [call["id"] + call["function"]["name"] + call["function"]["arguments"] for call in calls]
    seen += [_json(tool["function"]) for tool in request["tools"]]
    sent = sum(len(text.encode()) for text in seen)
    roles_and_tools_of_the_provider = 10 * (len(request["messages"]) + len(calls)) + 500
    assert sent + roles_and_tools_of_the_provider <= token_bounds.request_bytes(TURNS[name])


def test_the_bound_is_not_far_above_the_texts() -> None:
    said = "A sentence of some length, as people write them. " * 100
    assert token_bounds.request_bytes(replace(TURN, goal=said)) < len(said) + 4_096


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
