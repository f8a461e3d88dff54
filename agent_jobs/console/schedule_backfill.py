"""Makes up for past firings of a schedule: a range of time first, then how many jobs it would make, then the jobs."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs.console import body_checks, schedule_lines, visits
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid, QuotaReached
from agent_jobs.reads import schedule_rows
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import requested_runs

_SHOWN_TIMES = 10


@visits.form
def backfill(visit: Visit, schedule_id: UUID) -> HttpResponse:
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    if visit.request.method != "POST":
        return _form(visit, row, {"overlap": row["definition"]["overlap"]})
    sent = visit.request.POST.dict()
    try:
        asked = _asked(visit, sent)
        counted = requested_runs.backfill(visit.org_id, schedule_id, **asked, actor=visit.actor, is_dry_run=True)
        if sent.get("expected") != str(len(counted.times)) or not counted.times:
            return _form(visit, row, sent, counted=counted, is_other="expected" in sent)
        made = requested_runs.backfill(visit.org_id, schedule_id, **asked, actor=visit.actor)
    except (Conflict, Forbidden, Invalid, QuotaReached) as error:
        return _form(visit, row, sent, problems=body_checks.told(error))
    jobs = sum(1 for firing in made.firings if firing.job_id)
    text = f"{len(made.firings):,} firings, {jobs:,} of them with a job."
    return visit.said("The firings are made up for", text, address=visit.url("schedule", schedule_id))


def _asked(visit: Visit, sent: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("start", "end"):
        found[name] = body_checks.moment(sent.get(name, ""), name, visit.zone)
        if found[name] is None:
            raise Invalid(FieldError(name, "required", "must be a date and a time"))
    if sent.get("overlap") not in tuple(definitions.Overlap):
        raise Invalid(FieldError("overlap", "invalid", "must be one of the choices"))
    return {**found, "overlap": definitions.Overlap(sent["overlap"])}


def _form(
    visit: Visit,
    row: schedule_rows.Row,
    values: Mapping[str, str],
    *,
    counted: requested_runs.Backfill | None = None,
    is_other: bool = False,
    problems: Mapping[str, str] | None = None,
) -> HttpResponse:
    context = {
        "row": row,
        "values": values,
        "overlaps": list(schedule_lines.OVERLAPS.items()),
        "counted": counted,
        "first_times": counted.times[:_SHOWN_TIMES] if counted else (),
        "is_other": is_other,
        "most": requested_runs.MOST_BACKFILLED,
        "problems": problems or {},
        "back": visit.url("schedule", row["id"]),
    }
    return visit.render("schedule_backfill.html", context, here="schedules", is_refused=bool(problems))
