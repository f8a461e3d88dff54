"""Keys for models over HTTP: in, and never out."""

import json
from typing import Any

import pytest

from agent_jobs.models import ModelKey
from tests import factories

pytestmark = pytest.mark.django_db
AT = "/services/organizations/acme/model-keys"
HOOK = "http://127.0.0.1:9/v1"


@pytest.fixture
def admin() -> factories.Api:
    return factories.api("acme", "SERVICES:ADMIN")


def test_a_key_is_put_read_replaced_and_removed_without_being_shown(admin: factories.Api) -> None:
    answers = [admin.put(f"{AT}/openai", {"key": "sk-canary-one", "base_url": HOOK})]
    answers.append(admin.put(f"{AT}/openai", {"key": "sk-canary-two"}))
    answers += [admin.get(f"{AT}/openai"), admin.get(AT)]
    assert [answer.status_code for answer in answers] == [200] * 4
    first, second, shown, listed = (answer.json() for answer in answers)
    assert (first["data"]["base_url"], first["data"]["key"]) == (HOOK, "******")
    assert "base_url" not in second["data"]
    assert second["data"]["created_at"] == first["data"]["created_at"] < second["data"]["updated_at"]
    assert shown["data"] == second["data"] == listed["data"][0]
    assert listed["meta"] == {"org_id": "acme", "count": 1, "total": 1}
    removed = admin.delete(f"{AT}/openai")
    assert (removed.status_code, removed.json()["message"]) == (200, "Key for 'openai' removed")
    assert admin.get(f"{AT}/openai").json()["code"] == "model_key_not_found"
    assert admin.delete(f"{AT}/openai").status_code == 404
    assert "canary" not in json.dumps([answer.json() for answer in [*answers, removed]])


@pytest.mark.parametrize("method", ["get", "put", "delete"])
@pytest.mark.parametrize("provider", ["nobody", "OpenAI", "a%00b", "x" * 500])
def test_a_provider_that_does_not_exist_is_not_found(admin: factories.Api, method: str, provider: str) -> None:
    answer = getattr(admin, method)(f"{AT}/{provider}", {"key": "sk-1"} if method == "put" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "provider_not_found")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["key"]),
        ({"key": ""}, ["key"]),
        ({"key": 1}, ["key"]),
        ({"key": "a b"}, ["key"]),
        ({"key": "k", "base_url": "nowhere"}, ["base_url"]),
        ({"key": "k", "base_url": 5}, ["base_url"]),
        ({"key": "k", "other": 1}, ["other"]),
    ],
)
def test_bad_input_names_the_field(admin: factories.Api, body: dict[str, Any], fields: list[str]) -> None:
    answer = admin.put(f"{AT}/openai", body)
    assert (answer.status_code, factories.fields_of(answer)) == (400, fields)
    assert not ModelKey.objects.exists()


def test_without_a_sealing_key_it_says_so(admin: factories.Api, settings: Any) -> None:
    settings.SEALING_KEYS = ""
    answer = admin.put(f"{AT}/openai", {"key": "sk-1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "sealing_unavailable")
    slack = {"team_id": "T0ACME", "bot_token": "xoxb-1", "signing_secret": "12345678"}
    assert admin.post("/services/channels/slack/installations", slack).status_code == 409


def test_a_profile_is_saved_once_its_models_can_be_reached(admin: factories.Api, settings: Any) -> None:
    settings.MODEL_KEYS = {}
    profiles = "/services/organizations/acme/profiles"
    wanted = {
        "id": "ann",
        "name": "Ann",
        "model": "openai:gpt-x",
        "base_url": f"{HOOK}/beta",
        "fallback_model": "anthropic:claude-x",
        "max_output_tokens": 500,
        "timeout_seconds": 30,
        "context_tokens": 8000,
    }
    refused = admin.post(profiles, wanted)
    assert (refused.status_code, factories.fields_of(refused)) == (400, ["model", "base_url", "fallback_model"])
    assert refused.json()["errors"][0]["code"] == "no_key"
    admin.put(f"{AT}/openai", {"key": "sk-1", "base_url": HOOK})
    admin.put(f"{AT}/anthropic", {"key": "sk-2"})
    made = admin.post(profiles, wanted)
    assert made.status_code == 201
    assert wanted.items() <= made.json()["data"].items()
    plain = admin.put(f"{profiles}/ann", {"name": "Ann"}).json()["data"]
    assert plain["model"] == "scripted"
    assert not set(wanted) - {"id", "name", "model"} & set(plain)


def test_a_profile_whose_key_is_gone_can_be_changed_in_all_else(admin: factories.Api, settings: Any) -> None:
    settings.MODEL_KEYS = {"anthropic": "sk-operator"}
    profiles = "/services/organizations/acme/profiles"
    wanted = {"name": "Ann", "model": "openai:gpt-x", "fallback_model": "anthropic:claude-x"}
    admin.put(f"{AT}/openai", {"key": "sk-1"})
    assert admin.post(profiles, {"id": "ann", **wanted}).status_code == 201
    admin.delete(f"{AT}/openai")

    for answer in (
        admin.patch(f"{profiles}/ann", {"instructions": "Be brief."}),
        admin.put(f"{profiles}/ann", {**wanted, "name": "Anna"}),
        admin.patch(f"{profiles}/ann", {"fallback_model": ""}),
        admin.patch(f"{profiles}/ann", {"fallback_model": "anthropic:claude-y"}),
    ):
        assert answer.status_code == 200, answer.json()
    refused = admin.patch(f"{profiles}/ann", {"model": "openai:gpt-y"})
    assert (refused.status_code, factories.fields_of(refused)) == (400, ["model"])
    assert refused.json()["errors"][0]["code"] == "no_key"
    assert admin.post(profiles, {"id": "ben", **wanted}).status_code == 400
    assert admin.patch(f"{profiles}/ann", {"model": "anthropic:claude-x"}).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_seconds", 0),
        ("timeout_seconds", 601),
        ("timeout_seconds", "5"),
        ("max_output_tokens", 0),
        ("max_output_tokens", 200_001),
        ("context_tokens", 999),
        ("base_url", 5),
        ("fallback_model", "x" * 129),
    ],
)
def test_bounds_of_a_profile_name_the_field(admin: factories.Api, field: str, value: Any) -> None:
    answer = admin.post("/services/organizations/acme/profiles", {"id": "ann", "name": "Ann", field: value})
    assert (answer.status_code, factories.fields_of(answer)) == (400, [field])


def test_a_result_schema_is_kept_told_and_checked(admin: factories.Api) -> None:
    types = "/services/organizations/acme/agent-jobs-type"
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}}
    factories.org()
    made = admin.post(types, {"id": "ask", "name": "Ask", "result_schema": schema})
    assert made.json()["data"]["result_schema"] == schema
    assert admin.get(f"{types}/ask").json()["data"]["result_schema"] == schema
    assert "result_schema" not in admin.get(types).json()["data"][0]
    assert admin.get(types, {"include": "schema"}).json()["data"][0]["result_schema"] == schema
    for bad in ({"type": "nothing"}, {"$ref": "https://example.com/x"}, []):
        refused = admin.patch(f"{types}/ask", {"result_schema": bad})
        assert refused.status_code == 400
        assert factories.fields_of(refused)[0].startswith("result_schema")
    assert "result_schema" not in admin.put(f"{types}/ask", {"name": "Ask"}).json()["data"]
