"""All dialects treat texts, names, masks and unknown keys alike, and each describes itself in the OpenAPI document."""

from typing import Any

import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from agent_jobs import dialects
from agent_jobs.dialects.chronos import chronos_views
from agent_jobs.models import Job, Schedule
from tests import factories
from tests.dialects.own_forms import NAMES, OwnDoor, door, own_door

__all__ = ["door"]
pytestmark = pytest.mark.django_db
MASK = "******"


def create(door: OwnDoor, text: str = "a", secret: str = "s3cret", **headers: str) -> Any:
    """A job whose texts are this one."""
    bodies: dict[str, dict[str, Any]] = {
        "chadburn": {"schedule": "@daily", "command": text, "tags": [text], "environment": {"K": secret}},
        "chronos": {
            "schedule": "@daily",
            "description": text,
            "tags": {"k": text},
            "webhook": {"url": "http://127.0.0.1:9/in", "body": text, "auth": {"type": "bearer", "token": secret}},
        },
        "executr": {
            "type": "t",
            "binary_url": "https://example.com/b",
            "binary_sha256": "ab" * 32,
            "priority": "background",
            "arguments": [text],
            "env_variables": {"K": secret},
        },
        "workspace": {"job_type": "t", "metadata": {"k": text, "deep": [{text: text}]}},
    }
    body = {**bodies[door.name], "unknown_key": [text]}
    if door.name == "workspace":
        body["workspace_id"] = int(door.path.split("/")[2])
    elif door.name != "executr":
        body["name"] = text
    return door.writer.post(door.path, body, **headers)


def made() -> int:
    return Job.objects.count() + Schedule.objects.count()


def test_a_new_job_was_last_changed_when_it_was_made(door: OwnDoor) -> None:
    """A page shows any other time as a change. Executr shows none."""
    answer = create(door).json()
    shown = answer.get("data", answer)
    assert shown.get("updated_at", shown["created_at"]) == shown["created_at"]


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"], ids=["NUL", "half a character"])
def test_characters_that_cannot_be_stored_are_replaced_everywhere(door: OwnDoor, text: str) -> None:
    secret = "s3cret" if door.name == "chronos" else text  # a token for a header must be printable
    answer = create(door, text, secret=secret)
    assert answer.status_code == 201, answer.content
    assert made() == 1
    for path in (f"{door.path}/a%00b", f"{door.path}/%00"):
        door.refusal(door.writer.get(path), 404)
    for name in ("status", "type", "tag", "job_type", "limit", "unknown"):
        for value in ("%00", "a%00b", "%ED%A0%80"):
            assert door.writer.get(f"{door.path}?{name}={value}").status_code in {200, 400, 422}


def test_two_jobs_may_have_one_name_and_unknown_keys_are_ignored(door: OwnDoor) -> None:
    assert [create(door).status_code for _ in range(2)] == [201, 201]
    assert made() == 2


@pytest.mark.parametrize("name", ["chadburn", "chronos", "executr"])
def test_a_mask_is_no_secret_of_a_new_job(acme: factories.Api, name: str) -> None:
    admin = factories.api("acme", "SERVICES:ADMIN")
    door = OwnDoor(name, f"/{name}/api/v1/jobs", admin, admin)
    door.refusal(create(door, secret=MASK), 400)
    assert made() == 0


def test_a_body_without_a_content_type_is_json(door: OwnDoor) -> None:
    answer = create(door, content_type="")
    assert answer.status_code == 201, answer.content
    door.refusal(create(door, content_type="text/plain"), 415)


def test_a_key_that_appears_twice_is_refused(door: OwnDoor) -> None:
    body = b'{"name": "a", "name": "b"}'
    door.refusal(door.writer.send("POST", door.path, raw=body), 422 if door.name == "workspace" else 400)


@pytest.mark.parametrize("kind", ["", "application/json", "application/x-www-form-urlencoded", "text/plain"])
@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("chadburn", ["POST /run", "POST /pause", "POST /resume", "DELETE "]),
        ("chronos", ["POST /enable", "POST /disable", "POST /trigger", "POST /rollback/1", "DELETE "]),
        ("executr", ["DELETE "]),
        ("workspace", ["POST /cancel", "POST /retry"]),
    ],
)
def test_actions_need_no_body_and_no_content_type(
    acme: factories.Api, monkeypatch: pytest.MonkeyPatch, name: str, actions: list[str], kind: str
) -> None:
    """Go states JSON also with an empty body, and axios a form."""
    monkeypatch.setattr(chronos_views, "TRIGGER_SECONDS", 0)
    door = own_door(name)
    told = create(door).json()
    job = told["job_id"] if name == "workspace" else told["id"] if name == "executr" else told["data"]["id"]
    for action in actions:
        method, _, path = action.partition(" ")
        answer = door.writer.send(method, f"{door.path}/{job}{path}", raw=b"", content_type=kind)
        assert answer.status_code in {200, 204}, (action, answer.content)


def test_calls_of_executors_are_not_throttled(acme: factories.Api, settings: Any) -> None:
    """A refused report would lose a result, and Executr's client repeats a request with an empty body."""
    settings.RATE_TOKEN = "1/minute"
    admin = factories.api("acme", "SERVICES:ADMIN")
    body = {"executor_id": "e1", "executor_ip": "unknown"}
    assert [admin.post("/executr/api/v1/jobs/claim", body).status_code for _ in range(3)] == [204] * 3


@pytest.mark.parametrize("path", ["/chronos/health", "/executr/api/v1/health"])
def test_health_is_open_and_only_read(db: None, path: str) -> None:
    assert Client().get(path).status_code == 200
    refused = Client().post(path, content_type="application/json")
    assert (refused.status_code, refused["Content-Type"]) == (405, "application/json")


def test_each_has_its_own_tag_in_the_openapi_document() -> None:
    schema: Any = SchemaGenerator().get_schema(request=None, public=True)
    documented: dict[str, set[str]] = {}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for tag in operation["tags"]:
                documented.setdefault(tag.lower(), set()).add(path)
    for dialect in dialects.DIALECTS:
        routes = {f"/{dialect.mount}{route}".replace("<str:", "{").replace(">", "}") for route, _ in dialect.routes}
        assert documented[dialect.name] == routes
    assert set(NAMES) <= set(documented)
    both = {
        ("/executr/api/v1/jobs/{job_id}", "delete"),
        *((f"/executr/api/v1/jobs/{{job_id}}/{word}", "put") for word in ("heartbeat", "complete", "fail")),
    }
    assert all({"200", "204"} <= set(schema["paths"][path][method]["responses"]) for path, method in both)
