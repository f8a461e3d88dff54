"""The form of a schedule, new or known, and the live preview of its next firings."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs.api import schedule_shapes
from agent_jobs.console import (
    body_checks,
    job_form,
    schedule_bounds,
    schedule_lines,
    schedule_page,
    visits,
)
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound
from agent_jobs.reads import schedule_rows
from agent_jobs.recurrence import BadExpression
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing
from channels_integration import platforms

_TIMINGS = (("cron", "Cron expression"), ("every", "Fixed interval"), ("once", "Once"))
_CHOICES = {
    "misfire": schedule_lines.MISFIRES,
    "overlap": schedule_lines.OVERLAPS,
    "gap": schedule_lines.GAPS,
    "fold": schedule_lines.FOLDS,
}


@visits.form
def new(visit: Visit) -> HttpResponse:
    if visit.request.method == "POST":
        return _saved(visit, None)
    offered = job_form.types_offered(visit.org_id)
    chosen = visit.request.GET.get("type", "")
    if not offered or chosen not in {each["key"] for each in offered}:
        context = {"offered": offered, "title": "New schedule", "back": visit.url("schedules"), "what": "schedule"}
        return visit.render("choose_type.html", context, here="schedules")
    started = {"time_zone": visit.zone.key, "how": "cron", "cron": "0 9 * * 1-5", "job_type_id": chosen}
    return _form(visit, None, {**_defaults(), **started})


@visits.form
def edit(visit: Visit, schedule_id: UUID) -> HttpResponse:
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    if visit.request.method == "POST":
        return _saved(visit, row)
    return _form(visit, row, _values(visit, row["definition"]))


@visits.form
def preview(visit: Visit) -> HttpResponse:
    """The next ten firings of what the form states now, or why there are none."""
    sent = visit.request.POST
    try:
        timing = body_checks.checked(schedule_shapes.ScheduleTiming, _timing(visit, sent, {}))
        definition = definitions.completed(timing)
        if errors := definitions.problems(definition, now=visit.now):
            raise Invalid(*errors)
        found = schedule_page.next_firings(visit, definition, anchor=visit.now)
        words = schedule_lines.rule_words({"definition": definition, "created_at": visit.now})
    except (Invalid, BadExpression) as error:
        return visit.part("parts/schedule_preview.html", {"complaint": _complaint(error)})
    zone = definition["time_zone"]
    context = {"next": found, "rule": words, "zone": zone, "is_same_zone": zone == visit.zone.key}
    return visit.part("parts/schedule_preview.html", context)


def _form(
    visit: Visit,
    row: schedule_rows.Row | None,
    values: Mapping[str, str],
    *,
    problems: Mapping[str, str] | None = None,
    sent: Mapping[str, str] | None = None,
) -> HttpResponse:
    told = {field.removeprefix("job."): message for field, message in (problems or {}).items()}
    stored = row["definition"]["job"].get("params", {}) if row else {}
    context = {
        "row": row,
        "values": values,
        "timings": _TIMINGS,
        "choices": {name: list(words.items()) for name, words in _CHOICES.items()},
        "params": job_form.params(visit.org_id, values["job_type_id"], stored, sent=sent),
        "platforms": platforms.NAMES,
        "pauses": schedule_bounds.rows(values),
        "has_bounds": any(each.startswith(("starts_at", "ends_at", "pause.")) and values[each] for each in values),
        "has_more": any(values.get(name) for name in job_form.values({})),
        "problems": told,
        "rest": [f"{field}: {message}" for field, message in told.items() if field not in _SHOWN],
        "back": visit.url("schedule", row["id"]) if row else visit.url("schedules"),
    }
    return visit.render("schedule_edit.html", context, here="schedules", is_refused=bool(problems))


def _saved(visit: Visit, row: schedule_rows.Row | None) -> HttpResponse:
    sent = visit.request.POST.dict()
    try:
        stated = _stated(visit, sent, row)
        if row is None:
            shape = schedule_shapes.ScheduleRequest
            made = editing.create(visit.org_id, _stored(body_checks.checked(shape, stated)), actor=visit.actor)
        else:
            fields = body_checks.checked(schedule_shapes.SchedulePatch, stated, partial=True)
            version = body_checks.whole(sent.get("version", ""), "version")
            emptied = _emptied(row["definition"], _stored(fields))
            made = editing.change(visit.org_id, row["id"], emptied, actor=visit.actor, if_version=version)
    except (Conflict, Invalid, NotFound) as error:
        return _form(visit, row, {**_defaults(), **sent}, problems=body_checks.told(error), sent=sent)
    title = "The schedule is changed" if row else "The schedule is made"
    return visit.said(title, made.name, address=visit.url("schedule", made.pk))


def _stated(visit: Visit, sent: Mapping[str, str], row: schedule_rows.Row | None) -> dict[str, Any]:
    """The form as the body of a request. What the form does not show stays as it is."""
    known = row["definition"]["job"] if row else {}
    type_id = known.get("job_type_id") or sent.get("job_type_id", "")
    code = sent.get("code", "").strip()
    job: dict[str, Any] = {
        "job_type_id": type_id,
        "params": job_form.read_params(visit.org_id, type_id, sent, known.get("params", {})),
        "delay_minutes": body_checks.whole(sent.get("delay_minutes", ""), "job.delay_minutes") or 0,
        **job_form.read(sent, kept_outcome=known.get("outcome_channel")),
    }
    if code:
        kept = known.get("target_channel") or {}
        is_same = (kept.get("platform"), kept.get("code")) == (sent.get("platform"), code)
        job["target_channel"] = {
            **(kept if is_same else {}),
            "org_id": visit.org_id,
            "platform": sent.get("platform", ""),
            "code": code,
        }
    found: dict[str, Any] = {
        **_timing(visit, sent, row["definition"] if row else {}),
        "name": sent.get("name", ""),
        "job": job,
        "tags": sent.get("tags", "").strip(),
        "overlap": sent.get("overlap", "allow"),
        "misfire": {**(row["definition"]["misfire"] if row else {}), "policy": sent.get("misfire", "run_once")},
    }
    return found


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    """A checked body as a definition: the channel's organisation is the schedule's own."""
    channel = fields["job"].get("target_channel")
    if channel is None:
        return fields
    kept = {name: value for name, value in channel.items() if name != "org_id"}
    return {**fields, "job": {**fields["job"], "target_channel": kept}}


def _emptied(known: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """With None for what the schedule has and the form now leaves empty."""
    job = {**{name: None for name in (*_OF_JOB, "target_channel") if name in known["job"]}, **fields["job"]}
    return {**{name: None for name in ("starts_at", "ends_at") if name in known}, **fields, "job": job}


def _timing(visit: Visit, sent: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    how = sent.get("how", "cron")
    found: dict[str, Any] = {"time_zone": sent.get("time_zone", "").strip() or "UTC"}
    found |= schedule_bounds.read(sent, visit.zone, known)
    if how == "every":
        found["every_seconds"] = body_checks.whole(sent.get("every_seconds", ""), "every_seconds")
        if found["every_seconds"] is None:
            raise Invalid(FieldError("every_seconds", "required", "must be a number of seconds"))
    elif how == "once":
        at = body_checks.moment(sent.get("run_at", ""), "run_at", visit.zone)
        if at is None:
            raise Invalid(FieldError("run_at", "required", "must be a date and a time"))
        found["run_at"] = at.isoformat()
    else:
        found["cron"] = " ".join(sent.get("cron", "").split())
        found["dst"] = {"gap": sent.get("gap", "auto"), "fold": sent.get("fold", "auto")}
    if (jitter := body_checks.whole(sent.get("jitter_seconds", ""), "jitter_seconds")) is not None:
        found["jitter_seconds"] = jitter
    return found


def _values(visit: Visit, definition: Mapping[str, Any]) -> dict[str, str]:
    """A definition as the values of the form's fields."""
    job = definition["job"]
    channel = job.get("target_channel") or {}
    return {
        **_defaults(),
        "name": definition["name"],
        "how": {"cron": "cron", "every_seconds": "every", "run_at": "once"}[definitions.stated_timing(definition)],
        "cron": definition.get("cron", ""),
        "every_seconds": str(definition.get("every_seconds", "")),
        "run_at": schedule_bounds.local(definition.get("run_at"), visit.zone),
        "time_zone": definition["time_zone"],
        "gap": definition["dst"]["gap"],
        "fold": definition["dst"]["fold"],
        "misfire": definition["misfire"]["policy"],
        "overlap": definition["overlap"],
        "jitter_seconds": str(definition["jitter_seconds"] or ""),
        "tags": ", ".join(definition["tags"]),
        "job_type_id": job["job_type_id"],
        "platform": channel.get("platform", ""),
        "code": channel.get("code", ""),
        "delay_minutes": str(job.get("delay_minutes", "") or ""),
        **schedule_bounds.values(definition, visit.zone),
        **job_form.values(job),
    }


def _defaults() -> dict[str, str]:
    names = ("name", "cron", "every_seconds", "run_at", "jitter_seconds", "tags", "job_type_id", "code")
    chosen = {"how": "cron", "gap": "auto", "fold": "auto", "misfire": "run_once", "overlap": "allow"}
    return {**dict.fromkeys(names, ""), **chosen, "platform": "web", "time_zone": "UTC", "delay_minutes": ""}


def _complaint(error: Invalid | BadExpression) -> str:
    if isinstance(error, BadExpression):
        return str(error)
    return "; ".join(each.message for each in error.errors)


_OF_JOB = ("config", "work", "outcome_channel")
_SHOWN = frozenset(
    {
        *("name", "cron", "every_seconds", "run_at", "time_zone", "tags", "jitter_seconds", "params"),
        *("starts_at", "ends_at", "config", "work"),
    }
)
