"""A job type's work: the defaults of its jobs' work, with secrets that are shown nowhere and go nowhere else."""

import json
from typing import Any

import pytest

from agent_jobs.models import AuditEntry, Job, JobType, Org
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from tests import factories, rows
from tests.fakes.webhook import FakeReceiver
from tests.worker.test_loop import QuietKeeper

pytestmark = pytest.mark.django_db
TYPES = "/services/organizations/acme/agent-jobs-type"
SECRET = "s3cret-of-acme-42"


@pytest.fixture
def acme(db: None) -> factories.Api:
    rows.org("acme")
    return factories.api("acme", "SERVICES:WRITE")


@pytest.fixture
def work(receiver: FakeReceiver) -> dict[str, Any]:
    return {"url": receiver.address, "body": "{{ name }}", "auth": {"type": "bearer", "token": SECRET}}


def define(acme: factories.Api, work: dict[str, Any], **fields: Any) -> Any:
    return acme.post(TYPES, {"id": "ping", "name": "Ping", "runner": "webhook", "work": work, **fields})


def post(acme: factories.Api, **fields: Any) -> Any:
    return acme.post("/services/agent-jobs", {"job_type_id": "ping", "params": {"name": "Ann"}, **fields})


def test_a_job_needs_only_its_params(acme: factories.Api, receiver: FakeReceiver, work: dict[str, Any]) -> None:
    answer = define(acme, work)
    assert answer.status_code == 201, answer.content
    assert answer.json()["data"]["work"] == {**work, "auth": {"type": "bearer", "token": "******"}}
    assert post(acme).status_code == 201
    Worker(QuietKeeper()).serve("webhooks")
    (received,) = receiver.received
    assert (received.body, received.headers["authorization"]) == (b"Ann", f"Bearer {SECRET}")
    assert Job.objects.get().status == JobStatus.COMPLETED
    assert SECRET not in json.dumps(list(AuditEntry.objects.values_list("before", "after")), default=str)
    assert SECRET not in str(JobType.objects.values().get())


@pytest.mark.parametrize("given", [{}, {"work": {}}, {"work": None}], ids=["absent", "empty", "null"])
def test_a_job_and_a_schedules_job_without_a_work_take_that_of_the_type(
    acme: factories.Api, work: dict[str, Any], given: dict[str, Any]
) -> None:
    define(acme, work)
    job = {"job_type_id": "ping", "params": {"name": "Ann"}, **given}
    made = acme.post("/services/agent-schedules", {"name": "Ping", "cron": "@hourly", "job": job})
    assert made.status_code == 201, made.content
    run = acme.post(f"/services/agent-schedules/{made.json()['data']['id']}/run", None)
    assert (run.status_code, post(acme, **given).status_code) == (200, 201)
    bulk = acme.post("/services/agent-jobs/bulk", {"jobs": [job]})
    assert bulk.status_code == 201, bulk.content
    assert {one.work["url"] for one in Job.objects.all()} == {work["url"]}
    assert Job.objects.count() == 3


def test_without_a_work_of_the_type_a_job_must_bring_one(acme: factories.Api, work: dict[str, Any]) -> None:
    define(acme, {"auth": work["auth"]})
    answer = post(acme)
    assert (answer.status_code, factories.fields_of(answer)) == (400, ["work.url"])
    schedule = {"name": "Ping", "cron": "@hourly", "job": {"job_type_id": "ping"}}
    answer = acme.post("/services/agent-schedules", schedule)
    assert (answer.status_code, factories.fields_of(answer)) == (400, ["job.work.url"])


def test_a_jobs_own_keys_come_before_the_types(
    acme: factories.Api, receiver: FakeReceiver, work: dict[str, Any]
) -> None:
    define(acme, work)
    assert post(acme, work={"url": f"{receiver.address}/other", "method": "PUT"}).status_code == 201
    Worker(QuietKeeper()).serve("webhooks")
    (received,) = receiver.received
    assert (received.method, received.path, received.body) == ("PUT", "/in/other", b"Ann")


