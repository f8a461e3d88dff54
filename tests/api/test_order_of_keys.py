"""JSON of clients comes back with its keys in the order in which they were sent."""

import json

import pytest

from agent_jobs.models import Job, JobType, PlaceHours
from agent_jobs.runners.base import Done
from agent_jobs.worker.loop import Worker
from channels_integration.models import OutboundMessage
from tests import factories, rows
from tests.conversations import QuietKeeper, ask, broken

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
TYPES = "/services/organizations/acme/agent-jobs-type"
# jsonb would put the short keys first.
ODD = {"zebra": 1, "a": {"long_name": 2, "b": [{"y": 1, "x": 2}], "": 3}, "middle": None, "B": "é", "aa": 1.50}


def text(value):
    return json.dumps(value)


def test_a_jobs_params_config_and_channel_data_keep_their_order(acme):
    rows.job_type(key="asks", default_config={"max_steps": 3, "cancel_note": True})
    config = {"task_retry_interval": 2, "max_follow_ups": 1, "cancel_note": False}
    target = {"org_id": "acme", "platform": "web", "code": "lobby", "data": ODD}
    body = factories.job_request(job_type_id="asks", params=ODD, config=config, target_channel=target)

    made = acme.post(JOBS, body, **{"Idempotency-Key": "k"}).json()["data"]
    again = acme.post(JOBS, body, **{"Idempotency-Key": "k"}).json()["data"]
    shown = acme.get(f"{JOBS}/{made['id']}").json()["data"]
    (listed,) = acme.get(JOBS).json()["data"]

    for answer in (made, again, shown, listed):
        assert text(answer["params"]) == text(ODD)
        assert text(answer["config"]) == text({**config, "max_steps": 3})
        assert text({key: answer["channel_data"][key] for key in answer["channel_data"] if key in ODD}) == text(ODD)


def test_a_schema_and_tools_keep_their_order(acme):
    schema = {"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}, "a": {"enum": [1]}}}
    tool = {"type": "ask_approval", "on_timeout": "deny", "approval_minutes": 5, "approvers": ["ann"]}
    entry = {"id": "t", "name": "T", "params_schema": schema, "result_schema": schema, "tools": [tool]}

    made = acme.post(TYPES, entry).json()["data"]
    shown = acme.get(f"{TYPES}/t").json()["data"]

    for answer in (made, shown):
        for field in ("params_schema", "result_schema", "tools"):
            assert text(answer[field]) == text(entry[field])


def test_a_schema_in_another_order_is_a_change(acme):
    rows.job_type(params_schema={"type": "object", "required": ["b"]})
    other = {"required": ["b"], "type": "object"}

    shown = acme.patch(f"{TYPES}/greet", {"params_schema": other}).json()["data"]

    assert text(shown["params_schema"]) == text(other)
    assert text(JobType.objects.get().params_schema) == text(other)


def test_a_schema_that_says_true_for_one_is_a_change(acme):
    rows.job_type(params_schema={"const": 1})

    acme.patch(f"{TYPES}/greet", {"params_schema": {"const": True}})

    assert JobType.objects.get().params_schema["const"] is True


def test_hours_keep_their_order(acme):
    admin = factories.api("acme", "SERVICES:ADMIN")
    hours = {"time_zone": "UTC", "holidays": ["2030-01-01"], "open": {"tue": ["09:00-10:00"], "mon": ["09:00-10:00"]}}
    path = "/services/organizations/acme/hours/channels/web/lobby"

    put = admin.put(path, {"hours": hours})

    assert text(put.json()["data"]["hours"]) == text(hours)
    assert text(admin.get(path).json()["data"]["hours"]) == text(hours)
    assert text(PlaceHours.objects.get().hours) == text(hours)


@pytest.mark.parametrize("result", [ODD, None, [3, ODD], "text"], ids=str)
def test_a_result_keeps_its_order_through_the_settlement(acme, monkeypatch, result):
    job = ask()
    broken(monkeypatch, lambda run: Done("fine", result_data=result))

    Worker(QuietKeeper()).serve("agents")

    shown = acme.get(f"{JOBS}/{job.pk}").json()["data"]
    assert shown["job_status"] == "COMPLETED"
    assert text(shown.get("result_data")) == text(result)
    assert Job.objects.filter(result_data__isnull=True).exists() == (result is None)


def test_channel_data_keeps_its_order_in_the_outbox():
    rows.job(platform="null", channel_code="nowhere", prompt="Hello", channel_data=ODD)

    Worker(QuietKeeper()).serve("messages")

    assert text(OutboundMessage.objects.get().details) == text(ODD)
