"""The list of schedules: the coming week, and each schedule with its next run and its last outcomes."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs.console import schedule_lines, visits, week_calendar
from agent_jobs.console.visits import Visit
from agent_jobs.reads import schedule_lists, schedule_rows
from agent_jobs.tenants import members

PAGE = 50
_MOST_TEXT = 100


@visits.page
def schedules(visit: Visit) -> HttpResponse:
    query = visit.request.GET
    state = query.get("state", "all")
    state = state if state in schedule_lists.STATES else "all"
    text = query.get("q", "").replace("\x00", "").strip()[:_MOST_TEXT]
    failing = schedule_lists.failing(visit.org_id)
    number = visit.page_number
    matching = schedule_lists.matching(visit.org_id, text=text, state=state, failing_ids=failing)
    rows = list(matching.values(*schedule_rows.COLUMNS)[(number - 1) * PAGE : number * PAGE + 1])
    numbers = {**schedule_lists.counts(visit.org_id), "failing": len(failing)}
    context = {
        "lines": _lines(visit, rows[:PAGE]),
        "states": [(name, numbers[name], name == state) for name in schedule_lists.STATES],
        "state": state,
        "q": text,
        "total": numbers["all"],
        "page": number,
        "has_more": len(rows) > PAGE,
        "week": _week(visit, rows if state == "all" and not text and number == 1 else None),
    }
    return visit.render("schedules.html", context, here="schedules")


def _lines(visit: Visit, rows: Sequence[Any]) -> list[schedule_lines.ScheduleLine]:
    ids: list[UUID] = [row["id"] for row in rows]
    outcomes = schedule_lists.outcomes(visit.org_id, ids, most=schedule_lines.SHOWN_OUTCOMES) if ids else {}
    pauses = schedule_lists.pauses(visit.org_id, [row["id"] for row in rows if row["is_paused"]])
    names = members.full_names(visit.org_id) if pauses else {}
    return schedule_lines.of(rows, outcomes, pauses, names)


def _week(visit: Visit, rows: Sequence[Any] | None) -> list[week_calendar.WeekDay]:
    """The week shows the schedules that fire next, whatever the list is filtered by."""
    if rows is None:
        active = schedule_lists.matching(visit.org_id, text="", state="active", failing_ids=())
        rows = list(active.values(*schedule_rows.COLUMNS)[: week_calendar.MOST_SCHEDULES])
    active_rows = [row for row in rows if row["next_at"] is not None]
    return week_calendar.of(visit, active_rows) if active_rows else []
