"""Cancels or retries many jobs: first a question that states which jobs it concerns, then the action.

`scope=ids` means the selected jobs, `scope=filter` all that match the filters in `query`. There is no action on all
jobs: without a selection, a filter is required.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.http import HttpResponse, QueryDict

from agent_jobs.console import bulk_batches, job_filters, life_pieces, visits
from agent_jobs.console.templatetags.console import sentence
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, NotFound
from agent_jobs.jobs import bulk as bulk_jobs
from agent_jobs.reads import job_lists, queries

_MAX_REASON = 1_000
# State of a job (`job_lists.wait_counts`) → the colour of its bar.
_KINDS = {"worker": "work", "quiet_hours": "quiet", "scheduled": "delay", "cooldown": "delay", "": "work"}
_VERBS = {"cancel": ("Cancel", "canceled"), "retry": ("Retry", "retried")}


@dataclass(frozen=True, slots=True)
class BulkScope:
    verb: str
    is_filter: bool
    query: str
    ids: Sequence[UUID]
    asked: job_filters.FilteredJobs
    statuses: Sequence[str]
    jobs: Any


@visits.form
def bulk(visit: Visit) -> HttpResponse:
    if visit.request.method == "POST":
        return _done(visit)
    scope = _scope(visit, visit.request.GET)
    if scope is None:
        text = "Select jobs, or set a filter, and try again."
        return visits.problem(visit, HTTPStatus.BAD_REQUEST, "Nothing is selected", text)
    return _question(visit, scope)


def _question(visit: Visit, scope: BulkScope) -> HttpResponse:
    waits = job_lists.wait_counts(scope.jobs)
    total = sum(number for _, number in waits)
    context = {
        "scope": scope,
        "total": total,
        "verb": _VERBS[scope.verb][0],
        "is_cancel": scope.verb == "cancel",
        "waits": waits,
        "bars": _bars(waits),
        "ids": ",".join(map(str, scope.ids)),
        "most": bulk_jobs.MOST,
        "is_too_many": total > bulk_jobs.MOST and not scope.is_filter,
        "is_in_batches": total > bulk_jobs.MOST and scope.is_filter,
        "back": _list(visit, scope),
    }
    return visit.dialog("parts/bulk_dialog.html", context, here="jobs", page="bulk.html")


def _bars(waits: Sequence[tuple[str, int]]) -> list[life_pieces.LifeBar]:
    """The states of the jobs, as shares of a small bar."""
    total, x, found = sum(number for _, number in waits), 0.0, []
    for does, number in waits:
        kind = _KINDS.get(does, does)
        mark = life_pieces.KINDS[kind][0] if kind in life_pieces.KINDS else f"m-{does}"
        width = 100 * number / total
        found.append(life_pieces.LifeBar(kind, mark, x, max(width - 0.6, 0.6)))
        x += width
    return found


def _done(visit: Visit) -> HttpResponse:
    scope = _scope(visit, visit.request.POST)
    expected = visit.request.POST.get("expected", "")
    if (
        scope is not None
        and scope.is_filter
        and (run := bulk_batches.read(visit.request.POST.get("run", ""), _action(visit, scope)))
    ):
        return _next_batch(visit, scope, run)
    if scope is None or not (expected.isascii() and expected.isdigit()):
        return visits.problem(visit, HTTPStatus.BAD_REQUEST, "Nothing was changed", "Nothing was selected.")
    if scope.is_filter and int(expected) > bulk_jobs.MOST:
        total = sum(number for _, number in job_lists.wait_counts(scope.jobs))
        if total != int(expected):
            text = f"{total:,} jobs match now; {int(expected):,} did when you looked."
            return visit.refused(f"Nothing was {_VERBS[scope.verb][1]}", text, address=_list(visit, scope))
        return _next_batch(visit, scope, bulk_batches.BatchRun(total, visit.now))
    ids = job_lists.ids(scope.jobs, most=bulk_jobs.MOST + 1)
    act = bulk_jobs.cancel if scope.verb == "cancel" else bulk_jobs.retry
    reason = _reason(visit)
    past = _VERBS[scope.verb][1]
    try:
        outcome = act(visit.org_id, ids, expected=int(expected), actor=visit.actor, reason=reason)
    except (Conflict, NotFound) as error:
        return visit.refused(f"Nothing was {past}", sentence(error.message), address=_list(visit, scope))
    changed = len(outcome.changed)
    title = f"{changed:,} job{'' if changed == 1 else 's'} {past}"
    refused = "; ".join(f"{number}: {message}" for message, number in outcome.reasons[:3])
    result = _result(visit, scope)
    if not changed:
        return visit.refused(f"Nothing was {past}", refused, address=_list(visit, scope))
    return visit.said(title, refused, address=_list(visit, scope), link="See them", target=result)


def _next_batch(visit: Visit, scope: BulkScope, run: bulk_batches.BatchRun) -> HttpResponse:
    run = bulk_batches.step(run, scope.verb, visit.org_id, scope.jobs, actor=visit.actor, reason=_reason(visit))
    verb, past = _VERBS[scope.verb]
    if run.is_over:
        told = bulk_batches.words(run, past)
        return visit.said(**told, address=_list(visit, scope), link="See them", target=_result(visit, scope))
    context = {
        "scope": scope,
        "run": run,
        "signed_run": run.signed(_action(visit, scope)),
        "verb": verb,
        "past": past,
        "is_cancel": scope.verb == "cancel",
        "most": bulk_jobs.MOST,
        "reason": _reason(visit),
        "back": _list(visit, scope),
    }
    return visit.dialog("parts/bulk_progress.html", context, here="jobs", page="bulk.html")


def _action(visit: Visit, scope: BulkScope) -> str:
    return f"{visit.org_id}:{scope.verb}:{scope.query}"


def _reason(visit: Visit) -> str:
    return visit.request.POST.get("reason", "").strip()[:_MAX_REASON]


def _result(visit: Visit, scope: BulkScope) -> str:
    return visit.url("jobs", status="canceled" if scope.verb == "cancel" else "waiting,running", updated_at_gte="-1h")


def _scope(visit: Visit, sent: QueryDict) -> BulkScope | None:
    verb, query = sent.get("verb", ""), sent.get("query", "")[:8_000]
    asked = job_filters.read(visit, QueryDict(query))
    is_filter = sent.get("scope") == "filter"
    ids = job_filters.job_ids(sent.get("ids", ""), most=bulk_jobs.MOST)
    if verb not in _VERBS or asked.problems or not (asked.is_filtered if is_filter else ids):
        return None
    statuses = tuple(bulk_jobs.SOURCES[verb])
    matching = asked.jobs if is_filter else queries.jobs(visit.org_id).filter(pk__in=ids)
    return BulkScope(
        verb, is_filter, query, () if is_filter else ids, asked, statuses, matching.filter(status__in=statuses)
    )


def _list(visit: Visit, scope: BulkScope) -> str:
    return visit.url("jobs") + (f"?{scope.query}" if scope.query else "")
