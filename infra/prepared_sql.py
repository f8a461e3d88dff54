"""Prepared statements: for SQL that runs several times per message, planned once per connection.

Planning took half of PostgreSQL's work for a message (7.7 of 15 ms). Django sends every statement as new text, so these
use psycopg's own cursor, with parameters bound by the server. The server plans without parameter values
(`plan_cache_mode` in the settings), and keeps the plan until the tables' statistics change. So use this only for
statements with one good plan: by an index, to a few rows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from django.db import connection
from django.db.models import Model

_Row = TypeVar("_Row", bound=Model)


def run(statement: str, parameters: Mapping[str, Any] | None = None) -> int:
    """Returns the number of rows written."""
    with _executed(statement, parameters or {}) as cursor:
        return int(cursor.rowcount)


def first(statement: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """The first row as a tuple, or None."""
    with _executed(statement, parameters or {}) as cursor:
        return cursor.fetchone()


def all_rows(statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    with _executed(statement, parameters or {}) as cursor:
        return list(cursor.fetchall())


def first_by_name(statement: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The first row by column names, or None."""
    with _executed(statement, parameters or {}) as cursor:
        found = cursor.fetchone()
        return None if found is None else dict(zip((column.name for column in cursor.description), found, strict=True))


def instance(model: type[_Row], where: str, parameters: Mapping[str, Any], *, and_then: str = "") -> _Row | None:
    """The first row of a model for which `where` holds (it may end in ORDER BY), or None. `and_then`: a lock clause."""
    columns, names, converters = _columns_of(model)
    found = first(f"SELECT {columns} FROM {model._meta.db_table} WHERE {where} LIMIT 1 {and_then}", parameters)  # noqa: S608
    if found is None:
        return None
    values = list(found)
    for place, convert in converters:
        values[place] = convert(values[place], None, connection)
    return model.from_db(connection.alias, names, values)


@lru_cache
def _columns_of(model: type[Model]) -> tuple[str, list[str], list[tuple[int, Callable[..., Any]]]]:
    """The columns for a SELECT, their attributes, and the converters of columns that need Django's conversion."""
    fields = model._meta.concrete_fields
    columns = ", ".join(f'"{field.column}"' for field in fields)
    converters = [(n, field.from_db_value) for n, field in enumerate(fields) if hasattr(field, "from_db_value")]
    return columns, [field.attname for field in fields], converters


@contextmanager
def _executed(statement: str, parameters: Mapping[str, Any]) -> Iterator[Any]:
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(statement, parameters, prepare=True)
        if connection.queries_logged:  # tests count them
            connection.queries_log.append({"sql": statement, "time": ""})
        yield cursor
