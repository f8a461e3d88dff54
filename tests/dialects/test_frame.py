"""What all dialects share: credentials, errors in their own format, mounts, and no redirects."""

import base64
import json
import sys
from types import ModuleType
from typing import Any

import grimp
import pytest
from django.db import OperationalError
from django.test import Client

from agent_jobs import dialects
from agent_jobs.dialects import urls
from agent_jobs.dialects.base import Dialect
from agent_jobs.reads import schedule_rows
from config import asgi
from tests import factories

pytestmark = pytest.mark.django_db
DOORS = {"chadburn": "/chadburn/api/v1/jobs", "chronos": "/chronos/api/v1/jobs"}


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture(params=[dialect.name for dialect in dialects.DIALECTS])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return next(one for one in dialects.DIALECTS if one.name == request.param)


def is_formatted(name: str, body: dict[str, Any]) -> bool:
    """Whether it is an error in the format of this dialect."""
    match name:
        case "chadburn":
            return set(body) == {"error"} and set(body["error"]) == {"code", "message"}
        case "chronos":
            told = (set(body), body["success"], body["data"], set(body["error"]))
            return told == ({"success", "data", "error"}, False, None, {"code", "message"})
        case "executr":
            return set(body) == {"error", "context"} and isinstance(body["error"], str)
        case "workspace":
            return isinstance(body["detail"], str)
    raise AssertionError(f"what are the errors of {name} like?")


class TestCredentials:
    @pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
    def test_a_token_is_taken_in_each_of_its_forms(self, db: None, door: str) -> None:
        plain = factories.token("acme", "SERVICES:READ")
        for headers in (
            {"Authorization": f"Bearer {plain}"},
            {"Authorization": f"ApiKey {plain}"},
            {"Authorization": basic("", plain)},
            {"Authorization": basic("any body", plain).replace("Basic", "basic")},
            {"X-API-Key": plain},
            {"Authorization": basic("admin", plain), "X-API-Key": "other"},
        ):
            assert Client().get(door, headers=headers).status_code == 200, headers

    @pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic !!!"},
            {"Authorization": basic("", "nonsense")},
            {"Authorization": "Basic " + base64.b64encode(b"no colon \xff").decode()},
            {"X-API-Key": "nonsense"},
            {"X-API-Key": "ajt\x00"},
        ],
        ids=str,
    )
    def test_without_a_valid_one_it_asks_for_basic(self, db: None, door: str, headers: dict[str, str]) -> None:
        answer = Client().get(door, headers=headers)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == 'Basic realm="agent-jobs"'
        name = door.split("/")[1]
        assert is_formatted(name, answer.json())

    @pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
    def test_reading_needs_less_than_writing(self, db: None, door: str) -> None:
        reader = factories.api("acme", "SERVICES:READ")
        assert reader.get(door).status_code == 200
        refused = reader.post(door, {})
        assert refused.status_code == 403
        assert is_formatted(door.split("/")[1], refused.json())


