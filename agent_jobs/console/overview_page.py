"""The overview: four sentences that answer what people come for, then counts, charts and the state of the processes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.http import HttpResponse

from agent_jobs.console import clock, visits
from agent_jobs.console.templatetags.console import WAITS, humanized
from agent_jobs.console.visits import Visit
from agent_jobs.reads import console_frame, explanations, overview
from agent_jobs.reads.overview import Alive, SeenProcess, TypeFigures
from agent_jobs.states import WaitingFor
from infra.bounded_cache import BoundedCache

# Name in the address: words, width of a bar, how many bars, a label below every how many.
RANGES: Mapping[str, tuple[str, timedelta, int, int]] = {
    "24h": ("24 h", timedelta(hours=1), 24, 3),
    "7d": ("7 days", timedelta(hours=6), 28, 4),
    "30d": ("30 days", timedelta(days=1), 30, 5),
}
_LANES = {"agents": "Conversations", "messages": "Other jobs"}
_HEIGHT, _TOP = 158.0, 24.0  # of the chart's bars, in pixels
_LEAST_FAILED = 3.0
# The axis of durations: 1 s to 7 days, logarithmic.
_AXIS = math.log(7 * 86_400)


@dataclass(frozen=True, slots=True)
class EndedBar:
    x: float
    width: float
    title: str
    label: str
    completed: tuple[float, float]  # top and height
    failed: tuple[float, float]
    canceled: tuple[float, float]


@dataclass(frozen=True, slots=True)
class EndedChart:
    bars: Sequence[EndedBar]
    grid: Sequence[tuple[float, str]]
    totals: Mapping[str, int]
    summary: str


@dataclass(frozen=True, slots=True)
class DurationRow:
    name: str
    key: str
    median: float
    p95: float
    from_x: float
    to_x: float


@dataclass(frozen=True, slots=True)
class DoingRow:
    what: str
    glyph: str
    colour: str
    words: str
    number: int
    share: float
    note: str


@visits.page
def show(visit: Visit) -> HttpResponse:
    stated = visit.request.GET.get("range", "24h")
    chosen = stated if stated in RANGES else "24h"
    alive = overview.alive(visit.org_id)
    figures = overview.types(visit.org_id, since=visit.now - timedelta(hours=24))
    _, width, buckets, _ = RANGES[chosen]
    since = _start(visit, width, buckets)
    ended = _ended(visit.org_id, since, width, buckets)
    day = (
        ended
        if chosen == "24h"
        else _ended(visit.org_id, _start(visit, timedelta(hours=1), 24), timedelta(hours=1), 24)
    )
    failing = sorted((each for each in figures if each.failed), key=lambda each: (-each.failed, each.number, each.key))
    today = visit.now.astimezone(UTC).date()
    context = {
        "alive": alive,
        "chosen": chosen,
        "ranges": [(name, label) for name, (label, *_) in RANGES.items()],
        "chart": _chart(visit, ended, since, chosen),
        "day": {status: sum(hour[status] for hour in day) for status in ("completed", "failed", "canceled")},
        "sparks": {status: _spark([hour[status] for hour in day]) for status in ("completed", "failed", "canceled")},
        "at_work": next((each.number for each in alive.doing if each.what == "worker"), 0),
        "oldest_queue": min(alive.queues, key=lambda each: each.oldest_at, default=None),
        "queues": [(queue_name(each.lane), each) for each in alive.queues],
        "doing": _doing(visit, alive),
        "failing": failing[:6],
        "worst": failing[0] if failing else None,
        "durations": _durations(figures),
        "spend": overview.spend(visit.org_id, today=today),
        "spend_day": today - timedelta(days=1),
        "processes": workers(visit, alive),
    }
    return visit.render("overview.html", context, here="overview")


@visits.page
def why_oldest(visit: Visit) -> HttpResponse:
    """Why the oldest job in a queue does not start. The page loads this later, because it takes several statements."""
    alive = overview.alive(visit.org_id)
    oldest = min(alive.queues, key=lambda each: each.oldest_at, default=None)
    if oldest is None:
        return visit.part("parts/overview_why.html", {"explanation": None})
    return visit.part("parts/overview_why.html", {"explanation": explanations.of(visit.org_id, oldest.first_job)})


def workers(visit: Visit, alive: Alive) -> list[tuple[SeenProcess, bool]]:
    """The worker processes, and whether each was heard of lately."""
    since = visit.now - timedelta(seconds=console_frame.ALIVE_SECONDS)
    return [(each, each.seen_at > since) for each in alive.workers]


def queue_name(lane: str) -> str:
    return _LANES.get(lane, humanized(lane))


# Figures of long periods: they change little and take a while.
_kept = BoundedCache[list[dict[str, int]]](500)
_KEPT_SECONDS = 60.0


def _ended(org_id: str, since: datetime, width: timedelta, buckets: int) -> list[dict[str, int]]:
    if width <= timedelta(hours=1):
        return overview.ended(org_id, since=since, width=width, buckets=buckets)
    key = f"{org_id} {since} {width}"
    found = _kept.get(key)
    if found is None:
        found = overview.ended(org_id, since=since, width=width, buckets=buckets)
        _kept.put(key, found, seconds=_KEPT_SECONDS)
    return found


def _start(visit: Visit, width: timedelta, buckets: int) -> datetime:
    """The begin of the first bar: bars begin on the hour, or on the day, of the viewer's zone."""
    local = visit.now.astimezone(visit.zone).replace(minute=0, second=0, microsecond=0)
    if width >= timedelta(days=1):
        local = local.replace(hour=0)
    elif width > timedelta(hours=1):
        local = local.replace(hour=local.hour // 6 * 6)
    return local.astimezone(UTC) - width * (buckets - 1)


def _chart(visit: Visit, ended: Sequence[Mapping[str, int]], since: datetime, chosen: str) -> EndedChart:
    words, width, buckets, every = RANGES[chosen]
    top = _round_up(max((sum(each.values()) for each in ended), default=0))
    bars = []
    for place, numbers in enumerate(ended):
        began = (since + width * place).astimezone(visit.zone)
        until = (since + width * (place + 1)).astimezone(visit.zone)
        completed = _HEIGHT * numbers["completed"] / top
        failed = max(_HEIGHT * numbers["failed"] / top, _LEAST_FAILED) if numbers["failed"] else 0.0
        canceled = max(_HEIGHT * numbers["canceled"] / top, 2.0) if numbers["canceled"] else 0.0
        floor = _TOP + _HEIGHT
        label = f"{began.day} {began:%b}" if chosen != "24h" else f"{began:%H:%M}"
        period = f"{began:%H:%M} to {until:%H:%M}" if chosen != "30d" else f"{began:%a} {began.day} {began:%b}"
        if chosen == "7d":
            period = f"{began:%a} {began.day} {began:%b}, {period}"
        told = f"{numbers['completed']} completed, {numbers['failed']} failed, {numbers['canceled']} canceled"
        failed_top = floor - completed - (1.0 if failed else 0.0) - failed
        bars.append(
            EndedBar(
                x=0.6 + place * 100 / buckets,
                width=68.0 / buckets,
                title=f"{period}: {told}",
                label=label if place % every == 0 else "",
                completed=(floor - completed, completed),
                failed=(failed_top, failed),
                canceled=(failed_top - canceled - (1.0 if canceled else 0.0), canceled),
            )
        )
    totals = {status: sum(each[status] for each in ended) for status in ("completed", "failed", "canceled")}
    grid = [(_TOP + _HEIGHT * (1 - share), f"{round(top * share):,}") for share in (1.0, 2 / 3, 1 / 3)]
    summary = ", ".join(f"{number:,} {status}" for status, number in totals.items())
    return EndedChart(bars, grid, totals, f"Jobs that ended in the last {words}: {summary}")


def _round_up(number: int) -> int:
    """A number with thirds that read well: 3, 6, 9, 15, 30, 60, 90, 150, 300 ..."""
    if number <= 3:
        return 3
    size = 10 ** (len(str(number)) - 1)
    return next(step for step in (int(size * part) for part in (1.5, 3, 6, 9, 15)) if step >= number)


def _spark(numbers: Sequence[int]) -> str:
    """The points of a small line of 64 by 24."""
    most = max(numbers, default=0)
    if not most:
        return ""
    joined = [sum(numbers[place : place + 2]) for place in range(0, len(numbers), 2)]
    most = max(joined)
    step = 64 / (len(joined) - 1)
    return " ".join(f"{place * step:.1f},{22 - 20 * number / most:.1f}" for place, number in enumerate(joined))


def _doing(visit: Visit, alive: Alive) -> list[DoingRow]:
    most = max((each.number for each in alive.doing), default=1)
    by_name = {each.what: each for each in alive.doing}
    names = {"worker": ("running", "running", "At work"), "queue": ("waiting", "waiting", "In the queue")}
    rows = []
    for what, (glyph, colour, words) in {**names, **WAITS}.items():
        each = by_name.get(what)
        if each is None and what in ("queue", WaitingFor.COOLDOWN):
            continue
        number = each.number if each else 0
        note = ""
        if each and what in (WaitingFor.RETRY, WaitingFor.QUIET_HOURS) and each.next_at:
            note = f"next {clock.coming(each.next_at, visit.zone, visit.now)}"
        elif each:
            note = f"oldest {clock.rough((visit.now - each.oldest_at).total_seconds())}"
        rows.append(DoingRow(what, glyph, colour, words[:1].upper() + words[1:], number, 100 * number / most, note))
    return rows


def _durations(figures: Sequence[TypeFigures]) -> list[DurationRow]:
    rows = []
    for each in figures:
        if each.median is None or each.p95 is None:
            continue
        low, high = _on_axis(each.median), _on_axis(each.p95)
        rows.append(DurationRow(each.name or humanized(each.key), each.key, each.median, each.p95, low, high))
    return rows[:7]


def _on_axis(seconds: float) -> float:
    return min(max(100 * math.log(max(seconds, 1.0)) / _AXIS, 0.0), 98.0)
