"""Ready is who works, not who is connected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.processes import Service, stop
from tests.waiting import wait_for

pytestmark = pytest.mark.live


def unwell(service: Service) -> set[str]:
    status, body = service.request("GET", "/health/ready")
    checks: dict[str, Any] = body["checks"]
    found = {name for name, check in checks.items() if not check["ok"]}
    assert (status == 503) is bool(found)
    return found


def test_a_worker_that_is_connected_and_takes_nothing_is_not_ready(make_home: Callable[[], Path]) -> None:
    with Service(make_home()) as service:
        service.web()
        service.beat()
        deaf = service.worker("deaf", queues="elsewhere")
        wait_for(lambda: unwell(service) == {"workers"}, what="the workers are named")
        hearing = service.worker("hearing")
        wait_for(lambda: not unwell(service), what="all is well")
        assert stop(hearing) == 0
        wait_for(lambda: unwell(service) == {"workers"}, what="the workers are named again")
        assert deaf.poll() is None
        seen = service.sql("SELECT count(*) FROM agent_jobs_workerprocess WHERE seen_at > now() - interval '15 s'")
        assert seen[0][0] >= 1
