"""Statements that PostgreSQL plans at each call, for the given parameters. `prepared_sql` has those of hot paths."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper

Parameters = Mapping[str, Any] | Sequence[Any] | None


def run(statement: str, parameters: Parameters = None) -> int:
    """Returns the number of rows written."""
    with _executed(statement, parameters) as cursor:
        return int(cursor.rowcount)


def first(statement: str, parameters: Parameters = None) -> Any:
    """The first row as a tuple, or None."""
    with _executed(statement, parameters) as cursor:
        return cursor.fetchone()


def value(statement: str, parameters: Parameters = None) -> Any:
    """The first column of the first row. There must be one."""
    return first(statement, parameters)[0]


def all_rows(statement: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
    with _executed(statement, parameters) as cursor:
        return list(cursor.fetchall())


def rows_by_name(statement: str, parameters: Parameters = None) -> list[dict[str, Any]]:
    """The rows by column names."""
    with _executed(statement, parameters) as cursor:
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@contextmanager
def _executed(statement: str, parameters: Parameters) -> Iterator[CursorWrapper]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        yield cursor
