"""Schemas go out as every provider takes them; references still point somewhere."""

import json
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from agent_jobs import llm
from agent_jobs.llm import schema_reduction
from agent_jobs.llm.hosted import HostedModel
from tests.fakes import openai
from tests.fakes.openai import FakeOpenAI

TURN = llm.Turn(instructions="", goal="Ask Ann.")
ROUTE_OR_FILE = {
    "type": "object",
    "properties": {"route": {"type": "string"}, "file": {"type": "string"}},
    "anyOf": [{"required": ["route"]}, {"required": ["file"]}],
}
PARAMETERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("anyOf", ROUTE_OR_FILE, {"type": "object", "properties": ROUTE_OR_FILE["properties"]}),
    (
        "oneOf with properties",
        {"oneOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}]},
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
    ),
    (
        "allOf",
        {"type": "object", "allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    (
        "allOf by reference",
        {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"properties": {"a": {"type": "string"}}}}},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "$defs": {"A": {"properties": {"a": {"type": "string"}}}},
        },
    ),
    ("not", {"type": "object", "properties": {}, "not": {"required": ["a"]}}, {"type": "object", "properties": {}}),
    ("enum", {"type": "object", "enum": [{"a": 1}]}, {"type": "object", "properties": {}}),
    (
        "a reference at the root",
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "$defs": {"A": {"type": "object", "properties": {"a": {"type": "string"}}}},
        },
    ),
    (
        "plain",
        {"type": "object", "properties": {"a": {"anyOf": []}}},
        {"type": "object", "properties": {"a": {"anyOf": []}}},
    ),
]


@pytest.mark.parametrize(("given", "fitted"), [row[1:] for row in PARAMETERS], ids=[row[0] for row in PARAMETERS])
def test_the_top_of_a_tools_schema_is_a_plain_object(given: dict[str, Any], fitted: dict[str, Any]) -> None:
    shown = schema_reduction.of_tool(llm.Tool("t", "Does.", given))
    assert shown.parameters == fitted
    is_folded = bool({"anyOf", "oneOf", "allOf", "not", "enum"} & given.keys())
    assert ("also have to fit" in shown.description) is is_folded


RESULTS = [
    {
        "type": "object",
        "properties": {"items": {"items": {"$ref": "#/$defs/Item"}}},
        "$defs": {"Item": {"type": "string"}},
    },
    {
        "type": "object",
        "properties": {"items": {"items": {"$ref": "#/definitions/Item"}}},
        "definitions": {"Item": {"type": "string"}},
    },
    {"type": "object", "properties": {"first": {"type": "string"}, "items": {"items": {"$ref": "#/properties/first"}}}},
    {"$ref": "#/$defs/Item", "$defs": {"Item": {"properties": {"items": {"items": {"type": "string"}}}}}},
]


def sent(provider: FakeOpenAI, name: str, turn: llm.Turn) -> list[dict[str, Any]]:
    """The schemas of the tools, as a provider was sent them."""
    spoken = {"openai": openai.says("Hi"), "anthropic": openai.message("Hi"), "google": openai.content("Hi")}
    provider.queue(spoken[name])
    access = llm.Access(api_key="k", base_url=provider.base_url, timeout_seconds=60, allow_private=True)
    HostedModel(name, "some-model").answer(turn, access)
    tools = provider.requests[0]["tools"]
    if name == "openai":
        return [tool["function"]["parameters"] for tool in tools]
    if name == "anthropic":
        return [tool["input_schema"] for tool in tools]
    declared = [
        entry for tool in tools for entry in tool.get("functionDeclarations", tool.get("function_declarations", []))
    ]
    return [next(value for key, value in entry.items() if key.lower().startswith("parameters")) for entry in declared]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("schema", RESULTS, ids=["$defs", "definitions", "a property", "at the root"])
def test_references_of_a_result_point_to_what_they_did(provider: FakeOpenAI, name: str, schema: dict[str, Any]) -> None:
    (respond,) = sent(provider, name, replace(TURN, result_schema=schema))
    judge = jsonschema_rs.Draft202012Validator(respond)
    assert judge.is_valid({"say": "", "next": "done", "result_data": {"items": ["a"]}})
    assert not judge.is_valid({"say": "", "next": "done", "result_data": {"items": [3]}})


@pytest.mark.parametrize("name", llm.PROVIDERS)
def test_no_provider_is_sent_what_it_refuses(provider: FakeOpenAI, name: str) -> None:
    tools = tuple(llm.Tool(f"t{number}", "Does.", row[1]) for number, row in enumerate(PARAMETERS))
    schemas = sent(provider, name, replace(TURN, tools=tools))
    assert len(schemas) == len(tools) + 1
    for schema in schemas:
        assert not {"anyOf", "oneOf", "allOf", "not", "enum"} & schema.keys(), json.dumps(schema)
        assert schema["type"].lower() == "object"
