"""Clients of the foreign APIs, and workers that perform their jobs for real."""

from typing import Any

import pytest

from agent_jobs.worker.loop import Worker
from tests import factories, rows
from tests.conversations import QuietKeeper


class Door:
    """A client of one dialect: `Door(api, "/chadburn/api/v1").get("/jobs")`."""

    def __init__(self, api: factories.Api, mount: str) -> None:
        self.api, self.mount = api, mount

    def get(self, path: str, query: dict[str, Any] | None = None, **headers: str) -> Any:
        return self.api.get(f"{self.mount}{path}", query, **headers)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.api.send("POST", f"{self.mount}{path}", body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.api.send("PUT", f"{self.mount}{path}", body, **options)

    def delete(self, path: str) -> Any:
        return self.api.delete(f"{self.mount}{path}")


def work(lane: str) -> int:
    """Perform the waiting jobs of a lane."""
    return Worker(QuietKeeper()).serve(lane)


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a real one takes half a second


@pytest.fixture
def acme(db: None, settings: Any) -> factories.Api:
    """Our organisation, which may run commands."""
    settings.COMMAND_RUNNER = "trusted"
    settings.ALLOW_PRIVATE_ADDRESSES = True
    rows.org("acme", allows_commands=True)
    return factories.api("acme", "SERVICES:WRITE")


@pytest.fixture
def rival(acme: factories.Api) -> factories.Api:
    rows.org("rival", allows_commands=True)
    return factories.api("rival", "SERVICES:WRITE")
