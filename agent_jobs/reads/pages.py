"""Pagination: selects the rows of one page, within a limit on their bytes. `queries` has the lists themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import FieldDoesNotExist
from django.db.models import (
    Count,
    Func,
    IntegerField,
    JSONField,
    Model,
    Q,
    QuerySet,
    RowRange,
    Sum,
    TextField,
    Value,
)
from django.db.models import Window as Over
from django.db.models.functions import Cast, Coalesce

Row = Mapping[str, Any]
# Texts and JSON as they appear in answers. Four such pages at once cost a web process about 100 MB.
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    column: str
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """A range of a sorted list. `after` holds the sort values of the last row seen."""

    order: tuple[Order, ...]
    limit: int
    offset: int = 0
    after: tuple[Any, ...] | None = None


def page(rows: QuerySet[Any], window: Window, columns: Sequence[str], *, more_bytes: Any = 0) -> tuple[list[Row], bool]:
    """The window's rows, and whether there are more after them.

    The page ends early, after at least one row, once its rows reach MAX_BYTES. `more_bytes` is an expression for the
    size of what else the answer shows of a row.
    """
    order = order_by(window.order)
    # Select ids first: skipped rows are then read from the index alone, and only the window's rows are measured.
    ids = ordered(rows, window).values("pk")[window.offset : window.offset + window.limit + 1]
    model: type[Model] = rows.model
    size = _bytes(model, columns) + more_bytes
    before = Over(Sum(size), order_by=order, frame=RowRange(end=-1))
    measured = model._default_manager.filter(pk__in=ids).annotate(
        bytes_before=Coalesce(before, 0), rows_of_window=Over(Count("*"))
    )
    kept = measured.filter(bytes_before__lt=MAX_BYTES).order_by(*order)
    found: list[Row] = list(kept.values(*columns, "rows_of_window")[: window.limit])
    return found, bool(found) and found[0]["rows_of_window"] > len(found)


def ordered(rows: QuerySet[Any], window: Window) -> QuerySet[Any]:
    """The rows in the window's order, from its cursor on. The window's limit and offset are left to the caller."""
    found = rows.order_by(*order_by(window.order))
    return found if window.after is None else found.filter(_behind(window.order, window.after))


def order_by(order: Sequence[Order]) -> list[str]:
    return [f"-{by.column}" if by.is_descending else by.column for by in order]


def _bytes(model: type[Model], columns: Sequence[str]) -> Any:
    """The uncompressed size of a row's texts and JSON."""
    large = [Func(Cast(column, TextField()), function="octet_length") for column in columns if _is_large(model, column)]
    return reduce(add, [Coalesce(one, 0, output_field=IntegerField()) for one in large], Value(0))


def _is_large(model: type[Model], column: str) -> bool:
    try:
        field: Any = model._meta.get_field(column)
    except FieldDoesNotExist:  # a column of a related row
        return False
    return isinstance(field, TextField | JSONField | ArrayField)


def _behind(order: Sequence[Order], values: Sequence[Any]) -> Q:
    """Rows after the one with these values. An index can use the bound on the first column."""
    first = order[0]
    behind = Q()
    for number, by in enumerate(order):
        same = Q(**{before.column: values[place] for place, before in enumerate(order[:number])})
        behind |= same & Q(**{f"{by.column}__{'lt' if by.is_descending else 'gt'}": values[number]})
    return Q(**{f"{first.column}__{'lte' if first.is_descending else 'gte'}": values[0]}) & behind
