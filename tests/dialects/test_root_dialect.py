"""ROOT_DIALECT: one of three dialects at `/` too, beside everything else that is there."""

import sys
from types import ModuleType
from typing import Any

import pytest
from django.test import Client
from django.urls import include, path

from agent_jobs.dialects import urls
from config import urls as whole
from tests import factories
from tests.dialects.own_forms import NAMES, is_in_form, own_door

pytestmark = pytest.mark.django_db
HEALTH = {"chronos": "/health", "executr": "/api/v1/health"}
ROOTED = [name for name in NAMES if name != "workspace"]


@pytest.fixture(params=ROOTED)
def name(request: pytest.FixtureRequest, acme: factories.Api, settings: Any) -> str:
    """All addresses of the service, as a process with this setting serves them."""
    settings.ROOT_DIALECT = request.param
    served = ModuleType("tests.dialects.rooted_urls")
    own = ModuleType("tests.dialects.rooted_dialects")
    own.urlpatterns = urls.all_patterns()  # type: ignore[attr-defined]
    served.urlpatterns = [  # type: ignore[attr-defined]
        path("", include(own)) if one.urlconf_name is urls else one for one in whole.urlpatterns
    ]
    for handler in ("handler400", "handler403", "handler404", "handler500"):
        setattr(served, handler, getattr(whole, handler))
    sys.modules[served.__name__] = served
    settings.ROOT_URLCONF = served.__name__
    return str(request.param)


def test_it_is_at_both_places(acme: factories.Api, name: str) -> None:
    for mount in ("", f"/{name}"):
        assert acme.get(f"{mount}/api/v1/jobs").status_code == 200
        assert factories.Api(None).get(f"{mount}/api/v1/jobs").status_code == 401
    if name in HEALTH:
        health = Client().get(HEALTH[name])
        assert health.status_code == 200
        assert "healthy" in str(health.json())
    else:
        assert Client().get("/health").json()["code"] == "not_found"


def test_a_job_made_at_the_root_is_the_same_one(acme: factories.Api, name: str) -> None:
    bodies = {
        "chadburn": {"name": "a", "schedule": "@daily", "command": "true"},
        "chronos": {"name": "a", "schedule": "@daily", "webhook": {"url": "http://127.0.0.1:9/in"}},
        "executr": {
            "type": "t",
            "binary_url": "https://example.com/b",
            "binary_sha256": "ab" * 32,
            "priority": "background",
        },
    }
    made = acme.post("/api/v1/jobs", bodies[name])
    assert made.status_code == 201, made.content
    told = made.json()
    found = told["id"] if name == "executr" else told["data"]["id"]
    for mount in ("", f"/{name}"):
        assert acme.get(f"{mount}/api/v1/jobs/{found}").status_code == 200


@pytest.mark.parametrize(
    ("method", "at", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1", 404),
        ("GET", "/api/v1/jobs/", 404),
        ("GET", "http://testserver//api/v1/jobs", 404),
        ("PATCH", "/api/v1/jobs", 405),
        ("OPTIONS", "/api/v1/jobs", 405),
        ("POST", "/api/v1/jobs", 400),
    ],
)
def test_errors_there_have_its_form(acme: factories.Api, name: str, method: str, at: str, status: int) -> None:
    answer = acme.send(method, at)
    assert answer.status_code == status, answer.content
    assert is_in_form(name, answer.json())


def test_everything_else_stays_where_it_was(acme: factories.Api, name: str) -> None:
    assert acme.get("/services/agent-jobs").status_code == 200
    assert acme.get("/api/v0/services/agent-jobs").status_code == 200
    assert acme.get("/elsewhere").json()["code"] == "not_found"
    assert Client().get("/health/live").status_code == 200
    console = Client().get("/console/")
    assert (console.status_code, console["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert Client().get("/schema").status_code == 200
    workspace = own_door("workspace")
    assert workspace.writer.get(workspace.path).status_code == 200
    assert workspace.writer.get("/jobs").json()["data"] == []
    workspace.refusal(Client().get("/jobs"), 401)
    for other in ROOTED:
        assert acme.get(f"/{other}/api/v1/jobs").status_code == 200