class TestErrors:
    @pytest.mark.parametrize(("name", "door"), DOORS.items())
    @pytest.mark.parametrize(
        ("method", "more", "options", "status"),
        [
            ("GET", "/nowhere/at/all", {}, 404),
            ("GET", "/../../nothing", {}, 404),
            ("GET", "/", {}, 404),
            ("PATCH", "", {}, 405),
            ("OPTIONS", "", {}, 405),
            ("POST", "", {"raw": b"{"}, 400),
            ("POST", "", {"raw": b""}, 400),
            ("POST", "", {"raw": b"[]"}, 400),
            ("POST", "", {"raw": b'"text"'}, 400),
            ("POST", "", {"raw": b"{}", "content_type": "text/plain"}, 415),
            ("POST", "", {"raw": b"{}", "Content_Encoding": "gzip"}, 415),
            ("POST", "", {"raw": b"{" + b" " * 300_000}, 413),
        ],
    )
    def test_every_refusal_has_the_format_of_the_dialect(
        self, acme: factories.Api, name: str, door: str, method: str, more: str, options: dict[str, Any], status: int
    ) -> None:
        answer = acme.send(method, f"{door}{more}", **options)
        assert answer.status_code == status, answer.content
        assert answer["Content-Type"] == "application/json"
        assert is_formatted(name, answer.json())
        assert "Location" not in answer.headers

    @pytest.mark.parametrize(("name", "door"), DOORS.items())
    def test_too_many_requests_are_refused_in_it(
        self, acme: factories.Api, settings: Any, name: str, door: str
    ) -> None:
        settings.RATE_TOKEN = "2/minute"
        answers = [acme.get(door) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[-1]["Retry-After"]) > 0
        assert is_formatted(name, answers[-1].json())

    @pytest.mark.parametrize(("name", "door"), DOORS.items())
    def test_a_database_that_is_away_is_told_in_it(
        self, acme: factories.Api, monkeypatch: pytest.MonkeyPatch, name: str, door: str
    ) -> None:
        def away(*_: Any) -> None:
            raise OperationalError("connection to server failed: the server closed the connection unexpectedly")

        with monkeypatch.context() as patched:
            patched.setattr(schedule_rows, "schedules", away)
            answer = acme.get(door)
        assert answer.status_code == 503, answer.content
        assert int(answer["Retry-After"]) > 0
        assert is_formatted(name, answer.json())

    @pytest.mark.parametrize(("name", "door"), DOORS.items())
    def test_a_fault_of_ours_is_told_in_it(
        self, acme: factories.Api, monkeypatch: pytest.MonkeyPatch, name: str, door: str
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(schedule_rows, "schedules", lambda org_id: 1 / 0)
            answer = acme.get(door)
        assert answer.status_code == 500
        assert is_formatted(name, answer.json())

    def test_what_the_web_process_refuses_before_django_has_it_too(self, dialect: Dialect) -> None:
        refused = asgi._refused(asgi._Refusal(503, "unavailable", "busy"), f"/{dialect.mount}{dialect.routes[0][0]}")
        assert is_formatted(dialect.name, json.loads(refused.body))
        native = asgi._refused(asgi._Refusal(503, "unavailable", "busy"), "/services/agent-jobs")
        assert json.loads(native.body)["code"] == "unavailable"


class TestMounts:
    def test_native_addresses_keep_the_native_format(self, acme: factories.Api) -> None:
        for path in ("/chadburnish", "/api/v1/jobs", "/health/x", "/services/nothing"):
            answer = acme.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path

    @pytest.mark.parametrize("name", DOORS)
    def test_the_setting_mounts_it_at_the_root_as_well(self, acme: factories.Api, settings: Any, name: str) -> None:
        settings.ROOT_DIALECT = name
        root = ModuleType("tests.dialects.rooted_urls")
        root.urlpatterns = urls.all_patterns()  # type: ignore[attr-defined]
        root.handler404 = "agent_jobs.api.errors.handler404"  # type: ignore[attr-defined]
        sys.modules[root.__name__] = root
        settings.ROOT_URLCONF = root.__name__
        assert acme.get("/api/v1/jobs").status_code == 200
        assert acme.get(DOORS[name]).status_code == 200
        for path in ("/api/v1/nothing", "/api/v1"):
            answer = acme.get(path)
            assert answer.status_code == 404
            assert is_formatted(name, answer.json())
        assert acme.get("/elsewhere").json()["code"] == "not_found"

    def test_dialects_do_not_know_each_other(self) -> None:
        graph = grimp.build_graph("agent_jobs", "channels_integration", "infra", cache_dir=None)
        homes = {one.name: {view.__module__ for _, view in one.routes} for one in dialects.DIALECTS}
        for name, modules in homes.items():
            others = {module for other, found in homes.items() if other != name for module in found}
            for module in modules:
                reached = graph.find_upstream_modules(module)
                assert not reached & others, (name, reached & others)