def test_a_types_secret_goes_to_no_other_host(acme: factories.Api, work: dict[str, Any]) -> None:
    define(acme, work)
    answer = post(acme, work={"url": "https://thief.example/"})
    assert (answer.status_code, factories.fields_of(answer)) == (400, ["work.auth.token"])
    own = {"url": "https://other.example/", "auth": {"type": "bearer", "token": "own"}}
    assert post(acme, work=own).status_code == 201
    stolen = {**work, "url": "https://thief.example/", "auth": {"type": "bearer", "token": "******"}}
    answer = acme.patch(f"{TYPES}/ping", {"work": stolen})
    assert (answer.status_code, factories.fields_of(answer)) == (400, ["work.auth.token"])


def test_a_command_of_its_own_does_not_get_the_types_environment(acme: factories.Api, settings: Any) -> None:
    settings.COMMAND_RUNNER = "trusted"
    Org.objects.update(allows_commands=True)
    assert define(acme, {"shell": "true", "environment": {"A": SECRET}}, runner="command").status_code == 201
    assert post(acme).status_code == 201
    answer = post(acme, work={"shell": "env | base64"})
    assert (answer.status_code, factories.fields_of(answer)) == (400, ["work.environment.A"])


def test_the_mask_in_an_update_keeps_the_stored_value(acme: factories.Api, work: dict[str, Any]) -> None:
    define(acme, work)
    masked = {**work, "auth": {"type": "bearer", "token": "******"}}
    answer = acme.patch(f"{TYPES}/ping", {"work": masked})
    assert (answer.status_code, answer.json()["data"]["version"]) == (200, 1)
    answer = acme.put(f"{TYPES}/ping", {"name": "Ping", "runner": "webhook", "work": {**masked, "method": "PUT"}})
    assert (answer.status_code, answer.json()["data"]["version"]) == (200, 2)
    post(acme)
    assert Job.objects.get().sealed_work
    answer = acme.patch(f"{TYPES}/ping", {"work": {**work, "auth": {"type": "bearer", "token": "another-one"}}})
    assert answer.json()["data"]["version"] == 3
    assert acme.put(f"{TYPES}/ping", {"name": "Ping", "runner": "webhook"}).json()["data"].get("work") is None
    assert JobType.objects.get().sealed_work == ""


def test_a_replay_repeats_what_was_recorded(acme: factories.Api, receiver: FakeReceiver, work: dict[str, Any]) -> None:
    define(acme, work)
    job_id = post(acme).json()["data"]["id"]
    acme.patch(f"{TYPES}/ping", {"work": {**work, "method": "PUT", "success_codes": [299]}})
    assert acme.post(f"/services/agent-jobs/{job_id}/replay").status_code == 201
    Worker(QuietKeeper()).serve("webhooks")
    assert [received.method for received in receiver.received] == ["POST", "POST"]


@pytest.mark.parametrize(
    ("runner", "work", "field"),
    [
        ("webhook", {"url": "ftp://example.com/"}, "work.url"),
        ("webhook", {"nonsense": 1}, "work.nonsense"),
        ("webhook", {"auth": {"type": "bearer", "token": "******"}}, "work.auth.token"),
        ("message", {"url": "https://example.com/"}, "work"),
    ],
)
def test_bad_work_of_a_type_is_a_400(acme: factories.Api, runner: str, work: dict[str, Any], field: str) -> None:
    answer = define(acme, work, runner=runner)
    assert (answer.status_code, factories.fields_of(answer)) == (400, [field])
    assert JobType.objects.count() == 0


def test_a_type_may_leave_the_rest_to_its_jobs(acme: factories.Api) -> None:
    assert define(acme, {"method": "PUT"}).status_code == 201
    assert factories.fields_of(post(acme)) == ["work.url"]
