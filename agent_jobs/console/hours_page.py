"""Quiet and business hours of the organisation, its channels and its people."""

import contextlib
from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse

from agent_jobs.console import body_checks, visits
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, Invalid, NotFound
from agent_jobs.hours import stated_hours
from agent_jobs.hours.stated_hours import Place, Statement
from agent_jobs.reads import queries

_KINDS = ("", "channel", "person")
_MOST = 200
_EXAMPLE = {"time_zone": "Europe/Berlin", "quiet": ["18:00-08:00"]}


@visits.page
def hours(visit: Visit) -> HttpResponse:
    statements = []
    with contextlib.suppress(NotFound):
        statements.append(stated_hours.get(visit.org_id, Place()))
    for kind in _KINDS[1:]:
        found = queries.hours_of_places(visit.org_id, kind).order_by("platform", "name")
        statements += stated_hours.statements(found.values(*queries.HOURS_COLUMNS)[:_MOST])
    context = {"lines": [_line(each) for each in statements], "has_own": any(not s.place.kind for s in statements)}
    return visit.render("hours.html", context, here="hours")


@visits.form
def edit(visit: Visit) -> HttpResponse:
    """The hours of one place, which `kind`, `platform` and `name` in the address state."""
    place = _place(visit.request.GET)
    if visit.request.method != "POST":
        try:
            stated: Any = stated_hours.get(visit.org_id, place).stated
        except NotFound:
            stated = {**_EXAMPLE, "time_zone": visit.zone.key}
        return _form(visit, place, body_checks.pretty(stated))
    sent = visit.request.POST
    place = _place(sent)
    try:
        stated = body_checks.json_of(sent.get("hours", ""), "hours", default={})
        stated_hours.put(visit.org_id, place, stated, actor=visit.actor)
    except (Invalid, Conflict) as error:
        return _form(visit, place, sent.get("hours", ""), error.message)
    return visit.said("The hours are kept", str(place), address=visit.url("hours"))


@visits.form
def remove(visit: Visit) -> HttpResponse:
    page = visit.url("hours")
    if visit.request.method == "POST":
        place = _place(visit.request.POST)
        stated_hours.remove(visit.org_id, place, actor=visit.actor)
        return visit.said("The hours are removed", str(place), address=page)
    place = _place(visit.request.GET)
    stated_hours.get(visit.org_id, place)
    return visit.ask(
        f"Remove the hours of the {place}?",
        "What waits for them is looked at again at once.",
        "Remove these hours",
        back=page,
        keep="Keep them",
        is_danger=True,
        hidden={"kind": place.kind, "platform": place.platform, "name": place.name},
        here="hours",
    )


def _place(query: Mapping[str, Any]) -> Place:
    kind = query.get("kind", "")
    if kind not in _KINDS[1:]:
        return Place()
    return Place(kind, query.get("platform", "").strip(), query.get("name", "").strip())


def _form(visit: Visit, place: Place, text: str, complaint: str = "") -> HttpResponse:
    context = {"place": place, "text": text, "complaint": complaint, "kinds": _KINDS, "back": visit.url("hours")}
    return visit.render("hours_edit.html", context, here="hours", is_refused=bool(complaint))


def _line(statement: Statement) -> dict[str, Any]:
    opens = statement.hours.next_open(statement.now)
    stated = statement.stated
    parts = [f"quiet {', '.join(stated['quiet'])}"] if stated.get("quiet") else []
    parts += [f"{day} {', '.join(spans) or 'closed'}" for day, spans in (stated.get("open") or {}).items()]
    if holidays := stated.get("holidays"):
        parts.append(f"{len(holidays)} holiday{'' if len(holidays) == 1 else 's'}")
    return {
        "place": statement.place,
        "zone": stated.get("time_zone", "UTC"),
        "words": "; ".join(parts),
        "opens": None if statement.hours.is_open(statement.now) else opens,
    }
