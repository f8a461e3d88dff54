"""A conversation's turn in a process of its own (`runners.calling.call_alone`): with a journal, so with a database."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent_jobs.runners import calling
from agent_jobs.runners.base import Outcome, Runner
from channels_integration import tally
from infra import threads

if TYPE_CHECKING:  # its tables are there only after django.setup()
    from agent_jobs.services.transitions import Claim


def take(runner: Runner, claim: Claim) -> Outcome:
    from agent_jobs.services import turns

    threads.start_vital("inflight", _look)
    try:
        return turns.take(claim, runner)
    finally:
        tally.flush()


def _look() -> None:
    """In place of the lease keeper: a call is given up when the job is canceled."""
    from agent_jobs.services.inflight import CALLS
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
    calling.serve(take)
