"""Schedules over HTTP, and their times moved by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_jobs.models import Schedule
from tests import factories, rows

BASE = "/services/agent-schedules"


@pytest.fixture
def acme(db):
    rows.job_type()
    return factories.api("acme", "SERVICES:WRITE")


@pytest.fixture
def rival(db):
    rows.job_type("rival")
    return factories.api("rival", "SERVICES:WRITE")


def stated(**fields: Any) -> dict[str, Any]:
    """The body of a schedule that fires every hour."""
    job = {
        "job_type_id": "greet",
        "target_channel": {"org_id": "acme", "platform": "web", "code": "lobby"},
        "params": {"name": "Ann"},
    }
    body = {"name": "Hourly greeting", "cron": "0 * * * *", "job": job, **fields}
    return {name: value for name, value in body.items() if value is not None}


def make(client: Any, **fields: Any) -> str:
    response = client.post(BASE, stated(**fields))
    assert response.status_code == 201, response.content
    return str(response.json()["data"]["id"])


def due(schedule_id: str, *, ago: timedelta = timedelta(seconds=1)) -> datetime:
    """Let the schedule be due some time ago, and each hour after that. Returns the time."""
    at = (datetime.now(UTC) - ago).replace(microsecond=0)
    found = Schedule.objects.get(pk=schedule_id)
    timed = {name: value for name, value in found.definition.items() if name != "cron"}
    definition = {"every_seconds": 3600, **timed}
    Schedule.objects.filter(pk=schedule_id).update(next_at=at, created_at=at, definition=definition)
    return at
