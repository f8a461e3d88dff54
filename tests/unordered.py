"""Rows that a query has not ordered come in the opposite of the order that PostgreSQL happens to give them.

That order is the order of writing until space is used again, so a reader that relies on it is right in nearly all runs.
"""

from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import query

KINDS = ("ModelIterable", "ValuesIterable", "ValuesListIterable", "NamedValuesListIterable", "FlatValuesListIterable")


def reverse() -> None:
    """Reverse what unordered querysets of this process give, for as long as it lives."""
    for name in KINDS:
        kind = getattr(query, name)
        kind.__iter__ = _reversed(kind.__iter__)


def _reversed(rows: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    def iterate(self: Any) -> Iterator[Any]:
        return rows(self) if self.queryset.ordered else reversed(list(rows(self)))

    return iterate
