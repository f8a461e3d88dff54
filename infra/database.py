"""Decides when the database counts as unavailable, words that for clients, and drops broken sessions.

Web, workers, duties and channels all ask `is_unavailable`, so that they agree on an outage.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import Error, InterfaceError, InternalError, OperationalError, connection

from infra import prepared_sql

__all__ = [
    "Error",
    "drop_session",
    "drop_session_after_request",
    "for_clients",
    "is_of_one_statement",
    "is_outage",
    "is_unavailable",
    "now",
    "outage_survived",
    "reason",
]

# psycopg raises InternalError for the whole class 25. These codes mean an outage or an ended session, not a mistake.
_OUTAGES_OF_CLASS_25 = frozenset(
    {
        "25006",  # read_only_sql_transaction: after a failover, or a managed server whose disk is full
        "25P03",  # idle_in_transaction_session_timeout: the server ended the session
        "25P04",  # transaction_timeout: the same
    }
)

_BEHIND_LOCKS = frozenset({"55P03", "40P01"})  # lock_not_available (lock_timeout), deadlock_detected
_OF_ONE_STATEMENT = _BEHIND_LOCKS | {"57014"}  # query_canceled (statement_timeout)


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is down, full, starting, overloaded or read-only: the same work may succeed later."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return isinstance(error, InternalError) and getattr(error.__cause__, "sqlstate", "") in _OUTAGES_OF_CLASS_25


def is_of_one_statement(error: BaseException) -> bool:
    """Whether one statement failed (time-out, lock time-out, deadlock) while the database itself answers."""
    return getattr(error.__cause__, "sqlstate", "") in _OF_ONE_STATEMENT


def is_outage(error: BaseException) -> bool:
    """Whether the database is unavailable, and not only to one statement."""
    return is_unavailable(error) and not is_of_one_statement(error)


@contextmanager
def outage_survived(log: logging.Logger, what: str) -> Iterator[None]:
    """End the block when the database is unavailable: log it as `what`, and drop the session. Raises other errors."""
    try:
        yield
    except Error as error:
        if not is_unavailable(error):
            raise
        log.warning("%s: database unavailable: %s", what, reason(error))
        drop_session()


def for_clients(error: BaseException) -> tuple[str, str]:
    """The code and the message for a client whose request met an `is_unavailable` error."""
    if not is_of_one_statement(error):
        return "unavailable", "the database cannot be reached; try again soon"
    if getattr(error.__cause__, "sqlstate", "") in _BEHIND_LOCKS:
        return "busy", "another request has been changing the same rows for too long; try again soon"
    return "busy", "the database did not finish this request in time; try again soon"


def now() -> datetime:
    """The database's time at this call, also within a transaction."""
    found: datetime = prepared_sql.first("SELECT statement_timestamp()")[0]
    return found


def drop_session() -> None:
    """End this thread's database session, so that its next statement opens a new one.

    A session to a server that became read-only still answers, and would be kept: the new primary is elsewhere. A pool
    discards a connection that comes back closed.
    """
    if connection.connection is not None:
        connection.connection.close()
    connection.close()


def drop_session_after_request() -> None:
    """Drop the session of a web thread within a transaction: Django does it when the request is finished."""
    connection.close_at = 0.0


def reason(error: BaseException) -> str:
    """The first line of a database error, for a log line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
