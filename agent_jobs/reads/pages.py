"""Pagination: selects the rows of one page, within a limit on their bytes. `queries` has the lists themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Func, IntegerField, JSONField, Model, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast

Row = Mapping[str, Any]
# Texts and JSON as they appear in answers. Four such pages at once cost a web process about 100 MB.
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    column: str
    is_descending: bool = False


OLDEST_FIRST = (Order("created_at"), Order("id"))


@dataclass(frozen=True, slots=True)
class Window:
    """A range of a sorted list. `after` holds the sort values of the last row seen."""

    order: tuple[Order, ...]
    limit: int
    offset: int = 0
    after: tuple[Any, ...] | None = None


def page(
    rows: QuerySet[Any], window: Window, columns: Sequence[str], *, more_bytes: Any = 0, most_bytes: int | None = None
) -> tuple[list[Row], bool]:
    """The window's rows, and whether there are more after them. `columns` include those of the order.

    The page ends early, after at least one row, once its rows reach `most_bytes` (MAX_BYTES). `more_bytes` is an
    expression for the size of what else the answer shows of a row.
    """
    # Select ids first: skipped rows are then read from the index alone, and only the window's rows are measured.
    ids = ordered(rows, window).values("pk")[window.offset : window.offset + window.limit + 1]
    model: type[Model] = rows.model
    shown = model._default_manager.filter(pk__in=ids).annotate(more_bytes=more_bytes or Value(0))
    compiler = shown.values(*columns, "more_bytes").query.get_compiler(using=rows.db)
    try:
        sql, parameters = compiler.as_sql()
    except EmptyResultSet:  # a filter that no row can match
        return [], False
    bounded = _bounded(model, tuple(columns), window.order).format(rows=sql)
    with connections[rows.db].cursor() as cursor:
        cursor.execute(bounded, [*parameters, most_bytes or MAX_BYTES, window.limit])
        fetched = cursor.fetchall()
    found: list[Row] = [dict(zip(columns, row, strict=False)) for row in compiler.results_iter([fetched])]
    return found, bool(found) and fetched[0][-1] > len(found)


def text_bytes(column: str) -> Func:
    """The size of a column's text, as an expression."""
    return Func(Cast(column, TextField()), function="octet_length", output_field=IntegerField())


def ordered(rows: QuerySet[Any], window: Window) -> QuerySet[Any]:
    """The rows in the window's order, from its cursor on. The window's limit and offset are left to the caller."""
    found = rows.order_by(*order_by(window.order))
    return found if window.after is None else found.filter(_behind(window.order, window.after))


def order_by(order: Sequence[Order]) -> list[str]:
    return [f"-{by.column}" if by.is_descending else by.column for by in order]


@lru_cache(256)
def _bounded(model: type[Model], columns: tuple[str, ...], order: tuple[Order, ...]) -> str:
    """The statement around `{rows}`, which ends the page by the uncompressed size of its texts and JSON.

    Django's window functions would say the same, but take more CPU time than all the rest of the query.
    """
    names = {column: f"column_{number}" for number, column in enumerate(columns)}
    large = [f"coalesce(octet_length({names[column]}::text), 0)" for column in columns if _is_large(model, column)]
    by = ", ".join(f"{names[one.column]} {'DESC' if one.is_descending else 'ASC'}" for one in order)
    return f"""
        SELECT * FROM (
            SELECT *, coalesce(sum({" + ".join(["more_bytes", *large])}) OVER earlier, 0) AS bytes_before,
                count(*) OVER () AS rows_of_window
            FROM ({{rows}}) AS page ({", ".join(names.values())}, more_bytes)
            WINDOW earlier AS (ORDER BY {by} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ) measured
        WHERE bytes_before < %s ORDER BY {by} LIMIT %s
    """  # noqa: S608 - of the model's own names


def _is_large(model: type[Model], column: str) -> bool:
    """Whether it is a text or JSON. `job__result` is a column of the row to which `job` points."""
    field: Any = None
    for name in column.split("__"):
        field = (model if field is None else field.related_model)._meta.get_field(name)
    return isinstance(field, TextField | JSONField | ArrayField)


def _behind(order: Sequence[Order], values: Sequence[Any]) -> Q:
    """Rows after the one with these values. An index can use the bound on the first column."""
    first = order[0]
    behind = Q()
    for number, by in enumerate(order):
        same = Q(**{before.column: values[place] for place, before in enumerate(order[:number])})
        behind |= same & Q(**{f"{by.column}__{'lt' if by.is_descending else 'gt'}": values[number]})
    return Q(**{f"{first.column}__{'lte' if first.is_descending else 'gte'}": values[0]}) & behind
