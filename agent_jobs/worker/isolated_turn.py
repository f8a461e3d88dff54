"""Takes a conversation's turn in a process of its own (`runners.invocation.call_alone`), with database and journal."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from agent_jobs.runners import invocation
from agent_jobs.runners.base import Outcome, Runner
from infra import meters, threads

if TYPE_CHECKING:  # its models need django.setup()
    from agent_jobs.lifecycle import Claim


log = logging.getLogger(__name__)


def take(runner: Runner, claim: Claim) -> Outcome:
    from agent_jobs.turns import runs

    threads.start_vital("inflight", _look)
    try:
        return runs.take(claim, runner)
    finally:
        meters.flush()


def _look() -> None:
    """Replaces the lease keeper: aborts the running call when the job is canceled."""
    from agent_jobs.turns.calls_in_flight import CALLS
    from infra import database

    pause = threading.Event()
    while not pause.wait(1.0):
        with database.outage_survived(log, "isolated turn"):
            CALLS.look()


if __name__ == "__main__":
    import django

    django.setup()
    invocation.serve(take)
