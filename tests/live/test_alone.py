"""The last attempt of a job whose workers died, in the real processes: forked, and nothing of the worker's is open."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.processes import Service, stop
from tests.runners.test_zygote import is_gone
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


def test_a_conversation_whose_workers_died_has_its_last_turn_in_a_forked_process(
    make_home: Callable[[], Path],
) -> None:
    with Service(make_home(), AGENT_JOBS_WORKER_MAX_MEMORY_MB="1000") as service:
        service.web()
        service.make_type("talk", "conversation", "Say {{ word }}.")
        job_id = service.post_job("talk", params={"word": "hello"})
        service.sql("UPDATE agent_jobs_job SET crash_count = 2 WHERE id = %s", job_id)
        worker = service.worker()
        (zygote,) = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        assert len(os.listdir(f"/proc/{zygote}/task")) == 1
        wait_for(lambda: service.job(job_id)["waiting_for"] == "reply", what="it has asked")
        assert service.sql("SELECT text FROM agent_jobs_message WHERE job_id = %s", job_id)
        assert _had_children(zygote), service.log("worker")
        # Its line to the worker, and the two ends that signals wake it by.
        wait_for(lambda: len(_sockets(zygote)) == 3, what="the turn's own are closed")
        limits = Path(f"/proc/{zygote}/limits").read_text().splitlines()
        assert [line.split()[3] for line in limits if line.startswith("Max data size")] == [str(1000 << 20)]
        assert stop(worker) == 0
        wait_for(lambda: is_gone(int(zygote)), what="it has ended with its worker")


def _had_children(pid: str) -> bool:
    """Of those that ended and were heard of, it keeps the page faults."""
    of_children = 10 - 2
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[of_children]) > 0


def _sockets(pid: str) -> list[str]:
    files = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [name for name in files if name.startswith("socket:")]
