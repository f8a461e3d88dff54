"""Chronos' trigger waits for the end of the execution, and holds no thread of the web process meanwhile."""

import asyncio

import pytest

from agent_jobs.api import streams
from agent_jobs.models import Job
from tests import factories
from tests.dialects.conftest import Door, work
from tests.dialects.test_chronos import body
from tests.web_processes import Web, elsewhere, sessions_end_with_their_threads

__all__ = ["sessions_end_with_their_threads"]
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sessions_end_with_their_threads"),
]
JOBS = "/chronos/api/v1/jobs"
TRIGGERS = 20


@pytest.fixture
def job(acme: factories.Api) -> str:
    """A job whose webhook fails at once, because nobody listens at its port."""
    fields = body(concurrency="allow", retry_policy={"max_attempts": 1})
    return str(Door(acme, "").post(JOBS, fields).json()["data"]["id"])


def test_twenty_at_once_leave_other_requests_quick(acme: factories.Api, job: str) -> None:
    web = Web(acme.headers["Authorization"].removeprefix("Bearer "))

    async def script() -> None:
        asking = [asyncio.create_task(web.ask("POST", f"{JOBS}/{job}/trigger", b"")) for _ in range(TRIGGERS)]
        while streams.AnswerSlot._taken.total() < TRIGGERS or web.application._running:
            await asyncio.sleep(0.01)  # until all wait, and none holds a thread
        status, listed = await web.ask("GET", f"{JOBS}/{job}/executions", b"")
        assert (status, listed["data"]["total"]) == (200, TRIGGERS)
        assert not any(trigger.done() for trigger in asking)
        await elsewhere(lambda: work("webhooks"))
        answers = await asyncio.gather(*asking)
        assert [(status, told["data"]["status"]) for status, told in answers] == [(200, "failed")] * TRIGGERS
        assert len({told["data"]["id"] for _, told in answers}) == TRIGGERS

    web.run(script)
    assert Job.objects.count() == TRIGGERS, "running a request again triggers nothing"


def test_beyond_the_limit_of_waits_it_answers_at_once(acme: factories.Api, job: str, settings: object) -> None:
    settings.STREAMS_PER_ORG = 0  # type: ignore[attr-defined]
    told = acme.post(f"{JOBS}/{job}/trigger")
    assert (told.status_code, told.json()["data"]["status"]) == (200, "running")
