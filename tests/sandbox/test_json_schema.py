"""The service takes cheap JSON Schemas, refuses others, and names the params that break one."""

import pytest

from agent_jobs.sandbox import json_schema

DOUBLING = {
    "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(25)} | {"d25": {}},
    "$ref": "#/$defs/d0",
}

CHAIN = {
    "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(5_000)} | {"d5000": {}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"$schema": json_schema.DIALECT, "type": "object"},
        {"$defs": {"name": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/name"}}},
        {"properties": {"$ref": {"type": "string"}, "const": {"type": "string"}, "$id": {"type": "string"}}},
        {"properties": {"a": {"const": {"$ref": "http://example.com/"}}}},
        {"properties": {"a": {"pattern": "^(a+)+$"}}},
    ],
)
def test_a_plain_schema_is_taken(schema):
    assert json_schema.check_schema(schema) == []


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ([], "params_schema"),
        ("x", "params_schema"),
        (None, "params_schema"),
        ({"type": "objekt"}, "params_schema.type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "params_schema.$schema"),
        ({"$schema": 7}, "params_schema.$schema"),
        ({"$ref": "http://example.com/schema"}, "params_schema"),
        ({"$ref": "file:///etc/passwd"}, "params_schema"),
        ({"$ref": "#/$defs/nothing"}, "params_schema"),
        ({"$ref": "#"}, "params_schema"),
        ({"$ref": 5}, "params_schema"),
        ({"$dynamicRef": "#x"}, "params_schema"),
        ({"properties": {"a": {"$id": "http://example.com/"}}}, "params_schema"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "params_schema"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "params_schema.properties.a.pattern"),
        ({"properties": {"a": {"pattern": "(a{1,1000}){1,1000}"}}}, "params_schema"),
        (DOUBLING, "params_schema"),
        (CHAIN, "params_schema"),
    ],
)
def test_a_schema_that_is_wrong_or_dangerous_is_refused_and_named(schema, field):
    assert [error.field for error in json_schema.check_schema(schema)] == [field]


def test_what_is_wrong_with_params_is_named():
    schema = {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {"name": {"type": "string"}, "items": {"items": {"type": "integer"}}},
    }

    errors = json_schema.params_errors(schema, {"items": [1, "a"], "colour": "red"})

    assert {(error.field, error.code) for error in errors} == {
        ("params.name", "required"),
        ("params.items.1", "type"),
        ("params.colour", "unknown_field"),
    }


def test_params_that_fit_have_no_errors():
    assert json_schema.params_errors({"required": ["a"]}, {"a": 1}) == []
    assert json_schema.params_errors({}, {"anything": [1, None]}) == []


def test_a_pattern_that_would_backtrack_for_ever_answers_at_once():
    schema = {"properties": {"a": {"pattern": "^(a+)+$"}}}

    errors = json_schema.params_errors(schema, {"a": "a" * 5_000 + "b"})

    assert [error.field for error in errors] == ["params.a"]
    assert len(errors[0].message) <= json_schema.MAX_MESSAGE


def test_only_the_first_errors_are_reported():
    errors = json_schema.params_errors(
        {"properties": {"a": {}}, "additionalProperties": False}, {f"k{i}": 1 for i in range(500)}
    )

    assert len(errors) == json_schema.MAX_REPORTED
