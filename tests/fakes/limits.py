"""Limits of other people's servers, each with its source. The fakes refuse what lies above; our own limits lie below.

`tests/fakes/test_limits.py` compares our limits with these. A number that is only known from error messages has the
report of such a message as its source.
"""

import re
from typing import NamedTuple

_GITHUB = "https://github.com"


class Limit(NamedTuple):
    most: int
    source: str


class Pattern(NamedTuple):
    pattern: re.Pattern[str]
    source: str

    def takes(self, text: object) -> bool:
        return isinstance(text, str) and self.pattern.fullmatch(text) is not None


# --- OpenAI: chat completions ----------------------------------------------------------------------------------
OPENAI_TOOLS = Limit(128, f"{_GITHUB}/musistudio/claude-code-router/issues/686")
OPENAI_TOOL_NAME = Pattern(
    re.compile(r"[a-zA-Z0-9_-]{1,64}"), "https://platform.openai.com/docs/api-reference/chat/create"
)
OPENAI_DESCRIPTION = Limit(1_024, f"{_GITHUB}/getsentry/sentry-mcp/issues/106")
OPENAI_CALLS = Limit(128, f"{_GITHUB}/openai/openai-dotnet/issues/317")
OPENAI_CALL_ID = Limit(40, f"{_GITHUB}/vercel/ai/issues/5171")
# A call's result has to follow it, and nothing else may.
OPENAI_ORDER = "https://platform.openai.com/docs/guides/function-calling"

# --- Anthropic: messages ---------------------------------------------------------------------------------------
ANTHROPIC_TOOL_NAME = Pattern(re.compile(r"[a-zA-Z0-9_-]{1,128}"), f"{_GITHUB}/home-assistant/core/issues/147760")
ANTHROPIC_PROPERTY = Pattern(re.compile(r"[a-zA-Z0-9_.-]{1,64}"), f"{_GITHUB}/n8n-io/n8n/issues/30590")
ANTHROPIC_CALL_ID = Pattern(re.compile(r"[a-zA-Z0-9_-]+"), "https://docs.anthropic.com/en/api/messages")
ANTHROPIC_NOT_AT_THE_TOP = (("oneOf", "allOf", "anyOf"), f"{_GITHUB}/anthropics/claude-code/issues/40075")
ANTHROPIC_BLANK_TEXT = f"{_GITHUB}/anthropics/claude-code/issues/23369"

# --- Google: generateContent -----------------------------------------------------------------------------------
GOOGLE_TOOL_NAME = Pattern(re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}"), f"{_GITHUB}/kaitranntt/ccs/issues/25")

# --- MCP: streamable HTTP --------------------------------------------------------------------------------------
MCP_ACCEPT = (
    ("application/json", "text/event-stream"),
    "https://modelcontextprotocol.io/specification/2025-06-18/basic/transports#sending-messages-to-the-server",
)
MCP_SESSION = "https://modelcontextprotocol.io/specification/2025-06-18/basic/transports#session-management"

# --- Slack -----------------------------------------------------------------------------------------------------
_BLOCKS = "https://docs.slack.dev/reference/block-kit"
SLACK_TEXT_KEPT = Limit(40_000, "https://docs.slack.dev/changelog/2018-truncating-really-long-messages")
SLACK_TEXT_OF_UPDATE = Limit(4_000, "https://docs.slack.dev/reference/methods/chat.update")
SLACK_BLOCKS = Limit(50, f"{_BLOCKS}/blocks")
SLACK_CHARACTERS_OF_BLOCKS = Limit(13_000, f"{_GITHUB}/slackapi/bolt-js/issues/2509")
SLACK_BLOCK_ID = Limit(255, f"{_BLOCKS}/blocks")
SLACK_SECTION = Limit(3_000, f"{_BLOCKS}/blocks/section-block")
SLACK_CONTEXT = Limit(10, f"{_BLOCKS}/blocks/context-block")
SLACK_ACTIONS = Limit(25, f"{_BLOCKS}/blocks/actions-block")
SLACK_BUTTON = Limit(75, f"{_BLOCKS}/block-elements/button-element")
SLACK_BUTTON_VALUE = Limit(2_000, f"{_BLOCKS}/block-elements/button-element")
SLACK_ACTION_ID = Limit(255, f"{_BLOCKS}/block-elements/button-element")
SLACK_VIEW_TITLE = Limit(24, "https://docs.slack.dev/reference/views/modal-views")
SLACK_VIEW_METADATA = Limit(3_000, "https://docs.slack.dev/reference/views/modal-views")
SLACK_VIEW_CALLBACK = Limit(255, "https://docs.slack.dev/reference/views/modal-views")
SLACK_VIEW_BLOCKS = Limit(100, "https://docs.slack.dev/reference/views/modal-views")
SLACK_LABEL = Limit(2_000, f"{_BLOCKS}/blocks/input-block")
SLACK_INPUT = Limit(3_000, f"{_BLOCKS}/block-elements/plain-text-input-element")
