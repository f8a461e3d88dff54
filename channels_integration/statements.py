"""Statements that run several times for every message, planned once for a connection.

Half of PostgreSQL's work for a message was planning (7.7 of 15 ms). Django sends every statement as a new text, so
these go by psycopg's own cursor, with parameters that the server puts in. What is planned is planned without them
(`plan_cache_mode` in the settings) and kept until the tables' statistics change, so such a statement has to be one that
has only one good plan: by an index, to a few rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection


def run(statement: str, parameters: Mapping[str, Any] | None = None) -> int:
    """How many rows it wrote."""
    with _executed(statement, parameters or {}) as cursor:
        return int(cursor.rowcount)


def first(statement: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Its first row as a tuple, or None."""
    with _executed(statement, parameters or {}) as cursor:
        return cursor.fetchone()


def all_rows(statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    with _executed(statement, parameters or {}) as cursor:
        return list(cursor.fetchall())


def first_by_name(statement: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Its first row by the names of its columns, or None."""
    with _executed(statement, parameters or {}) as cursor:
        found = cursor.fetchone()
        return None if found is None else dict(zip((column.name for column in cursor.description), found, strict=True))


@contextmanager
def _executed(statement: str, parameters: Mapping[str, Any]) -> Iterator[Any]:
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(statement, parameters, prepare=True)
        yield cursor
