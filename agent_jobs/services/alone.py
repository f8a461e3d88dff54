"""A conversation's turn in a process of its own (`runners.calling.call_alone`): with a journal, so with a database."""

import threading
from typing import Any

from agent_jobs.runners import calling
from agent_jobs.runners.base import Outcome, Runner
from channels_integration import tally


def take(runner: Runner, claim: dict[str, Any]) -> Outcome:
    from agent_jobs.services import turns

    threading.Thread(target=_look, name="inflight", daemon=True).start()
    try:
        return turns.take(claim, runner)
    finally:
        tally.flush()


def _look() -> None:
    """In place of the lease keeper: a call is given up when the job is canceled."""
    from django.db import Error, connection

    from agent_jobs.services.inflight import CALLS

    pause = threading.Event()
    while not pause.wait(1.0):
        try:
            CALLS.look()
        except Error:
            connection.close()


if __name__ == "__main__":
    import django

    django.setup()
    calling.serve(take)
