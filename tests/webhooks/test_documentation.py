"""`docs/webhooks.md` is true: its example checks a real delivery, and it names every event, wait and limit."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_jobs import lifecycle
from agent_jobs.legal_moves import Event
from agent_jobs.states import JobStatus
from agent_jobs.webhooks import delivery_claims, endpoints, retry_plan
from agent_jobs.webhooks.event_types import EVENT_TYPES, TEST
from tests import factories, rows
from tests.fakes.webhook import FakeReceiver
from tests.webhooks.conftest import ENDPOINTS, make_endpoint

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.S)


@pytest.mark.django_db(transaction=True)
def test_the_example_accepts_a_delivery_and_nothing_else(
    admin: factories.Api, receiver: FakeReceiver, send: Callable[[], int]
) -> None:
    (example,) = blocks("python")
    names: dict[str, Any] = {}
    exec(example, names)
    endpoint = make_endpoint(admin, receiver)
    new = admin.post(f"{ENDPOINTS}/{endpoint['id']}/rotate-secret").json()["data"]["secret"]
    job = rows.job(JobStatus.RUNNING)
    lifecycle.move_one(Event.COMPLETE, job, actor=rows.TESTER, result="Zoë")
    send()
    (received,) = receiver.received
    for secret in (endpoint["secret"], new):
        assert names["verify"](secret, received.headers, received.body)
    assert not names["verify"]("whsec_" + "A" * 43 + "=", received.headers, received.body)
    assert not names["verify"](new, received.headers, received.body + b" ")
    assert not names["verify"](new, {**received.headers, "webhook-timestamp": "1"}, received.body)


@pytest.mark.django_db
def test_the_example_of_the_page_makes_an_endpoint(admin: factories.Api) -> None:
    (body,) = re.findall(r"-d '(\{.*?\})'\n", DOCUMENT)
    answer = admin.post(ENDPOINTS, json.loads(body))
    assert answer.status_code == 201, answer.content
    assert answer.json()["data"]["secret"].startswith("whsec_")


@pytest.mark.django_db(transaction=True)
def test_the_example_of_an_outcome_channel_is_accepted() -> None:
    rows.job_type(key="daily-report")
    body = json.loads(blocks("json")[-1])
    body["target_channel"] |= {"org_id": "acme", "platform": "web"}
    body["outcome_channel"]["platform"] = "web"
    response = factories.api().post("/services/agent-jobs", {**body, "params": {"name": "Ann"}})
    assert response.status_code == 201, response.content


def test_every_event_is_named_and_the_examples_are_events() -> None:
    assert [name for name in (*EVENT_TYPES, TEST) if f"`{name}`" not in DOCUMENT] == []
    shown = [json.loads(block) for block in blocks("json")[:-1]]
    assert {one["type"] for one in shown} <= set(EVENT_TYPES)
    assert all(set(one) == {"type", "timestamp", "data"} for one in shown)


def test_the_waits_and_limits_are_those_of_the_code() -> None:
    stated = "5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 3 h, 6 h, 12 h, 24 h and 24 h"
    assert stated in DOCUMENT
    units = {"s": 1, "min": 60, "h": 3600}
    found = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)", stated)]
    assert found == list(retry_plan.WAITS)
    for text in (
        f"{endpoints.MOST_PENDING:,} pending deliveries",
        f"After {retry_plan.MOST_TRIES} tries",
        f"at most {endpoints.MOST_ENDPOINTS} in an organisation",
        f"at most {delivery_claims.MOST_OF_ENDPOINT} deliveries in flight",
        f"organisation has at most {delivery_claims.MOST_OF_ORG}",
    ):
        assert text in DOCUMENT, text
