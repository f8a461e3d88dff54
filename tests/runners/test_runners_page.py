"""The examples of docs/runners.md are jobs that this service makes and performs."""

import json
import re
from typing import Any

import pytest
import standardwebhooks

from agent_jobs import runners
from agent_jobs.models import Job
from agent_jobs.runners import webhook_work
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from tests import factories, rows
from tests.architecture.test_project_rules import ROOT
from tests.fakes.webhook import FakeReceiver, Reply
from tests.worker.test_loop import QuietKeeper

pytestmark = pytest.mark.django_db
PAGE = (ROOT / "docs/runners.md").read_text()
EXAMPLES: dict[str, dict[str, Any]] = {
    example["job_type_id"]: example for example in map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
}


def test_the_webhook_is_sent_as_the_page_says(receiver: FakeReceiver) -> None:
    rows.job_type(key="ping", runner="webhook", default_config={})
    example = EXAMPLES["ping"]
    acme = factories.api("acme", "SERVICES:WRITE")
    assert acme.post("/services/agent-jobs", example).status_code == 201
    here = example["work"]["url"].replace("https://hooks.example.com", f"http://127.0.0.1:{receiver.port}")
    receiver.replies = [Reply(202)]
    Job.objects.all().delete()
    assert acme.post("/services/agent-jobs", example | {"work": {**example["work"], "url": here}}).status_code == 201
    Worker(QuietKeeper()).serve("webhooks")
    (received,) = receiver.received
    assert (received.path, received.headers["x-team"]) == ("/a%20b", "team of Ann")
    signed = standardwebhooks.Webhook(example["work"]["sign_with"]).verify(received.body, received.headers)
    assert signed == {"greeting": "Hello Ann"}
    job = Job.objects.get()
    assert (job.status, received.headers["webhook-id"]) == (JobStatus.COMPLETED, str(job.pk))


def test_the_command_runs_as_the_page_says(settings: Any) -> None:
    settings.COMMAND_RUNNER = "trusted"
    rows.org("acme", allows_commands=True)
    rows.job_type(key="report", runner="command", default_config={})
    answer = factories.api("acme", "SERVICES:WRITE").post("/services/agent-jobs", EXAMPLES["report"])
    assert answer.status_code == 201, answer.content
    Worker(QuietKeeper()).serve("commands")
    job = Job.objects.get()
    assert job.status == JobStatus.COMPLETED, job.error_message
    assert job.result_data == {"exit_code": 0, "stdout": '{"DAY": "MONDAY"}\nfrom the work'}


def test_every_runner_and_every_key_is_on_the_page() -> None:
    assert [name for name in runners.names() if f"| `{name}` |" not in PAGE] == []
    assert [key for key in webhook_work.KEYS if f"| `{key}` |" not in PAGE] == []
