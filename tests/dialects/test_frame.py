"""All dialects take the same credentials, and answer only below their own addresses."""

import base64

import grimp
import pytest
from django.test import Client

from agent_jobs import dialects
from tests import factories
from tests.dialects.own_forms import is_in_form

pytestmark = pytest.mark.django_db
DOORS = {name: f"/{name}/api/v1/jobs" for name in ("chadburn", "chronos", "executr")}


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


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
        assert is_in_form(name, answer.json())

    @pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
    def test_reading_needs_less_than_writing(self, db: None, door: str) -> None:
        reader = factories.api("acme", "SERVICES:READ")
        assert reader.get(door).status_code == 200
        refused = reader.post(door, {})
        assert refused.status_code == 403
        assert is_in_form(door.split("/")[1], refused.json())


class TestMounts:
    def test_native_addresses_keep_the_native_format(self, acme: factories.Api) -> None:
        for path in ("/chadburnish", "/api/v1/jobs", "/health/x", "/services/nothing"):
            answer = acme.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path

    def test_dialects_do_not_know_each_other(self) -> None:
        graph = grimp.build_graph("agent_jobs", "channels_integration", "infra", cache_dir=None)
        homes = {one.name: {view.__module__ for _, view in one.routes} for one in dialects.DIALECTS}
        for name, modules in homes.items():
            others = {module for other, found in homes.items() if other != name for module in found}
            for module in modules:
                reached = graph.find_upstream_modules(module)
                assert not reached & others, (name, reached & others)
