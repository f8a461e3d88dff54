"""The jobs list: filters and saved views above, one page of rows below, and the pieces that keep it live."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.core import signing
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict

from agent_jobs.api.filters import WORKER
from agent_jobs.console import clock, job_filters, job_lines, visits
from agent_jobs.console.job_filters import FilteredJobs
from agent_jobs.console.templatetags.console import WAITS
from agent_jobs.console.visits import Visit
from agent_jobs.reads import job_lists, queries
from agent_jobs.reads.pages import Order, Window
from agent_jobs.specs import PRIORITIES
from agent_jobs.states import JobStatus
from agent_jobs.tenants import saved_views
from channels_integration import platforms

PAGE = 50
MOST_EXPORTED = 10_000
MOST_LIVE = 200
_SIGNER = signing.Signer(salt="agent_jobs.console.jobs")
# Name in the address: column, heading of its column, whether the largest come first.
SORTS: Mapping[str, tuple[str, str, bool]] = {
    "changed": ("updated_at", "Changed", True),
    "created": ("created_at", "Created", True),
    "due": ("scheduled_at", "Due", False),
    "queue": ("state_since", "In the queue since", False),
}
# Views that everybody has.
VIEWS: Sequence[tuple[str, str]] = (
    ("All", ""),
    ("Today", "updated_at_gte=today"),
    ("Needs a person", "waiting_for=approval"),
    ("Failed today", "status=failed&updated_at_gte=today"),
    ("Waits over 2 days", "status=waiting,running&created_at_lte=-2d"),
)


@dataclass(frozen=True, slots=True)
class ViewTab:
    name: str
    address: str
    is_current: bool
    count: int
    view_id: int = 0


@dataclass(frozen=True, slots=True)
class ListedJobs:
    lines: Sequence[job_lines.JobLine]
    newer: str
    older: str


@visits.page
def jobs(visit: Visit) -> HttpResponse:
    types = job_lists.type_names(visit.org_id)
    asked = job_filters.read(visit, visit.request.GET, types=types)
    sort = _sort(visit.request.GET)
    counts = job_lists.counts(asked.without_status, are_few="q" in asked.sent)
    total = sum(number for status, number in counts.items() if not asked.statuses or status in asked.statuses)
    listed = _listed(visit, asked, sort, types)
    context = {
        "asked": asked,
        "types": types,
        "counts": [(status, counts[status], status in asked.statuses, _toggled(asked, status)) for status in counts],
        "total": total,
        "listed": listed,
        "sort": sort,
        "sorts": [(name, heading) for name, (_, heading, _) in SORTS.items()],
        "sort_heading": SORTS[sort][1],
        "tabs": _tabs(visit, asked),
        "drop": _worst(visit, asked) if not listed.lines else None,
        "has_jobs": bool(listed.lines) or asked.is_filtered or bool(asked.problems),
        "export": visit.url("jobs_csv") + (f"?{query}" if (query := _sorted_query(asked, sort)) else ""),
        "query": asked.query(),
        "waits": [(WORKER, "At work"), *((name, WAITS[name][2].capitalize()) for name in WAITS)],
        "platforms": platforms.NAMES,
        "priorities": [str(number) for number in PRIORITIES],
    }
    return visit.render("jobs.html", context, here="jobs")


@visits.page
def rows(visit: Visit) -> HttpResponse:
    """The rows with the ids in `ids`, as they are now. Those that no longer match the filters are marked."""
    ids = job_filters.job_ids(visit.request.GET.get("ids", ""), most=MOST_LIVE)
    asked = job_filters.read(visit, visit.request.GET)
    found = {row["id"]: row for row in job_lists.rows_by_id(queries.jobs(visit.org_id), ids)}
    matching = {row["id"] for row in job_lists.rows_by_id(asked.jobs, ids)} if asked.is_filtered else set(found)
    lines = job_lines.of(visit, list(found.values()), at=SORTS[_sort(visit.request.GET)][0])
    context = {"rows": [(line, line.id not in matching) for line in lines]}
    return visit.part("parts/job_rows.html", context)


@visits.page
def export(visit: Visit) -> HttpResponse:
    """The jobs of the list, or those with the ids in `ids`, as CSV in the order of the list: at most MOST_EXPORTED."""
    asked = job_filters.read(visit, visit.request.GET)
    if asked.problems:
        text = "; ".join(f"{name}: {problem}" for name, problem in asked.problems.items())
        return visits.problem(visit, HTTPStatus.BAD_REQUEST, "These filters cannot be read", text)
    sort = _sort(visit.request.GET)
    ids = job_filters.job_ids(visit.request.GET.get("ids", ""), most=1_000)
    wanted = asked.jobs.filter(pk__in=ids) if ids else _wanted(asked, sort)
    found, has_more = job_lists.rows(wanted, Window(_order(sort), MOST_EXPORTED))
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="jobs-{visit.org_id}-{visit.now:%Y%m%d-%H%M}.csv"'
    writer = csv.writer(answer)
    writer.writerow(_HEADINGS)
    writer.writerows(_exported(row) for row in found)
    if has_more:
        writer.writerow([f"only the first {MOST_EXPORTED:,} jobs are listed"])
    return answer


@visits.own_action
def save_view(visit: Visit) -> HttpResponse:
    name, query = visit.request.POST.get("name", ""), visit.request.POST.get("query", "")
    kept = job_filters.read(visit, QueryDict(query)).query()
    saved_views.save(visit.org_id, visit.user_pk, name=name, query=kept)
    return visit.said("The view is saved", name, address=f"{visit.url('jobs')}?{kept}")


@visits.own_action
def remove_view(visit: Visit, view_id: int) -> HttpResponse:
    saved_views.remove(visit.org_id, visit.user_pk, view_id)
    return visit.said("The view is removed", address=visit.back(visit.url("jobs")))


def _listed(visit: Visit, asked: FilteredJobs, sort: str, types: Mapping[str, str]) -> ListedJobs:
    column, order, wanted = SORTS[sort][0], _order(sort), _wanted(asked, sort)
    after = _cursor(visit.request, "after", sort)
    before = None if after else _cursor(visit.request, "before", sort)
    if before:
        found, has_newer = job_lists.rows(wanted, Window(job_lists.reversed_order(order), PAGE, after=before))
        found, has_older = found[::-1], True
    else:
        found, has_older = job_lists.rows(wanted, Window(order, PAGE, after=after))
        has_newer = after is not None
    address = visit.url("jobs")
    query = _sorted_query(asked, sort)

    def beyond(name: str, row: Mapping[str, Any]) -> str:
        cursor = _SIGNER.sign_object([sort, row[column].isoformat(), str(row["id"])], compress=True)
        return f"{address}?{query}{'&' if query else ''}{name}={cursor}"

    return ListedJobs(
        job_lines.of(visit, found, at=column, types=types),
        beyond("before", found[0]) if found and has_newer else "",
        beyond("after", found[-1]) if found and has_older else "",
    )


def _cursor(request: HttpRequest, name: str, sort: str) -> tuple[datetime, UUID] | None:
    """The place in the list that an address names. One that is not ours, or of another order, begins at the top."""
    try:
        stated, at, job_id = _SIGNER.unsign_object(request.GET[name])
        return (datetime.fromisoformat(at), UUID(job_id)) if stated == sort else None
    except (KeyError, ValueError, TypeError, signing.BadSignature):
        return None


def _sort(query: QueryDict) -> str:
    stated = query.get("sort", "")
    return stated if stated in SORTS else "changed"


def _order(sort: str) -> tuple[Order, Order]:
    column, _, is_descending = SORTS[sort]
    return Order(column, is_descending), Order("id", is_descending)


def _wanted(asked: FilteredJobs, sort: str) -> QuerySet[Any]:
    """The jobs of the list: in the order of the queue, only those in it."""
    return queries.in_queue(asked.jobs) if sort == "queue" else asked.jobs


def _sorted_query(asked: FilteredJobs, sort: str) -> str:
    return asked.query(sort=None if sort == "changed" else sort)


def _toggled(asked: FilteredJobs, status: str) -> str:
    """The address with this status on or off."""
    wanted = asked.statuses ^ {status}
    kept = ",".join(each.lower() for each in JobStatus if each.lower() in wanted)
    return f"?{asked.query(status=kept or None)}"


def _tabs(visit: Visit, asked: FilteredJobs) -> list[ViewTab]:
    kept = [(name, query, 0) for name, query in VIEWS]
    kept += [(view.name, view.query, view.id) for view in saved_views.of_user(visit.org_id, visit.user_pk)]
    read = [job_filters.read(visit, QueryDict(query)) for _, query, _ in kept]
    numbers = job_lists.numbers([each.jobs for each in read])
    address, here = visit.url("jobs"), dict(asked.sent)
    return [
        ViewTab(name, f"{address}?{query}" if query else address, dict(each.sent) == here, number, view_id)
        for (name, query, view_id), each, number in zip(kept, read, numbers, strict=True)
    ]


def _worst(visit: Visit, asked: FilteredJobs) -> tuple[str, str, int] | None:
    """The filter to drop where nothing matches: its words, the address without it, and how many that would bring."""
    droppable = [name for name in asked.sent if name not in asked.problems]
    if asked.problems or not droppable:
        return None
    without = [job_filters.read(visit, QueryDict(asked.query(**{name: None}))).jobs for name in droppable]
    numbers = job_lists.numbers(without)
    best = max(range(len(droppable)), key=numbers.__getitem__)
    name = droppable[best]
    words = next((chip.words for chip in asked.chips if chip.name == name), f"{name} {asked.sent[name]}")
    return (words, f"?{asked.query(**{name: None})}", numbers[best]) if numbers[best] else None


_HEADINGS = (
    *("id", "status", "job_type_id", "about", "platform", "channel_code", "tags", "priority", "created_at"),
    *("scheduled_at", "started_at", "finished_at", "updated_at", "waiting_for", "error_code", "error_message"),
    "result",
)


def _exported(row: Mapping[str, Any]) -> Iterator[str]:
    for value in (
        *(row["id"], row["status"], row["job_type_key"], job_lines.about(row["few_params"], ())),
        *(row["platform"], row["channel_code"], ",".join(row["tags"]), row["priority"], row["created_at"]),
        *(row["scheduled_at"], row["started_at"], row["finished_at"], row["updated_at"], row["waiting_for"]),
        *(row["error_code"], row["short_error"], row["short_result"]),
    ):
        text = clock.iso(value) if isinstance(value, datetime) else "" if value is None else str(value)
        # A spreadsheet would run a text that begins so as a formula.
        yield f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
