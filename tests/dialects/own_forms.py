"""Each dialect's own form of errors, and a client of each."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_jobs import dialects
from agent_jobs.tenants import login_tokens
from tests import factories
from tests.dialects.workspace_clients import number, person

NAMES = tuple(dialect.name for dialect in dialects.DIALECTS)


def is_in_form(name: str, body: dict[str, Any]) -> bool:
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
            return isinstance(body["detail"], str) and set(body) <= {"detail", "errors"}
    raise AssertionError(f"what are the errors of {name} like?")


@dataclass(frozen=True)
class OwnDoor:
    """The address at which a dialect lists and makes jobs, and clients who may write or only read there."""

    name: str
    path: str
    writer: factories.Api
    reader: factories.Api

    def refusal(self, answer: Any, status: int) -> Any:
        """The body of a refusal, checked for the dialect's form."""
        assert answer.status_code == status, (answer.status_code, answer.content)
        assert answer["Content-Type"] == "application/json"
        assert "Location" not in answer.headers
        told = answer.json()
        assert is_in_form(self.name, told), told
        return told


def own_door(name: str) -> OwnDoor:
    if name != "workspace":
        path = f"/{name}/api/v1/jobs"
        return OwnDoor(name, path, factories.api("acme", "SERVICES:ADMIN"), factories.api("acme", "SERVICES:READ"))
    writer, reader = signed_in("ann", "admin"), signed_in("bob", "member")
    return OwnDoor(name, f"/workspace/{number()}/jobs", writer, reader)


def signed_in(username: str, role: str, org_id: str = "acme") -> factories.Api:
    """A client with the access token of a new member of the organisation."""
    return factories.Api(login_tokens.issue(person(username, org_id, role), login_tokens.ACCESS, now=datetime.now(UTC)))


@pytest.fixture(params=NAMES)
def door(request: pytest.FixtureRequest, acme: factories.Api) -> OwnDoor:
    return own_door(request.param)
