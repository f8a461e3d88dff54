"""Our own limits lie below those of the servers that we speak to (`tests.fakes.limits`)."""

from dataclasses import replace

import pytest

from agent_jobs import llm, tools
from agent_jobs.errors import PermanentError
from agent_jobs.llm import answer_parsing, schema_reduction
from agent_jobs.llm.hosted import HostedModel
from agent_jobs.tools import declarations, mcp_listing
from channels_integration.messages import MOST_FORM_TEXT
from channels_integration.platforms import slack_blocks, slack_forms, slack_text
from tests.fakes import limits, openai
from tests.fakes.openai import FakeOpenAI

OURS_AND_THEIRS = {
    "tools of an agent, with the one that ends the turn": (tools.MAX_OFFERED + 1, limits.OPENAI_TOOLS),
    "tools of a server": (mcp_listing.MAX_TOOLS, limits.OPENAI_TOOLS),
    "the description of a tool": (declarations.MAX_DESCRIPTION, limits.OPENAI_DESCRIPTION),
    "a description with rules": (schema_reduction.MAX_DESCRIPTION, limits.OPENAI_DESCRIPTION),
    "calls of an answer": (answer_parsing.MAX_CALLS, limits.OPENAI_CALLS),
    "a message": (slack_text.MOST_CHARACTERS, limits.SLACK_TEXT_OF_UPDATE),
    "the blocks of a message": (slack_blocks._MOST_OF_ALL, limits.SLACK_CHARACTERS_OF_BLOCKS),
    "a section": (slack_blocks.MOST_SECTION, limits.SLACK_SECTION),
    "buttons": (slack_blocks._MOST_BUTTONS, limits.SLACK_ACTIONS),
    "a button's label": (slack_blocks._MOST_LABEL, limits.SLACK_BUTTON),
    "a button's value": (slack_blocks._MOST_VALUE, limits.SLACK_BUTTON_VALUE),
    "a form's title": (slack_forms._MOST_TITLE, limits.SLACK_VIEW_TITLE),
    "a form's notice": (slack_forms._MOST_NOTICE, limits.SLACK_SECTION),
    "a form's label": (slack_forms._MOST_LABEL, limits.SLACK_LABEL),
    "a form's text": (MOST_FORM_TEXT, limits.SLACK_INPUT),
}


@pytest.mark.parametrize("name", OURS_AND_THEIRS)
def test_our_limit_is_not_above_theirs(name: str) -> None:
    ours, theirs = OURS_AND_THEIRS[name]
    assert ours <= theirs.most, theirs.source


@pytest.mark.parametrize("name", ["a", "crm__find", "x" * 64, "a-b_c"])
def test_a_name_of_a_tool_that_we_take_is_taken_by_every_provider(name: str) -> None:
    assert mcp_listing._NAME.fullmatch(name)
    for theirs in (limits.OPENAI_TOOL_NAME, limits.ANTHROPIC_TOOL_NAME, limits.GOOGLE_TOOL_NAME):
        assert theirs.takes(name), theirs.source


@pytest.mark.parametrize("name", ["a", "_a", "a.b-c", "x" * 64])
def test_a_name_of_an_argument_that_we_take_is_taken_by_every_provider(name: str) -> None:
    assert declarations.ARGUMENT.fullmatch(name)
    assert limits.ANTHROPIC_PROPERTY.takes(name)


# The most that a turn may hold at once: tools, long descriptions with rules, odd ids, blank words, silent calls.
ROUTES = {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"properties": {"$b": {}}}] * 200}
TOOLS = tuple(llm.Tool(f"server__{'t' * 50}{number:03}", "Does. " * 166, ROUTES) for number in range(tools.MAX_OFFERED))
CALLS = tuple(llm.ToolCall(f"{'c' * 37}{number:03}", TOOLS[number].name, {"a": number}) for number in range(32))
FULL = llm.Turn(
    instructions="Be kind.",
    goal="Ask Ann.",
    tools=TOOLS,
    lines=(llm.Line("agent", " \n", False), llm.Line("Ann", "", True), llm.Line("agent", "Hi", False)),
    steps=(
        llm.ModelStep(CALLS, {call.id: "" for call in CALLS}),
        llm.ModelStep(note="That was nothing."),
        llm.ModelStep(CALLS[:1], {CALLS[0].id: "7"}, text=" "),
    ),
)


@pytest.mark.parametrize("name", llm.PROVIDERS)
def test_a_provider_takes_a_turn_that_uses_all_of_our_limits(name: str) -> None:
    speak = {"openai": openai.completion, "anthropic": openai.message, "google": openai.content}[name]
    with FakeOpenAI(lambda request: speak("Hello")) as provider:  # type: ignore[operator]
        access = llm.Access(api_key="k", base_url=provider.base_url, timeout_seconds=60, allow_private=True)
        assert HostedModel(name, "some-model").answer(FULL, access).text == "Hello"
        assert (len(provider.requests), provider.refused) == (1, [])


def test_the_double_refuses_what_the_provider_refuses() -> None:
    tool = replace(TOOLS[0], name="has space")
    with FakeOpenAI() as provider:
        access = llm.Access(api_key="k", base_url=provider.base_url, timeout_seconds=60, allow_private=True)
        with pytest.raises(PermanentError) as error:
            HostedModel("openai", "some-model").answer(replace(FULL, tools=(tool,), steps=()), access)
    assert error.value.code == "model_request_rejected"
    assert "tools[0].function.name" in provider.refused[0]
