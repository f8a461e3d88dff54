"""Requests read no more rows when an organisation has more jobs: the planner must never prefer the whole table."""

import pytest

from agent_jobs import lifecycle
from agent_jobs.lifecycle import OrgRotation
from agent_jobs.models import Job
from agent_jobs.states import JobStatus
from channels_integration import web_messages
from channels_integration.models import WebMessage
from tests import factories, rows
from tests.rows_read import ENOUGH, analyze, copies, rows_read

pytestmark = pytest.mark.django_db


@pytest.fixture
def ended():
    """An ended job, one of many like it; a channel with many messages; statistics that tell the planner so."""
    rows.job_type()
    job = rows.job(JobStatus.FAILED)
    copies(job, id="uuidv7()")
    web_messages.say("acme", "web", "lobby", text="Hi", author="Ann")
    copies(WebMessage.objects.get(), id="uuidv7()", position="position + n")
    analyze(Job, WebMessage)
    return job


def test_a_request_reads_as_few_rows_beside_many_ended_jobs(ended):
    api = factories.api()
    last = WebMessage.objects.latest("position").pk
    requests = {
        "a post": lambda: api.post("/services/agent-jobs", factories.job_request()),
        "a post of many": lambda: api.post("/services/agent-jobs/bulk", {"jobs": [factories.job_request()] * 3}),
        "a replay": lambda: api.post(f"/services/agent-jobs/{ended.pk}/replay"),
        "a read": lambda: api.get(f"/services/agent-jobs/{ended.pk}?include=activities"),
        "a wait for a message": lambda: web_messages.with_news({web_messages.Reader("acme", "web", "lobby", last)}),
        "a claim": lambda: lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), batch=10),
    }

    read = {}
    for name, ask in requests.items():
        before = rows_read()
        response = ask()
        read[name] = rows_read() - before
        assert getattr(response, "status_code", 200) < 300, response.content

    assert {name: count for name, count in read.items() if count > ENOUGH} == {}
