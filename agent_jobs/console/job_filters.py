"""The filters of the jobs list, read from the address. Their names are the API's, and so is their meaning.

Beyond the API, a time may be relative to now (`today`, `-24h`, `-7d`), so that a saved view stays true. A value that
cannot be read is shown as a chip that says what is wrong; the list is then empty, never wider than asked for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.http import urlencode

from agent_jobs.api import filters, parsing
from agent_jobs.console import clock
from agent_jobs.console.templatetags.console import WAITS, humanized
from agent_jobs.console.visits import Visit
from agent_jobs.reads import queries
from agent_jobs.states import JobStatus

STATUSES = tuple(status.lower() for status in JobStatus)
# Query parameters that are no filters of jobs.
_OTHERS = frozenset({"sort", "after", "before", "view", "ids", "org_id"})
_RELATIVE = re.compile(r"-([1-9][0-9]{0,3})([hd])")
_LABELS = {
    "status": "Status",
    "job_type_id": "Type",
    "channel_code": "Channel",
    "platform": "Platform",
    "priority": "Priority",
    "tags": "Tag",
    "waiting_for": "Waits for",
    "error_code": "Error",
    "q": "Words",
    "replay_of": "Replay of",
    "scheduled_at": "Due at",
    "scheduled_at_gte": "Due since",
    "scheduled_at_lte": "Due until",
    "created_at_gte": "Created since",
    "created_at_lte": "Created until",
    "updated_at_gte": "Changed since",
    "updated_at_lte": "Changed until",
}


@dataclass(frozen=True, slots=True)
class FilterChip:
    name: str
    label: str
    value: str
    without: str  # the address without it
    problem: str = ""

    @property
    def words(self) -> str:
        return f"{self.label} {self.value}"


@dataclass(frozen=True, slots=True)
class FilteredJobs:
    """The filters of an address. `sent` has the values as in the address, `jobs` the jobs that they match,
    `without_status` those that match all filters but the status. `problems`: what is wrong, by field.
    """

    sent: Mapping[str, str]
    jobs: QuerySet[Any]
    without_status: QuerySet[Any]
    chips: Sequence[FilterChip]
    problems: Mapping[str, str]

    @property
    def statuses(self) -> frozenset[str]:
        return frozenset(word.strip().lower() for word in self.sent.get("status", "").split(",") if word.strip())

    @property
    def is_filtered(self) -> bool:
        return bool(self.sent)

    def query(self, **changes: str | None) -> str:
        """The filters as a query, with other values for some of them; None or an empty text leaves one out."""
        values = {**self.sent, **changes}
        return urlencode({name: value for name, value in values.items() if value})


def read(visit: Visit, query: QueryDict, *, types: Mapping[str, str] | None = None) -> FilteredJobs:
    pairs = [(name, value) for name, values in query.lists() for value in values if value and name not in _OTHERS]
    known = filters.stated(filters.JobFilters, (name for name, _ in pairs))
    sent, faults = parsing.gather(pairs, filters.params(known))
    resolved = {name: _resolved(name, value, visit) for name, value in sent.items()}
    values, invalid = parsing.read(filters.params(known), resolved)
    problems = {fault.field: fault.message for fault in (*faults, *invalid)}
    matching = without_status = queries.jobs(visit.org_id)
    if problems:
        matching = without_status = matching.none()
    else:
        # Each filter by itself: a FilterSet would copy its whole form for each saved view.
        for name, value in values.items():
            if name != "status":
                without_status = known[name].filter(without_status, value)
        matching = known["status"].filter(without_status, values.get("status"))
    chips = [
        _chip(visit, name, query.get(name, value), sent, problems.get(name, ""), types or {})
        for name, value in {**sent, **{name: query.get(name, "") for name in problems}}.items()
        if name not in ("status", "q") or name in problems
    ]
    return FilteredJobs(sent, matching, without_status, chips, problems)


def job_ids(text: str, *, most: int) -> list[UUID]:
    """The ids in a text with commas between them. What is no id is left out."""
    found = []
    for part in text.split(",")[:most]:
        try:
            found.append(UUID(part))
        except ValueError:
            continue
    return found


def _resolved(name: str, value: str, visit: Visit) -> str:
    if not name.endswith(("_gte", "_lte")):
        return value
    if value == "today":
        return clock.iso(visit.now.astimezone(visit.zone).replace(hour=0, minute=0, second=0, microsecond=0))
    if stated := _RELATIVE.fullmatch(value):
        span = timedelta(hours=int(stated[1])) if stated[2] == "h" else timedelta(days=int(stated[1]))
        return clock.iso(visit.now - span)
    return value


def _chip(
    visit: Visit, name: str, value: str, sent: Mapping[str, str], problem: str, types: Mapping[str, str]
) -> FilterChip:
    left = {other: stated for other, stated in sent.items() if other != name}
    return FilterChip(
        name=name,
        label=_LABELS.get(name, name),
        value=_shown(visit, name, value, types),
        without=f"?{urlencode(left)}",
        problem=problem,
    )


def _shown(visit: Visit, name: str, value: str, types: Mapping[str, str]) -> str:
    if name == "job_type_id":
        return types.get(value) or humanized(value)
    if name == "tags":
        return " and ".join(tag.strip() for tag in value.split(","))
    if name == "waiting_for":
        return " or ".join(WAITS[word.strip()][2] if word.strip() in WAITS else word for word in value.split(","))
    if value == "today":
        return "midnight"
    if stated := _RELATIVE.fullmatch(value):
        return f"{stated[1]} {'hours' if stated[2] == 'h' else 'days'} ago"
    if name.endswith(("_gte", "_lte")):
        try:
            return clock.short(datetime.fromisoformat(value), visit.zone, visit.now) if "T" in value else value
        except ValueError:
            return value
    return value[:80]
