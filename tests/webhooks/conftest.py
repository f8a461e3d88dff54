"""Endpoints at a real receiver on loopback, and a sender whose clock the test may turn."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from agent_jobs.webhooks import expansion
from agent_jobs.webhooks.sending import DeliverySender, deliver
from infra import database
from tests import factories
from tests.fakes.webhook import FakeReceiver
from tests.waiting import PATIENCE

ENDPOINTS = "/services/webhook-endpoints"


class TurnedClock:
    """The database's clock, `ahead` of the real one."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return database.now() + self.ahead

    def turn(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def sender(clock: TurnedClock) -> Iterator[DeliverySender]:
    made = DeliverySender(clock=clock, rng=random.Random(7))
    yield made
    made.finish()


@pytest.fixture
def send(sender: DeliverySender) -> Callable[[], int]:
    """Expands and sends everything that is due, and waits for it."""

    def send_all() -> int:
        done, is_left = deliver(
            sender, expand=expansion.expand_some, until=time.monotonic() + PATIENCE, stop=threading.Event()
        )
        assert not is_left
        return done

    return send_all


@pytest.fixture
def admin(db: None) -> factories.Api:
    return factories.api("acme", "SERVICES:ADMIN")


def make_endpoint(admin: factories.Api, receiver: FakeReceiver, **fields: Any) -> dict[str, Any]:
    response = admin.post(ENDPOINTS, {"url": receiver.address, **fields})
    assert response.status_code == 201, response.content
    made: dict[str, Any] = response.json()["data"]
    return made


def deliveries(admin: factories.Api, endpoint: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    """Oldest first."""
    response = admin.get(f"{ENDPOINTS}/{endpoint['id']}/deliveries", {"sort": "created_at", **query})
    assert response.status_code == 200, response.content
    listed: list[dict[str, Any]] = response.json()["data"]
    return listed
