"""The last attempt of a job whose workers died, in the real processes: it runs in a child of the worker."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.processes import Service, stop
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


def test_a_conversation_whose_workers_died_has_its_last_turn_in_a_process_of_its_own(
    make_home: Callable[[], Path],
) -> None:
    with Service(make_home()) as service:
        service.web()
        service.make_type("talk", "conversation", "Say {{ word }}.")
        job_id = service.post_job("talk", params={"word": "hello"})
        service.sql("UPDATE agent_jobs_job SET crash_count = 2 WHERE id = %s", job_id)
        worker = service.worker()
        wait_for(lambda: service.job(job_id)["waiting_for"] == "reply", what="it has asked")
        assert service.sql("SELECT text FROM agent_jobs_message WHERE job_id = %s", job_id)
        assert _had_children(worker.pid), service.log("worker")
        assert stop(worker) == 0


def _had_children(pid: int) -> bool:
    """Linux keeps the page faults of children that have ended."""
    of_children = 10 - 2
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[of_children]) > 0
