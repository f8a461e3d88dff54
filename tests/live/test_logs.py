"""The logs of the real processes, from granian to Celery: one JSON object a line, with its ids."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.processes import Service, stop
from tests.waiting import wait_for

pytestmark = pytest.mark.live


def lines(service: Service, name: str) -> list[dict[str, Any]]:
    # Celery prints this one past every logger.
    written = [line for line in service.log(name).splitlines() if line and "shutdown (MainProcess)" not in line]
    return [json.loads(line) for line in written]


def test_every_line_of_every_process_is_json(make_home: Callable[[], Path]) -> None:
    with Service(make_home(), AGENT_JOBS_LOG_LEVEL="DEBUG") as service:
        web = service.web("web")
        service.make_type("say", "message", "Number {{ n }}")
        worker, beat = service.worker("worker"), service.beat("beat")
        job_id = service.post_job("say", params={"n": 1}, tags=["canary"])
        service.wait_job(job_id, status="COMPLETED")
        web.send_signal(signal.SIGHUP)  # the master says so
        wait_for(lambda: service.answers(web, "web"), what="web answers")
        for process in (web, worker, beat):
            assert stop(process) == 0
        for name in ("web", "worker", "beat"):
            for line in lines(service, name):
                assert {"timestamp", "level", "logger", "event"} <= set(line), line
            assert service.token not in service.log(name)
            assert "canary" not in service.log(name)
        posts = [line for line in lines(service, "web") if line.get("route") == "/services/agent-jobs"]
        assert [(line["method"], line["status"], line["org"]) for line in posts] == [("POST", 201, "acme")]
        assert posts[0]["request_id"]
        turns = [line for line in lines(service, "worker") if line["event"].startswith("turn 1 ended")]
        assert [(line["org"], line["job"]) for line in turns] == [("acme", job_id)]
        assert turns[0]["task"]
