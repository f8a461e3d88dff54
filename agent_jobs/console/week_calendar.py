"""The coming week as seven lanes: when schedules fire, which of them speak to people, and when hours are quiet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from agent_jobs import recurrence
from agent_jobs.console.visits import Visit
from agent_jobs.errors import NotFound
from agent_jobs.hours import calendar, stated_hours
from agent_jobs.recurrence import BadExpression
from agent_jobs.schedules import definition as definitions

DAYS = 7
MOST_SCHEDULES = 40
_MOST_MARKS = 1_000
# A schedule that fires this often is drawn as a line.
_OFTEN = timedelta(minutes=15)
_SPEAKING = ("conversation", "message")


@dataclass(frozen=True, slots=True)
class WeekMark:
    """A firing in the calendar. `kind`: solid (speaks to people), hollow (in quiet hours: speaks later), silent. `x` in
    percent.
    """

    x: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class WeekSpan:
    x: float
    width: float
    title: str = ""


@dataclass(slots=True)
class WeekDay:
    day: date
    label: str
    is_today: bool
    starts_at: datetime
    ends_at: datetime
    now_x: float | None = None
    quiet: list[WeekSpan] = field(default_factory=list)
    lines: list[WeekSpan] = field(default_factory=list)
    marks: list[WeekMark] = field(default_factory=list)

    def x(self, at: datetime) -> float:
        """The place of a moment, in percent of the day, whose length changes with the clocks."""
        return (at - self.starts_at) / (self.ends_at - self.starts_at) * 100

    def span(self, start: datetime, end: datetime, title: str = "") -> WeekSpan | None:
        left, right = max(self.x(start), 0.0), min(self.x(end), 100.0)
        return WeekSpan(left, right - left, title) if right > left else None


def of(visit: Visit, rows: Sequence[Mapping[str, Any]]) -> list[WeekDay]:
    """The week of these active schedules, from today in the viewer's zone."""
    days = _days(visit)
    hours = _hours(visit.org_id)
    end = days[-1].ends_at
    if hours is not None:
        for closed_from, closed_until in hours.closed_between(days[0].starts_at, end):
            for day in days:
                if span := day.span(closed_from, closed_until):
                    day.quiet.append(span)
    left = _MOST_MARKS
    for row in rows[:MOST_SCHEDULES]:
        left -= _draw(visit, row, days, hours, end, left)
        if left <= 0:
            break
    return days


def _days(visit: Visit) -> list[WeekDay]:
    today = visit.now.astimezone(visit.zone).date()
    midnights = [datetime.combine(today + timedelta(days=n), time(), tzinfo=visit.zone) for n in range(DAYS + 1)]
    # Differences of aware times of one zone ignore clock changes, so they are taken in UTC.
    moments = [midnight.astimezone(visit.now.tzinfo) for midnight in midnights]
    days = []
    for number in range(DAYS):
        day = today + timedelta(days=number)
        month = f" {day:%b}" if day.day == 1 else ""
        label = f"{day:%a} {day.day}{month}" + (", today" if not number else "")
        days.append(WeekDay(day, label, not number, moments[number], moments[number + 1]))
    days[0].now_x = days[0].x(visit.now)
    return days


def _hours(org_id: str) -> calendar.Hours | None:
    try:
        return stated_hours.get(org_id, stated_hours.Place()).hours
    except NotFound:
        return None


def _draw(
    visit: Visit,
    row: Mapping[str, Any],
    days: Sequence[WeekDay],
    hours: calendar.Hours | None,
    end: datetime,
    left: int,
) -> int:
    """Draw one schedule. Returns how many marks it took."""
    try:
        timing = definitions.timing(row["definition"], anchor=row["created_at"])
    except BadExpression:
        return 0
    firings = recurrence.within(timing.rule, timing.bounds, after=visit.now, limit=left)
    times: list[datetime] = []
    speaks = row["runner"] in _SPEAKING and (row["definition"]["job"].get("target_channel") or {}).get(
        "platform"
    ) not in ("webhook", "null", None)
    for firing in firings:
        if firing.at >= end:
            break
        times.append(firing.at)
        if len(times) == 4 and times[-1] - times[0] <= _OFTEN * 3:
            return _draw_line(row, timing, days, times[0])
    for at in times:
        day = next(day for day in days if at < day.ends_at)
        is_held = speaks and hours is not None and not hours.is_open(at)
        when = f"{row['name']}, {at.astimezone(visit.zone):%H:%M}"
        title = f"{when}: speaks when quiet hours end" if is_held else when
        day.marks.append(WeekMark(day.x(at), "hollow" if is_held else "solid" if speaks else "silent", title))
    return len(times)


def _draw_line(row: Mapping[str, Any], timing: definitions.Timing, days: Sequence[WeekDay], first: datetime) -> int:
    """A line as long as the day, for a rule that fires all the time, even if it pauses within the day."""
    last = timing.bounds.end or days[-1].ends_at
    for day in days:
        if span := day.span(first, last, f"{row['name']}: {timing.rule.describe()}"):
            day.lines.append(span)
    return len(days)
