from collections.abc import Callable
from typing import Any

import pytest

from tests import factories, rows

CLAIM = "/services/executors/claim"


@pytest.fixture
def acme(db: None) -> factories.Api:
    """A client with WRITE in our organisation, which has the external job type `render`."""
    rows.job_type(key="render", runner="external", default_config={})
    return factories.api("acme", "SERVICES:WRITE")


@pytest.fixture
def executor(acme: factories.Api) -> factories.Api:
    """A client that may only execute."""
    return factories.api("acme", "SERVICES:EXECUTE")


@pytest.fixture
def posted(acme: factories.Api) -> Callable[..., str]:
    """Posts a job of the type `render` and returns its id."""

    def post(work: dict[str, Any] | None = None, **fields: Any) -> str:
        body = {"job_type_id": "render", "work": work or {}, **fields}
        response = acme.post("/services/agent-jobs", body)
        assert response.status_code == 201, response.content
        return str(response.json()["data"]["job_id"])

    return post


def claim(executor: factories.Api, executor_id: str = "e1", **fields: Any) -> Any:
    return executor.post(CLAIM, {"executor_id": executor_id, **fields})


def claimed(executor: factories.Api, executor_id: str = "e1", **fields: Any) -> dict[str, Any]:
    """The one job that a claim gives."""
    response = claim(executor, executor_id, **fields)
    assert response.status_code == 200, response.content
    (job,) = response.json()["data"]
    return dict(job)


def tell(executor: factories.Api, verb: str, job: dict[str, Any], executor_id: str = "e1", **fields: Any) -> Any:
    """A heartbeat, complete, fail or release for a claimed job."""
    body = {"executor_id": executor_id, "lease_token": job["lease_token"], **fields}
    return executor.put(f"/services/executors/jobs/{job['job_id']}/{verb}", body)
