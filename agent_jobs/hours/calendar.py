"""Quiet hours, business hours and holidays, in the time zone of the people concerned.

    {"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"]}
    {"time_zone": "Europe/Berlin", "open": {"mon": ["09:00-12:00", "13:00-17:30"], "sat": ["10:00-14:00"]},
     "holidays": ["2026-12-25"]}

`open` lists the open hours of each weekday; a missing day is closed. `quiet` lists closed hours and may cross midnight.
Holidays are closed all day. The clock on the wall decides, also when it is changed: a span that begins in the missing
hour begins when the clock is put forward, and an hour that comes twice is open, or closed, both times.

Pure functions of aware times; nothing here reads the clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agent_jobs.errors import FieldError
from infra import time_zones

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OPTIONAL_FIELDS = ("open", "quiet", "holidays")
_FIELDS = ("time_zone", *OPTIONAL_FIELDS)
MAX_HOLIDAYS = 400
_MAX_SPANS = 12
_DAY = 24 * 60  # minutes
# Nobody waits longer than this. `parse` refuses hours that stay closed for so long, not counting holidays.
_HORIZON_DAYS = 500

_Span = tuple[int, int]  # minutes of the day, the end excluded


@dataclass(frozen=True, slots=True)
class Hours:
    """The hours of one place. `open` has the open spans of each weekday, Monday first: minutes of the day, sorted and
    disjoint.
    """

    time_zone: ZoneInfo
    open: tuple[tuple[_Span, ...], ...]
    holidays: frozenset[date] = frozenset()

    def next_open(self, at: datetime) -> datetime:
        """The first open moment from `at` on, in UTC: `at` itself if it is open.

        Returns `at` if holidays fill the whole horizon: hours that never open defer nothing.
        """
        at = at.astimezone(UTC)  # arithmetic on local times would ignore clock changes
        for opens, closes in self._spans(at):
            if at < closes:
                return max(at, opens)
        return at

    def is_open(self, at: datetime) -> bool:
        return self.next_open(at) == at.astimezone(UTC)

    def after(self, at: datetime, duration: timedelta) -> datetime:
        """The time at which `duration` of open time has passed since `at`, in UTC. Beyond the horizon every hour
        counts.
        """
        left, reached = duration, at.astimezone(UTC)
        for opens, closes in self._spans(at):
            begins = max(reached, opens)
            if closes <= begins:
                continue
            if closes - begins >= left:
                return begins + left
            left -= closes - begins
            reached = closes
        return reached + left

    def passed(self, since: datetime, until: datetime) -> timedelta:
        """The open time between `since` and `until`."""
        open_time = timedelta()
        for opens, closes in self._spans(since):
            if opens >= until:
                break
            open_time += max(min(closes, until) - max(opens, since), timedelta())
        return open_time

    def closed_between(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The closed times between `start` and `end`, in order, in UTC."""
        reached = start.astimezone(UTC)
        for opens, closes in self._spans(start):
            if closes <= reached:
                continue
            if opens >= end:
                break
            if opens > reached:
                yield reached, opens
            reached = closes
        if reached < end:
            yield reached, end.astimezone(UTC)

    def _spans(self, since: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Open spans in UTC from `since` on, sorted; two of them may touch."""
        for begins, ends, offset in self._stretches(since.astimezone(UTC)):
            day, last = (begins + offset).date(), (ends + offset).date()
            while day <= last:
                midnight = datetime.combine(day, time(), UTC) - offset
                for start, end in () if day in self.holidays else self.open[day.weekday()]:
                    opens = max(begins, midnight + timedelta(minutes=start))
                    closes = min(ends, midnight + timedelta(minutes=end))
                    if opens < closes:
                        yield opens, closes
                day += timedelta(days=1)

    def _stretches(self, since: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
        """Stretches of time of at most a day, in UTC, each with its only offset from UTC."""
        begins, horizon = since, since + timedelta(days=_HORIZON_DAYS)
        while begins < horizon:
            ends = begins + timedelta(days=1)
            offset = self._offset(begins)
            if self._offset(ends) != offset:
                ends = self._change(begins, ends)
            yield begins, ends, offset
            begins = ends

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(self.time_zone).utcoffset() or timedelta()

    def _change(self, low: datetime, high: datetime) -> datetime:
        """The instant in between at which the offset from UTC changes."""
        before = self._offset(low)
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high.replace(microsecond=0)


ALWAYS = Hours(ZoneInfo("UTC"), ((((0, _DAY),),) * 7))


def parse(stated: Any, *, at: str) -> tuple[Hours, list[FieldError]]:
    """Parse hours from a JSON value. Returns the hours and the errors; with errors the hours are ALWAYS."""
    if not isinstance(stated, Mapping):
        return ALWAYS, [FieldError(at, "invalid", "must be an object")]
    errors: list[FieldError] = [
        FieldError(f"{at}.{name}", "unknown_field", f"is not a field here; the fields are {', '.join(_FIELDS)}")
        for name in stated
        if name not in _FIELDS
    ]
    zone = _zone(stated.get("time_zone"), f"{at}.time_zone", errors)
    if ("open" in stated) == ("quiet" in stated):
        errors.append(FieldError(at, "invalid", "must have either open or quiet"))
    quiet = _spans(stated.get("quiet", []), f"{at}.quiet", errors, wraps=True)
    week = _week(stated["open"], f"{at}.open", errors) if "open" in stated else [_complement(quiet)] * 7
    if not errors and not any(week):
        errors.append(FieldError(at, "invalid", "is never open"))
    holidays = _holidays(stated.get("holidays", []), f"{at}.holidays", errors)
    if errors:
        return ALWAYS, errors
    return Hours(zone, tuple(map(tuple, week)), holidays), []


def _zone(name: Any, at: str, errors: list[FieldError]) -> ZoneInfo:
    if isinstance(name, str) and name in time_zones.names():
        return ZoneInfo(name)
    errors.append(FieldError(at, "invalid", "must be a time zone such as Europe/Berlin"))
    return ZoneInfo("UTC")


def _week(stated: Any, at: str, errors: list[FieldError]) -> list[list[_Span]]:
    if not isinstance(stated, Mapping):
        errors.append(FieldError(at, "invalid", f"must be an object of {', '.join(DAYS)}"))
        return [[]] * 7
    errors += [
        FieldError(f"{at}.{day}", "unknown_field", f"is not a day; days are {', '.join(DAYS)}")
        for day in stated
        if day not in DAYS
    ]
    return [_spans(stated.get(day, []), f"{at}.{day}", errors) for day in DAYS]


def _spans(stated: Any, at: str, errors: list[FieldError], *, wraps: bool = False) -> list[_Span]:
    """Spans sorted and merged where they touch. With `wraps`, a span that ends before it begins crosses midnight."""
    if not isinstance(stated, list) or len(stated) > _MAX_SPANS:
        errors.append(FieldError(at, "invalid", f'must be a list of up to {_MAX_SPANS} spans such as "09:00-17:30"'))
        return []
    spans: list[_Span] = []
    for number, text in enumerate(stated):
        span = _span(text)
        if span and span[0] < span[1]:
            spans.append(span)
        elif span and wraps and span[0] > span[1]:
            spans += [(0, span[1]), (span[0], _DAY)]
        else:
            over = ", and end after it begins" if span else ""
            errors.append(FieldError(f"{at}.{number}", "invalid", f'must be a span such as "09:00-17:30"{over}'))
    joined: list[_Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    return joined


def _span(text: Any) -> _Span | None:
    if not isinstance(text, str) or not text.isascii():  # other scripts have digits, too
        return None
    minutes = [_minute(part) for part in text.split("-")]
    if len(minutes) != 2 or None in minutes or minutes[0] == _DAY:
        return None
    return minutes[0] or 0, minutes[1] or 0


def _minute(text: str) -> int | None:
    hour, colon, minute = text.partition(":")
    if not (colon and len(hour) == len(minute) == 2 and hour.isdigit() and minute.isdigit()):
        return None
    total = int(hour) * 60 + int(minute)
    return total if int(minute) < 60 and total <= _DAY else None


def _complement(spans: list[_Span]) -> list[_Span]:
    edges = [0, *(edge for span in spans for edge in span), _DAY]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _holidays(stated: Any, at: str, errors: list[FieldError]) -> frozenset[date]:
    if not isinstance(stated, list) or len(stated) > MAX_HOLIDAYS:
        errors.append(FieldError(at, "invalid", f"must be a list of up to {MAX_HOLIDAYS} dates"))
        return frozenset()
    days: set[date] = set()
    for number, text in enumerate(stated):
        try:
            days.add(date.fromisoformat(text))
        except (TypeError, ValueError):
            errors.append(FieldError(f"{at}.{number}", "invalid", "must be a date such as 2026-12-25"))
    return frozenset(days)
