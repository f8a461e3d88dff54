"""Checks a request as model providers do, and returns the messages of their errors; none if they take it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.fakes import limits

Request = Mapping[str, Any]


def openai(request: Request) -> str:
    return next(_openai(request), "")


def anthropic(request: Request) -> str:
    return next(_anthropic(request), "")


def google(request: Request) -> str:
    return next(_google(request), "")


# The rules of a provider by a part of its addresses.
BY_PATH: Mapping[str, Callable[[Request], str]] = {
    "/chat/completions": openai,
    "/v1/messages": anthropic,
    ":generateContent": google,
}


def refusal(path: str, request: Request) -> str:
    return next((rule(request) for part, rule in BY_PATH.items() if part in path), "")


def _openai(request: Request) -> Iterator[str]:
    tools = request.get("tools", [])
    if len(tools) > limits.OPENAI_TOOLS.most:
        yield f"Invalid 'tools': array too long. Expected an array with maximum length {limits.OPENAI_TOOLS.most}"
    for number, tool in enumerate(tools):
        function = tool["function"]
        if not limits.OPENAI_TOOL_NAME.takes(function["name"]):
            yield f"Invalid 'tools[{number}].function.name': string does not match pattern"
        if len(function.get("description") or "") > limits.OPENAI_DESCRIPTION.most:
            yield f"Invalid 'tools[{number}].function.description': string too long"
        if function["parameters"].get("type") != "object":
            yield f"Invalid schema for function '{function['name']}': schema must be of type 'object'"
    awaited: list[str] = []
    for number, message in enumerate(request["messages"]):
        if message["role"] == "tool":
            if message["tool_call_id"] not in awaited:
                yield f"Invalid 'messages[{number}]': a tool message must follow the call that it answers"
            awaited.remove(message["tool_call_id"])
            continue
        if awaited:
            yield f"'tool_calls' must be followed by tool messages; there is none for {awaited[0]}"
        calls = message.get("tool_calls") or []
        if len(calls) > limits.OPENAI_CALLS.most:
            yield f"Invalid 'messages[{number}].tool_calls': array too long"
        awaited = [call["id"] for call in calls]
        if len(set(awaited)) < len(awaited) or any(len(id) > limits.OPENAI_CALL_ID.most for id in awaited):
            yield f"Invalid 'messages[{number}].tool_calls[0].id'"
        if any(not limits.OPENAI_TOOL_NAME.takes(call["function"]["name"]) for call in calls):
            yield f"Invalid 'messages[{number}].tool_calls[0].function.name'"
        if message["role"] == "assistant" and not calls and message.get("content") is None:
            yield f"Invalid value for 'content': expected a string, got null: 'messages[{number}]'"
    if awaited:
        yield f"'tool_calls' must be followed by tool messages; there is none for {awaited[0]}"


def _anthropic(request: Request) -> Iterator[str]:
    forbidden, _ = limits.ANTHROPIC_NOT_AT_THE_TOP
    for number, tool in enumerate(request.get("tools", [])):
        if not limits.ANTHROPIC_TOOL_NAME.takes(tool["name"]):
            yield f"tools.{number}.custom.name: String should match pattern"
        schema = tool["input_schema"]
        if schema.get("type") != "object":
            yield f"tools.{number}.custom.input_schema.type: Input should be 'object'"
        if set(forbidden) & set(schema):
            yield f"tools.{number}.custom.input_schema: does not support oneOf, allOf, or anyOf at the top level"
        if not all(map(limits.ANTHROPIC_PROPERTY.takes, schema.get("properties", {}))):
            yield f"tools.{number}.custom.input_schema.properties: Property keys should match pattern"
    if not request.get("max_tokens"):
        yield "max_tokens: Field required"
    awaited: set[str] = set()
    for number, message in enumerate(request["messages"]):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not blocks:
            yield f"messages.{number}: all messages must have non-empty content"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            yield "messages: text content blocks must contain non-whitespace text"
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if answered != awaited:
            yield f"messages.{number}: `tool_use` ids and `tool_result` blocks do not match"
        awaited = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if not all(map(limits.ANTHROPIC_CALL_ID.takes, awaited)):
            yield f"messages.{number}.content.0.tool_use.id: String should match pattern"
    if awaited:
        yield "`tool_use` ids were found without `tool_result` blocks immediately after"


def _google(request: Request) -> Iterator[str]:
    declared = [one for tool in request.get("tools", []) for one in tool.get("functionDeclarations", [])]
    for number, function in enumerate(declared):
        if not limits.GOOGLE_TOOL_NAME.takes(function["name"]):
            yield f"tools[0].function_declarations[{number}].name: [FIELD_INVALID] Invalid function name."
    if not request.get("contents"):
        yield "contents is not specified"
    for number, content in enumerate(request.get("contents", [])):
        if not content.get("parts"):
            yield f"contents[{number}].parts: must not be empty"
