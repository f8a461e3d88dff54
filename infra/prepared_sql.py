"""Statements that run several times for every message, planned once for a connection.

Half of PostgreSQL's work for a message was planning (7.7 of 15 ms). Django sends every statement as a new text, so
these go by psycopg's own cursor, with parameters that the server puts in. What is planned is planned without them
(`plan_cache_mode` in the settings) and kept until the tables' statistics change, so such a statement has to be one that
has only one good plan: by an index, to a few rows.
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


def instance(model: type[_Row], where: str, parameters: Mapping[str, Any], *, and_then: str = "") -> _Row | None:
    """The first row of a model for which `where` holds (an order may follow it), or None. `and_then`: a lock."""
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
    """As a list for a SELECT, their attributes, and what Django makes of those that it does not take as they come."""
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
