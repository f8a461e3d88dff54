"""An executor claims the jobs that fit it, in their order, and sees only what it needs of them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import F

from agent_jobs.lifecycle import executor_claims
from agent_jobs.models import Executor, Job, Task
from agent_jobs.runners import external
from tests import factories, rows
from tests.executors.conftest import claim, claimed
from tests.races import in_threads

pytestmark = pytest.mark.django_db
Posted = Callable[..., str]
SHA = "ab" * 32
WORK = {
    "binary_url": "https://example.com/tool",
    "binary_sha256": SHA.upper(),
    "arguments": ["--all", "x y"],
    "environment": {"KEY": "s3cret-value"},
    "type": "render",
    "labels": ["gpu"],
}


def test_a_claim_shows_the_whole_work_with_its_secrets(executor: factories.Api, posted: Posted) -> None:
    job_id = posted(WORK, params={"n": 1})
    job = claimed(executor, labels=["gpu", "big"], address="host-1")
    assert job["job_id"] == job_id
    assert job["work"] == {**WORK, "binary_sha256": SHA}
    assert (job["lease_token"], job["lease_seconds"], job["attempt"]) == (1, 30.0, 1)
    assert (job["type"], job["params"]) == ("render", {"n": 1})
    task = Task.objects.get(pk=job["task_id"])
    assert (task.executor_id, task.executor_address, task.status) == ("e1", "host-1", "RUNNING")


def test_readers_see_the_mask_and_the_executor(acme: factories.Api, executor: factories.Api, posted: Posted) -> None:
    job_id = posted(WORK)
    claimed(executor, labels=["gpu"], address="host-1")
    shown = acme.get(f"/services/agent-jobs/{job_id}").json()["data"]
    assert shown["work"]["environment"] == {"KEY": "******"}
    assert shown["executor_id"] == "e1"
    assert shown["job_status"] == "RUNNING"
    assert shown["tasks"][0]["executor_address"] == "host-1"
    assert "s3cret-value" not in str(Job.objects.values().get(pk=job_id))


def test_a_claim_without_jobs_is_204_without_a_body(executor: factories.Api) -> None:
    response = claim(executor)
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize(
    ("work", "asks", "is_given"),
    [
        ({}, {}, True),
        ({"labels": ["gpu"]}, {}, False),
        ({"labels": ["gpu"]}, {"labels": ["cpu"]}, False),
        ({"labels": ["gpu", "big"]}, {"labels": ["gpu"]}, False),
        ({"labels": ["gpu", "big"]}, {"labels": ["big", "new", "gpu"]}, True),
        ({"type": "sum"}, {"job_types": ["render"]}, False),
        ({"type": "sum"}, {"job_types": ["render", "sum"]}, True),
        ({}, {"job_types": ["render"]}, True),
        ({}, {"binary_only": True}, False),
        ({"binary_url": "http://h/x", "binary_sha256": SHA}, {"binary_only": True}, True),
    ],
)
@pytest.mark.parametrize("way", ["placements", "order", "caps"])
def test_an_executor_gets_only_what_it_fits(
    executor: factories.Api,
    posted: Posted,
    monkeypatch: pytest.MonkeyPatch,
    work: dict[str, Any],
    asks: dict[str, Any],
    is_given: bool,
    way: str,
) -> None:
    if way == "order":
        monkeypatch.setattr(executor_claims, "MOST_PLACEMENTS", 0)
    if way == "caps":
        rows.org().__class__.objects.filter(pk="acme").update(max_running_jobs=10)
    posted(work)
    assert claim(executor, **asks).status_code == (200 if is_given else 204)
    stated = {"labels": asks.get("labels", ()), "types": asks.get("job_types", ())}
    placement = external.placement(work, "render")
    assert external.fits(placement, **stated, binary_only=asks.get("binary_only", False)) == is_given


def test_jobs_come_in_the_order_of_the_queue_whatever_their_labels(executor: factories.Api, posted: Posted) -> None:
    wanted = [posted({"labels": labels}) for labels in (["b"], [], ["a"], ["b"])]
    urgent = posted({"labels": ["a", "b"]}, priority=9)
    jobs = claim(executor, labels=["a", "b"], max_jobs=100).json()["data"]
    assert [job["job_id"] for job in jobs] == [urgent, *wanted]


def test_an_old_job_overtakes_a_more_urgent_one(executor: factories.Api, posted: Posted) -> None:
    from datetime import timedelta

    old, urgent = posted(priority=0), posted(priority=9)
    Job.objects.filter(pk=old).update(queue_at=F("queue_at") - timedelta(minutes=10))
    jobs = claim(executor, max_jobs=2).json()["data"]
    assert [job["job_id"] for job in jobs] == [old, urgent]


def test_a_cap_of_running_jobs_holds_for_executors_too(executor: factories.Api, posted: Posted) -> None:
    rows.org().__class__.objects.filter(pk="acme").update(max_running_jobs=2)
    for _ in range(3):
        posted()
    assert len(claim(executor, max_jobs=10).json()["data"]) == 2
    assert claim(executor).status_code == 204


def test_an_executor_is_known_by_its_id(executor: factories.Api, acme: factories.Api, posted: Posted) -> None:
    job_id = posted()
    claim(executor, address="a", labels=["x"], job_types=["render"])
    claim(executor, address="b", labels=["y"])
    claim(executor, "e2")
    shown = {row["executor_id"]: row for row in acme.get("/services/executors").json()["data"]}
    assert set(shown) == {"e1", "e2"}
    assert (shown["e1"]["address"], shown["e1"]["labels"], shown["e1"]["job_types"]) == ("b", ["y"], [])
    assert [job["job_id"] for job in shown["e1"]["jobs"]] == [job_id]
    assert shown["e1"]["is_active"]
    assert shown["e2"]["jobs"] == []


def test_an_executor_that_was_not_seen_for_a_while_is_not_active(executor: factories.Api, acme: factories.Api) -> None:
    from datetime import timedelta

    claim(executor)
    Executor.objects.update(last_seen_at=F("last_seen_at") - timedelta(seconds=120))
    assert acme.get("/services/executors").json()["data"][0]["is_active"] is False


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"executor_id": None}, "executor_id"),
        ({"executor_id": " "}, "executor_id"),
        ({"executor_id": "x" * 256}, "executor_id"),
        ({"address": "x" * 256}, "address"),
        ({"address": 7}, "address"),
        ({"labels": "gpu"}, "labels"),
        ({"labels": ["a b"]}, "labels"),
        ({"labels": [f"l{n}" for n in range(51)]}, "labels"),
        ({"job_types": [1]}, "job_types"),
        ({"max_jobs": 0}, "max_jobs"),
        ({"max_jobs": 101}, "max_jobs"),
        ({"wait": 31}, "wait"),
        ({"wait": -1}, "wait"),
        ({"wait": "5"}, "wait"),
        ({"binary_only": "yes"}, "binary_only"),
        ({"pool": "x"}, "pool"),
    ],
)
def test_a_malformed_claim_is_a_400_that_names_the_field_and_registers_nobody(
    executor: factories.Api, posted: Posted, fields: dict[str, Any], named: str
) -> None:
    posted()
    response = executor.post("/services/executors/claim", {"executor_id": "e1", **fields})
    assert response.status_code == 400, response.content
    assert named in {field.split(".")[0] for field in factories.fields_of(response)}
    assert Job.objects.get().status == "WAITING"
    assert not Executor.objects.exists()


@pytest.mark.parametrize(
    ("work", "named"),
    [
        ({"binary_url": "ftp://x/y", "binary_sha256": SHA}, "work.binary_url"),
        ({"binary_url": "https://", "binary_sha256": SHA}, "work.binary_url"),
        ({"binary_url": "https://h/a b", "binary_sha256": SHA}, "work.binary_url"),
        ({"binary_url": "https://h/x"}, "work.binary_sha256"),
        ({"binary_sha256": SHA}, "work.binary_url"),
        ({"binary_url": "https://h/x", "binary_sha256": "abc"}, "work.binary_sha256"),
        ({"arguments": "x"}, "work.arguments"),
        ({"arguments": [1]}, "work.arguments"),
        ({"environment": {"K": 1}}, "work.environment"),
        ({"environment": {"K=": "v"}}, "work.environment"),
        ({"environment": {"K": "******"}}, "work.environment.K"),
        ({"type": "a b"}, "work.type"),
        ({"type": ""}, "work.type"),
        ({"labels": ["a b"]}, "work.labels"),
        ({"command": "ls"}, "work.command"),
    ],
)
def test_a_work_that_no_executor_could_perform_is_refused(
    acme: factories.Api, work: dict[str, Any], named: str
) -> None:
    response = acme.post("/services/agent-jobs", {"job_type_id": "render", "work": work})
    assert response.status_code == 400
    assert factories.fields_of(response) == [named]
    assert not Job.objects.exists()


@pytest.mark.parametrize("scope", ["READ", "WRITE"])
def test_only_execute_and_admin_may_claim(acme: factories.Api, posted: Posted, scope: str) -> None:
    posted()
    refused = claim(factories.api("acme", f"SERVICES:{scope}"))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert claim(factories.api("acme", "SERVICES:ADMIN")).status_code == 200


def test_execute_alone_can_neither_read_nor_post(executor: factories.Api) -> None:
    assert executor.get("/services/agent-jobs").status_code == 403
    assert executor.post("/services/agent-jobs", {"job_type_id": "render", "work": {}}).status_code == 403


def test_an_executor_sees_only_the_jobs_of_its_organisation(executor: factories.Api, posted: Posted) -> None:
    posted()
    rows.job_type("rival", key="render", runner="external", default_config={})
    stranger = factories.api("rival", "SERVICES:EXECUTE")
    assert claim(stranger).status_code == 204
    assert claim(executor).status_code == 200


def test_workers_leave_external_jobs_alone(posted: Posted) -> None:
    from agent_jobs import lifecycle, runners

    posted()
    for lane in runners.lanes():
        assert not lifecycle.settle_and_claim([], lane=lane, turn=lifecycle.OrgRotation(), worker_id=1).claimed


def test_a_claim_that_waits_gets_a_job_that_comes_meanwhile(executor: factories.Api, posted: Posted) -> None:
    """The request finds nothing, stays open, and runs again when a job is there."""
    from tests import open_answers

    first = executor.client.post(
        "/services/executors/claim",
        {"executor_id": "e1", "wait": 30},
        content_type="application/json",
        headers=executor.headers,
    )
    assert hasattr(first, "opened")
    job_id = posted()
    open_answers.wait(first)
    assert claimed(executor)["job_id"] == job_id


@pytest.mark.django_db(transaction=True)
def test_fifty_executors_at_once_never_share_a_job(executor: factories.Api, posted: Posted) -> None:
    jobs = {posted() for _ in range(30)}
    clients = [factories.Api(executor.headers["Authorization"].removeprefix("Bearer ")) for _ in range(50)]
    answers = in_threads(*[lambda n=n, one=one: claim(one, f"e{n}") for n, one in enumerate(clients)])
    assert {answer.status_code for answer in answers} <= {200, 204}
    given = [job["job_id"] for answer in answers if answer.status_code == 200 for job in answer.json()["data"]]
    assert len(given) == len(set(given))
    assert set(given) == jobs
    assert Task.objects.count() == 30
