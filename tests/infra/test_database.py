"""One place decides what counts as an outage of the database."""

import ast
from pathlib import Path

import psycopg
import pytest
from django.db import DataError, IntegrityError, InterfaceError, InternalError, OperationalError, connection
from django.db.utils import ProgrammingError

from infra import database

ROOT = Path(__file__).resolve().parents[2]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("connection refused"), True),
        (InterfaceError("the connection is closed"), True),
        (caused(OperationalError(), psycopg.errors.DiskFull()), True),
        (caused(OperationalError(), psycopg.errors.AdminShutdown()), True),
        (caused(InternalError(), psycopg.errors.ReadOnlySqlTransaction()), True),
        (caused(InternalError(), psycopg.errors.IdleInTransactionSessionTimeout()), True),
        (caused(InternalError(), psycopg.errors.InFailedSqlTransaction()), False),
        (InternalError("cause unknown"), False),
        (ProgrammingError("no such table"), False),
        (IntegrityError("exists already"), False),
        (DataError("out of range"), False),
        (KeyError("runner"), False),
    ],
)
def test_an_outage_is_told_from_a_mistake(error: Exception, expected: bool) -> None:
    assert database.is_unavailable(error) is expected


@pytest.mark.parametrize(
    ("cause", "code", "said"),
    [
        (psycopg.errors.LockNotAvailable(), "busy", "another request has been changing the same rows"),
        (psycopg.errors.DeadlockDetected(), "busy", "another request has been changing the same rows"),
        (psycopg.errors.QueryCanceled(), "busy", "did not finish this request in time"),
        (psycopg.errors.AdminShutdown(), "unavailable", "cannot be reached"),
        (psycopg.OperationalError("connection refused"), "unavailable", "cannot be reached"),
    ],
)
def test_clients_are_told_an_outage_from_a_busy_database(cause: Exception, code: str, said: str) -> None:
    told = database.for_clients(caused(OperationalError(str(cause)), cause))

    assert told[0] == code
    assert said in told[1]


@pytest.mark.django_db(transaction=True)
def test_a_statement_refused_by_a_read_only_database_is_an_outage() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        with pytest.raises(database.Error) as refused:
            cursor.execute("UPDATE agent_jobs_org SET name = name")
    assert database.is_unavailable(refused.value)
    database.drop_session()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE agent_jobs_org SET name = name")


def test_nobody_else_decides_it() -> None:
    """An `except` for outages names `database.Error` and asks `is_unavailable`."""
    named = set()
    for package in ("agent_jobs", "channels_integration", "config"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ExceptHandler) and node.type is not None:
                    words = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
                    if words & {"OperationalError", "InternalError"}:
                        named.add(str(path.relative_to(ROOT)))
    # A lock that another request holds is told by its SQLSTATE.
    assert named == {f"agent_jobs/jobs/{name}.py" for name in ("bulk", "idempotency", "uniqueness")}
