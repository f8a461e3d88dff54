"""Upper bound of a turn's tokens: budgets set this aside before anybody has counted.

Byte tokenizers (all providers have such) never make more tokens than there are UTF-8 bytes. So bytes are a bound
without a tokenizer, some four times too high for English. Our frame, the tool that ends a turn, and a provider's markup
of roles and tools have fixed allowances here. A test compares these with real requests.
"""

import json
from collections.abc import Mapping
from typing import Any

from agent_jobs.llm import schema_reduction
from agent_jobs.llm.base import Turn

FRAME_BYTES = 3_072
MESSAGE_BYTES = 64


def request_bytes(turn: Turn) -> int:
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
