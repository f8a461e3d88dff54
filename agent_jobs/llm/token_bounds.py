"""Estimate of a turn's input tokens: budgets set this aside before the provider has counted.

Providers publish no tokenizer that works offline for all their models, and a request to count would cost a round trip.
So the estimate is one token per BYTES_PER_TOKEN bytes of UTF-8. Measured with the tokenizers of GPT-4, GPT-5, Claude 2
and DeepSeek, prose has 2.4 to 8 bytes per token (Thai 1.7 to 8), code 4, JSON 2 to 2.6; only base64, hexadecimal digits
and emoji have 1.4 to 1.9. Byte tokenizers never make more tokens than bytes. So the input of a call has at most
BYTES_PER_TOKEN times its estimate.

Our frame, the tool that ends a turn, and a provider's markup of roles and tools have fixed allowances here. A test
compares these with real requests.
"""

import json
from collections.abc import Mapping
from typing import Any

from agent_jobs.llm import schema_reduction
from agent_jobs.llm.base import Turn

BYTES_PER_TOKEN = 2
FRAME_BYTES = 3_072
MESSAGE_BYTES = 64


def estimate(turn: Turn) -> int:
    """The tokens of input that budgets set aside for this turn."""
    return -(-request_bytes(turn) // BYTES_PER_TOKEN)


def request_bytes(turn: Turn) -> int:
    """An upper bound of the bytes that a provider turns into tokens."""
    texts = [turn.instructions, turn.goal]
    texts += [_json({"from": line.author, "text": line.text}) if line.is_human else line.text for line in turn.lines]
    for tool in turn.tools:
        shown = schema_reduction.of_tool(tool)
        texts += [_json({"name": shown.name, "description": shown.description, "parameters": shown.parameters})]
    for step in turn.steps:
        texts += [step.text, step.note]
        texts += [_json({"id": call.id, "name": call.name, "arguments": call.arguments}) for call in step.calls]
        texts += [_json({"id": call.id, "name": call.name}) + step.answers.get(call.id, "") for call in step.calls]
    if turn.result_schema is not None:
        texts.append(_json(turn.result_schema))
    return FRAME_BYTES + sum(MESSAGE_BYTES + len(text.encode("utf-8", "replace")) for text in texts)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
