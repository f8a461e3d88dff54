"""A job tells which tools of MCP servers its agent was not offered, and works with the others."""

from collections.abc import Iterator
from typing import Any

import pytest

from agent_jobs.catalog import model_keys
from agent_jobs.models import Activity, Profile
from agent_jobs.reads import explanations
from agent_jobs.states import JobStatus
from agent_jobs.tools import mcp_tool
from tests import rows
from tests.agents import scripted_models
from tests.agents.scripted_models import work
from tests.conversations import again, answer
from tests.fakes.mcp import FakeMcp, tool
from tests.fakes.openai import FakeOpenAI, says

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider(settings: Any) -> Iterator[FakeOpenAI]:
    settings.MODEL_KEYS = {}
    rows.org("acme")
    mcp_tool.forget()
    with FakeOpenAI(lambda request: says("Fine?")) as fake:
        model_keys.put_key("acme", "openai", key="sk-canary", base_url=fake.base_url, actor=rows.TESTER)
        Profile.objects.create(org_id="acme", key="ann", name="Ann", model="openai:gpt-fake")
        yield fake


def test_a_malformed_tool_and_an_absent_server_end_no_job_and_are_told(provider: FakeOpenAI) -> None:
    with FakeMcp(tool("find"), {"name": "bad", "description": "x"}) as server:
        crm = {"type": "mcp", "name": "crm", "url": server.url}
        away = {"type": "mcp", "name": "away", "url": "http://127.0.0.1:9/mcp", "optional": True}
        job = scripted_models.job(agent={"tools": [crm, away]}, config={"profile_id": "ann"})
        work()
        job = again(job)
        assert (job.status, job.waiting_for) == (JobStatus.RUNNING, "reply")
        answer(job)
        work()

    (told,) = Activity.objects.filter(job=job, code="tools.left_out")  # the second turn found the same
    left_out = [(one["server"], one["tool"], one["reason"]) for one in told.output["left_out"]]
    assert left_out == [
        ("crm", "bad", "it has no inputSchema"),
        ("away", "", "the tool server away was not reached"),
    ]
    assert told.note == "not offered: the tool 'bad' of crm, it has no inputSchema; and 1 more"
    shown = explanations.of("acme", job.pk)
    assert [one["tool"] for one in shown.left_out_tools] == ["bad", ""]
    offered = [one["function"]["name"] for one in provider.requests[0]["tools"]]
    assert "crm__find" in offered
    assert "crm__bad" not in offered


def test_a_server_that_is_not_optional_ends_the_turn(provider: FakeOpenAI) -> None:
    away = {"type": "mcp", "name": "away", "url": "http://127.0.0.1:9/mcp"}
    job = scripted_models.job(agent={"tools": [away]}, config={"profile_id": "ann"})
    work()

    assert again(job).error_code == "tool_server_unreachable"
    assert provider.requests == []
