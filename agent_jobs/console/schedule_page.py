"""One schedule: when it fires, how long its jobs took, what became of each firing, and its versions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs import recurrence
from agent_jobs.console import clock, schedule_lines, visits
from agent_jobs.console.schedule_lines import OutcomeBar
from agent_jobs.console.visits import Visit
from agent_jobs.reads import job_lists, queries, schedule_lists, schedule_rows
from agent_jobs.reads.schedule_lists import FiringLine
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing
from agent_jobs.tenants import members

TABS = (("firings", "Firings"), ("versions", "Versions"), ("job", "Job it makes"), ("audit", "Audit"))
PAGE = 30
_PREVIEWED = 10
_IN_RAIL = 4
_MOST_VERSIONS = 100
_MOST_AUDIT = 100
_CHART_HEIGHT = 72
# Steps of the axis of durations, in seconds.
_AXIS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class PreviewedTime:
    at: datetime
    day: str
    time: str
    offset: str
    yours: str
    note: str


@dataclass(frozen=True, slots=True)
class FiringRow:
    line: FiringLine
    words: str
    glyph: str
    colour: str
    share: float
    note: str


@dataclass(frozen=True, slots=True)
class DurationChart:
    bars: Sequence[OutcomeBar]
    lines: Sequence[tuple[float, str]]
    median: float | None
    first_words: str
    last_words: str
    last_x: float


@visits.page
def schedule(visit: Visit, schedule_id: UUID) -> HttpResponse:
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    definition = row["definition"]
    tab = visit.request.GET.get("tab", "")
    tab = tab if tab in dict(TABS) and (tab != "audit" or visit.is_admin) else "firings"
    page = visit.page_number
    newest = schedule_lists.outcomes(visit.org_id, [schedule_id], most=PAGE + 1, after=(page - 1) * PAGE)[schedule_id]
    names = members.full_names(visit.org_id)
    versions = _versions(visit, row, names, most=_MOST_VERSIONS if tab == "versions" else _IN_RAIL)
    lines = newest[:PAGE]
    extras = job_lists.more(visit.org_id, [line.job_id for line in lines if line.job_id and line.job_status])
    costs = [extra.cost for extra in extras.values() if extra.cost is not None]
    context = {
        "row": row,
        "definition": definition,
        "state": schedule_rows.status(row),
        "rule": schedule_lines.rule_words(row),
        "expression": schedule_lines.expression(definition),
        "policies": policies(definition),
        "platform": (definition["job"].get("target_channel") or {}).get("platform", "null"),
        "next": [] if row["is_paused"] else next_firings(visit, definition, anchor=row["created_at"]),
        "is_same_zone": definition["time_zone"] == visit.zone.key,
        "tabs": _tabs(visit, row),
        "tab": tab,
        "lines": _rows(lines),
        "last": lines[0] if lines and page == 1 else None,
        "last_words": schedule_lines.result_words(lines[0]).lower() if lines and page == 1 else "",
        "summary": schedule_lines.result_counts(lines),
        "shown": len(lines),
        "mean_cost": sum(costs) / len(costs) if costs else None,
        "chart": _chart(visit, lines) if any(line.seconds is not None for line in lines) else None,
        "page": page,
        "has_more": len(newest) > PAGE,
        "versions": versions,
        "in_rail": versions[:_IN_RAIL],
        "names": names,
    }
    if tab == "audit":
        context["audit"] = _audit(visit, schedule_id, names)
    if tab == "job":
        context["job_json"] = json.dumps(definition["job"], indent=2, ensure_ascii=False)
    return visit.render("schedule.html", context, here="schedules")


@visits.page
def compare(visit: Visit, schedule_id: UUID, old: int, new: int) -> HttpResponse:
    """The differences between two versions."""
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    found = schedule_rows.versions(visit.org_id, schedule_id)
    kept = {each["number"]: each for each in found.values("number", "definition", "author", "created_at")}
    for number in (old, new):
        if number not in kept:
            raise editing.version_not_found(number)
    diff = definitions.changes(kept[old]["definition"], kept[new]["definition"])
    context = {
        "row": row,
        "old": old,
        "new": new,
        "numbers": sorted(kept, reverse=True),
        "diff": list(diff_lines(diff)),
        "state": schedule_rows.status(row),
    }
    return visit.render("schedule_versions.html", context, here="schedules")


def next_firings(visit: Visit, definition: Mapping[str, Any], *, anchor: datetime) -> list[PreviewedTime]:
    """The next ten firings on the clocks of the schedule's zone, with each clock change said. Raises BadExpression."""
    timing = definitions.timing(definition, anchor=anchor)
    found = recurrence.within(timing.rule, timing.bounds, after=visit.now, limit=_PREVIEWED)
    nominal = _nominal_time(definition)
    return [
        PreviewedTime(
            at=one.at,
            day=f"{one.local:%a} {clock.day(one.at, timing.rule.zone, visit.now)}",
            time=f"{one.local:%H:%M:%S}" if one.local.second else f"{one.local:%H:%M}",
            offset=clock.offset(one.local),
            yours=clock.short(one.at, visit.zone, visit.now) if timing.rule.zone.key != visit.zone.key else "",
            note=schedule_lines.dst_words(one.note, one.at, nominal),
        )
        for one in found
    ]


