"""Claims and reports through the web process's own application: long-polls keep their body, and large bodies are read
only where a view says so."""

import asyncio
import json

import pytest

from agent_jobs.api import streams
from agent_jobs.models import Job, Task
from tests import factories, rows
from tests.executors.conftest import claimed
from tests.web_processes import Web, elsewhere, sessions_end_with_their_threads

__all__ = ["sessions_end_with_their_threads"]
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sessions_end_with_their_threads"),
]
MIB = 1024 * 1024


@pytest.fixture
def executor() -> factories.Api:
    rows.job_type(key="render", runner="external", default_config={})
    return factories.api("acme", "SERVICES:EXECUTE")


@pytest.fixture
def web(executor: factories.Api) -> Web:
    return Web(executor.headers["Authorization"].removeprefix("Bearer "))


def external() -> Job:
    placement = "\x1frender"
    return rows.job(org_id="acme", job_type_key="render", runner="external", lane="external", placement=placement)


def test_a_waiting_claim_is_run_again_with_its_body_and_gets_the_job(web: Web) -> None:
    async def script() -> None:
        body = json.dumps({"executor_id": "e1", "address": "host", "wait": 30}).encode()
        asking = asyncio.create_task(web.ask("POST", "/services/executors/claim", body))
        while not streams.AnswerSlot._taken.total():
            await asyncio.sleep(0.01)
        assert web.application._running == 0, "it holds no thread"
        assert web.application._body_bytes == len(body)
        job = await elsewhere(external)
        status, answer = await asking
        assert (status, answer["data"][0]["job_id"]) == (200, str(job.pk))
        assert web.application._body_bytes == 0

    web.run(script)
    assert Task.objects.get().executor_address == "host"


def test_one_job_wakes_one_of_many_waiting_executors(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script() -> None:
        claims = [
            asyncio.create_task(
                web.ask("POST", "/services/executors/claim", json.dumps({"executor_id": f"e{n}", "wait": 30}).encode())
            )
            for n in range(10)
        ]
        while streams.AnswerSlot._taken.total() < 10:
            await asyncio.sleep(0.01)
        await elsewhere(external)
        done, waiting = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
        assert [claim.result()[0] for claim in done] == [200]
        assert len(waiting) == 9
        for claim in waiting:
            claim.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    web.run(script)
    assert Task.objects.count() == 1


def test_an_executor_that_leaves_while_it_waits_gets_no_job(web: Web) -> None:
    async def script() -> None:
        leaves = asyncio.Event()
        body = json.dumps({"executor_id": "e1", "wait": 30}).encode()
        asking = asyncio.create_task(web.ask("POST", "/services/executors/claim", body, leaves=leaves))
        while not streams.AnswerSlot._taken.total():
            await asyncio.sleep(0.01)
        leaves.set()
        await asking
        await elsewhere(external)
        assert (streams.AnswerSlot._taken.total(), web.application._body_bytes) == (0, 0)

    web.run(script)
    assert Job.objects.get().status == "WAITING"


def test_a_report_of_fifteen_mebibytes_is_read_and_a_claim_of_that_size_is_not(
    web: Web, executor: factories.Api
) -> None:
    external()
    job = claimed(executor)

    async def script() -> None:
        held = {"executor_id": "e1", "lease_token": job["lease_token"], "stdout": "x" * 15 * MIB}
        body = json.dumps(held).encode()
        for prefix in ("/api/v0/services", "/services"):
            status, answer = await web.ask("POST", f"{prefix}/executors/claim", body)
            assert (status, answer["code"]) == (413, "body_too_large")
        path = f"/api/v0/services/executors/jobs/{job['job_id']}/complete"
        status, answer = await web.ask("PUT", path, body)
        assert (status, answer["data"]["job_status"]) == (200, "COMPLETED")
        status, answer = await web.ask("PUT", path, b" " * (16 * MIB + 1))
        assert (status, answer["code"]) == (413, "body_too_large")

    web.run(script)
    assert Task.objects.get().report["stdout_bytes_total"] == 15 * MIB
