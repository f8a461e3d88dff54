"""Sums over the usage ledger (`UsageDay`), from rows that `queries` has already restricted to one organisation."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from django.db.models import QuerySet, Sum

from agent_jobs.models import UsageDay

_USED = ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost")


def grouped(rows: QuerySet[UsageDay], by: Sequence[str]) -> QuerySet[Any, dict[str, Any]]:
    """The sums for each combination of the columns `by`: `{"day": date(2026, 1, 5), "calls_sum": 3, "cost_sum": …}`."""
    added = rows.order_by().values(*by)
    return cast("QuerySet[Any, dict[str, Any]]", added.annotate(**{f"{name}_sum": Sum(name) for name in _USED}))


def total(rows: QuerySet[UsageDay]) -> Mapping[str, Any]:
    """The sums over all of these rows, under the same names; 0 without rows."""
    found = rows.order_by().aggregate(**{f"{name}_sum": Sum(name) for name in _USED})
    return {name: value or (Decimal(0) if name == "cost_sum" else 0) for name, value in found.items()}
