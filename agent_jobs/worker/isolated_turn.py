"""Takes a conversation's turn in a process of its own (`runners.invocation.call_alone`), with database and journal."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent_jobs.runners import invocation
from agent_jobs.runners.base import Outcome, Runner
from infra import meters, threads

if TYPE_CHECKING:  # its models need django.setup()
    from agent_jobs.lifecycle import Claim


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
        try:
            CALLS.look()
        except database.Error as error:
            if not database.is_unavailable(error):
                raise
            database.drop_session()


if __name__ == "__main__":
    import django

    django.setup()
    invocation.serve(take)