def policies(definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [
        ("When a firing was missed", schedule_lines.MISFIRES[definition["misfire"]["policy"]]),
        ("When one still runs", schedule_lines.OVERLAPS[definition["overlap"]]),
    ]
    if "cron" in definition:
        found += [
            ("Clocks go forward", schedule_lines.GAPS[definition["dst"]["gap"]]),
            ("Clocks go back", schedule_lines.FOLDS[definition["dst"]["fold"]]),
        ]
    if definition["jitter_seconds"]:
        found.append(("Random delay", f"up to {clock.length(definition['jitter_seconds'])}"))
    return found


def diff_lines(diff: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Lines of a diff: `("d", "- cron: 30 2 28 * *")`."""
    for one in diff:
        for kind, sign, side in (("d", "-", "before"), ("a", "+", "after")):
            if one.get(side) is not None:
                yield kind, f"{sign} {one['field']}: {_shown(one[side])}"


def _tabs(visit: Visit, row: Mapping[str, Any]) -> list[tuple[str, str, int | None]]:
    numbers = {"firings": schedule_lists.firing_count(visit.org_id, row["id"]), "versions": row["version"]}
    return [(key, label, numbers.get(key)) for key, label in TABS if key != "audit" or visit.is_admin]


def _rows(lines: Sequence[FiringLine]) -> list[FiringRow]:
    longest = max((line.seconds or 0.0 for line in lines), default=0.0) or 1.0
    found = []
    for line in lines:
        glyph, colour = schedule_lines.RESULTS.get(line.result, ("canceled", "canceled"))
        share = (line.seconds or 0.0) / longest * 100
        note = schedule_lines.firing_note(line)
        found.append(FiringRow(line, schedule_lines.result_words(line), glyph, colour, share, note))
    return found


def _versions(visit: Visit, row: Mapping[str, Any], names: Mapping[str, str], *, most: int) -> list[dict[str, Any]]:
    found = schedule_rows.versions(visit.org_id, row["id"]).order_by("-number")
    return [
        {
            **each,
            "author": schedule_lines.author(each["author"], names),
            "is_current": each["number"] == row["version"],
            "diff": list(diff_lines(each["diff"])),
        }
        for each in found.values("number", "author", "created_at", "note", "diff")[:most]
    ]


def _audit(visit: Visit, schedule_id: UUID, names: Mapping[str, str]) -> list[Mapping[str, Any]]:
    entries = queries.audit_entries(visit.org_id).filter(object_type="schedule", object_id=str(schedule_id))
    found = entries.order_by("-id").values("at", "actor", "action", "request_id")[:_MOST_AUDIT]
    return [{**each, "who": schedule_lines.author(each["actor"], names)} for each in found]


def _chart(visit: Visit, lines: Sequence[FiringLine]) -> DurationChart:
    """Durations of the firings on this page, oldest at the left, on an axis from 0."""
    shown = list(lines)[::-1]
    lengths = sorted(line.seconds for line in shown if line.seconds is not None)
    longest = lengths[-1] or 1.0
    step = next((each for each in _AXIS if each * 2.2 >= longest), longest / 2)
    top = max(step * 2, longest)
    width = 94 / max(len(shown), 12)
    bars = []
    for place, line in enumerate(shown):
        is_hollow = line.seconds is None
        height = 6.0 if is_hollow else max((line.seconds or 0.0) / top * _CHART_HEIGHT, 2.0)
        title = schedule_lines.result_words(line)
        if line.seconds is not None:
            title = f"{clock.length(line.seconds)}, {title.lower()}"
        colour = schedule_lines.RESULTS.get(line.result, ("", "canceled"))[1]
        bars.append(
            OutcomeBar(
                x=6 + place * width + width * 0.2,
                width=width * 0.6,
                y=80 - height,
                height=height,
                mark=f"m-{colour}",
                title=title,
                is_failed=line.has_failed,
                is_hollow=is_hollow,
            )
        )
    axis = [(80 - step * n / top * _CHART_HEIGHT, clock.length(step * n)) for n in (1, 2) if step * n <= top]
    return DurationChart(bars, axis, lengths[len(lengths) // 2], *_ends(visit, shown), bars[-1].x + bars[-1].width)


def _ends(visit: Visit, shown: Sequence[FiringLine]) -> tuple[str, str]:
    """The first and the last time on the axis; only one where there is no room for two."""
    first, last = (clock.short(line.fire_at, visit.zone, visit.now) for line in (shown[0], shown[-1]))
    return (first, last) if len(shown) > 5 else (first, "")


def _nominal_time(definition: Mapping[str, Any]) -> str:
    """`02:30` for a cron expression with one time a day, else nothing."""
    parts = str(definition.get("cron", "")).split()
    if len(parts) == 5 and parts[0].isdigit() and parts[1].isdigit():
        return f"{int(parts[1]):02}:{int(parts[0]):02}"
    return ""


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
