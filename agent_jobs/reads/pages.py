"""One page of a list: which rows a window shows, within a bound on their bytes. The lists themselves: `queries`."""

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
# Of texts and JSON, as they are in answers. Four such pages at once cost a web process some 100 MB.
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    column: str
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of a list, in which order. `after` holds the values of the order's columns in the last row seen."""

    order: tuple[Order, ...]
    limit: int
    offset: int = 0
    after: tuple[Any, ...] | None = None


def page(rows: QuerySet[Any], window: Window, columns: Sequence[str], *, more_bytes: Any = 0) -> tuple[list[Row], bool]:
    """The window's rows, and whether there are more behind them.

    It ends early, but not before its first row, once its rows have MAX_BYTES. `more_bytes` is an expression: what else
    an answer shows of a row.
    """
    order = [f"-{by.column}" if by.is_descending else by.column for by in window.order]
    ordered = rows.order_by(*order)
    if window.after is not None:
        ordered = ordered.filter(_behind(window.order, window.after))
    # By ids first: the rows that are skipped are read from the index alone, and only those of the window are measured.
    ids = ordered.values("pk")[window.offset : window.offset + window.limit + 1]
    model: type[Model] = rows.model
    size = _bytes(model, columns) + more_bytes
    before = Over(Sum(size), order_by=order, frame=RowRange(end=-1))
    measured = model._default_manager.filter(pk__in=ids).annotate(
        bytes_before=Coalesce(before, 0), rows_of_window=Over(Count("*"))
    )
    kept = measured.filter(bytes_before__lt=MAX_BYTES).order_by(*order)
    found: list[Row] = list(kept.values(*columns, "rows_of_window")[: window.limit])
    return found, bool(found) and found[0]["rows_of_window"] > len(found)


def _bytes(model: type[Model], columns: Sequence[str]) -> Any:
    """What the texts and JSON of a row measure, without compression."""
    large = [Func(Cast(column, TextField()), function="octet_length") for column in columns if _is_large(model, column)]
    return reduce(add, [Coalesce(one, 0, output_field=IntegerField()) for one in large], Value(0))


def _is_large(model: type[Model], column: str) -> bool:
    try:
        field: Any = model._meta.get_field(column)
    except FieldDoesNotExist:  # of a row that it belongs to
        return False
    return isinstance(field, TextField | JSONField | ArrayField)


def _behind(order: Sequence[Order], values: Sequence[Any]) -> Q:
    """Rows that come after the one with these values. The bound on the first column is what an index can use."""
    first = order[0]
    behind = Q()
    for number, by in enumerate(order):
        same = Q(**{before.column: values[place] for place, before in enumerate(order[:number])})
        behind |= same & Q(**{f"{by.column}__{'lt' if by.is_descending else 'gt'}": values[number]})
    return Q(**{f"{first.column}__{'lte' if first.is_descending else 'gte'}": values[0]}) & behind
