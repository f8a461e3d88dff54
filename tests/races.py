"""Works that begin at the same moment, each in a thread and on a database connection of its own."""

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection, connections

from tests.waiting import PATIENCE


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """The result of each, or the exception that it raised, in their order."""
    barrier = threading.Barrier(len(works))
    outcomes: list[Any] = [None] * len(works)

    def run(place: int, work: Callable[[], Any]) -> None:
        try:
            barrier.wait(PATIENCE)
            outcomes[place] = work()
        except Exception as error:
            outcomes[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), f"not ended within {2 * PATIENCE} s"
    return outcomes


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    """The same, where none of them is to raise anything: the first exception goes on."""
    outcomes = at_once(*works)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def is_anybody_locked_out() -> bool:
    """Whether some session of this database waits for a lock of another one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees what it saw first
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database())"
        )
        return bool(cursor.fetchone()[0])
