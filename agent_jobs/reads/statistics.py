"""Aggregates over jobs and the ledger. Each takes rows that `queries` has already restricted to one organisation."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from django.db.models import Count, QuerySet, Sum

from agent_jobs.models import Job, UsageDay
from agent_jobs.states import JobStatus


def status_counts(jobs: QuerySet[Job]) -> dict[str, int]:
    """`{"waiting": 3, "scheduled": 0, "running": 1, "completed": 12, "failed": 0, "canceled": 0}`: every status."""
    counts = dict(jobs.order_by().values_list("status").annotate(Count("pk")))
    return {status.lower(): counts.get(str(status), 0) for status in _SHOWN}


_SHOWN = (
    *(JobStatus.WAITING, JobStatus.SCHEDULED, JobStatus.RUNNING),
    *(JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED),
)
_USED = ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost")


def usage(rows: QuerySet[UsageDay], by: Sequence[str]) -> QuerySet[Any, dict[str, Any]]:
    """The ledger summed by the columns `by`: `{"day": date(2026, 1, 5), "calls_sum": 3, "cost_sum": …}`."""
    added = rows.order_by().values(*by)
    return cast("QuerySet[Any, dict[str, Any]]", added.annotate(**{f"{name}_sum": Sum(name) for name in _USED}))


def usage_total(rows: QuerySet[UsageDay]) -> Mapping[str, Any]:
    """The sum over all of these rows."""
    found = rows.order_by().aggregate(**{f"{name}_sum": Sum(name) for name in _USED})
    return {name: value or (Decimal(0) if name == "cost_sum" else 0) for name, value in found.items()}
