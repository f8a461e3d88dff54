"""Recurrences without a calendar: every so often, or once. Durations are Go's, as in `@every 1h30m`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import count
from zoneinfo import ZoneInfo

from agent_jobs.recurrence.firings import EARLIEST, LATEST, BadExpression, Firing, Recurrence, clock_of, utc

MAX_DURATION = timedelta(days=366)
_MAX_LENGTH = 64
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),  # micro sign
    "μs": Decimal(1),  # Greek mu: Go takes both
    "ms": Decimal(1_000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
}
_TERM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"\+?(?:{_TERM.pattern})+")


@dataclass(frozen=True, slots=True)
class Interval(Recurrence):
    """Fires at `anchor` and every `length` after it, by UTC: clock changes do not matter."""

    length: timedelta
    anchor: datetime
    zone: ZoneInfo

    def after(self, moment: datetime) -> Iterator[Firing]:
        first = max((utc(moment) - self.anchor) // self.length + 1, 0)
        for number in count(first):
            at = self.anchor + number * self.length
            if at > LATEST:
                return
            yield Firing(at, at.astimezone(self.zone))

    def describe(self) -> str:
        return f"Every {_words(self.length)}"


@dataclass(frozen=True, slots=True)
class OneTime(Recurrence):
    at: datetime
    zone: ZoneInfo

    def after(self, moment: datetime) -> Iterator[Firing]:
        if self.at > utc(moment):
            yield Firing(self.at, self.at.astimezone(self.zone))

    def describe(self) -> str:
        local = self.at.astimezone(self.zone)
        return f"Once, on {local:%Y-%m-%d} at {local:%H:%M:%S}, {clock_of(self.zone)}"


def every(interval: timedelta, *, anchor: datetime, zone: ZoneInfo) -> Interval:
    """The recurrence of an interval. As in Go's cron, less than a second counts as one second, and fractions of longer
    intervals are cut.
    """
    if interval <= timedelta():
        raise BadExpression("duration", "must be longer than zero")
    if interval > MAX_DURATION:
        raise BadExpression("duration", f"must be at most {MAX_DURATION.days} days")
    return Interval(max(interval // _SECOND, 1) * _SECOND, _within_years(anchor), zone)


def once(at: datetime, *, zone: ZoneInfo) -> OneTime:
    return OneTime(_within_years(at), zone)


def parse_go_duration(text: str) -> timedelta:
    """A Go duration such as `1h30m`, `1.5s` or `250ms`; not negative, at most 366 days. Parts of a microsecond are cut.

    Raises BadExpression("duration").
    """
    if len(text) > _MAX_LENGTH:
        raise BadExpression("duration", f"must have at most {_MAX_LENGTH} characters")
    if not text:
        raise BadExpression("duration", "is missing")
    if text in ("0", "+0"):
        return timedelta()
    if text.startswith("-"):
        raise BadExpression("duration", f"{text} must not be negative")
    if not _WHOLE.fullmatch(text):
        why = "; there is no unit for days, write 24h" if re.search(r"\dd", text) else ""
        raise BadExpression("duration", f"{text!r} must be a Go duration such as 90s, 5m or 1h30m{why}")
    microseconds = sum((Decimal(number) * _UNITS[unit] for number, unit in _TERM.findall(text)), Decimal())
    if microseconds > MAX_DURATION // _MICROSECOND:
        raise BadExpression("duration", f"{text} must be at most {MAX_DURATION.days} days")
    return timedelta(microseconds=int(microseconds.to_integral_value(ROUND_DOWN)))


def format_go_duration(duration: timedelta) -> str:
    """As Go's `time.Duration.String()`: `1h30m0s`, `1.5s`, `250ms`, `0s`."""
    microseconds = duration // _MICROSECOND
    sign = "-" if microseconds < 0 else ""
    microseconds = abs(microseconds)
    if microseconds == 0:
        return "0s"
    for unit, size in (("µs", 1), ("ms", 1_000)):
        if microseconds < 1_000 * size:
            return f"{sign}{_decimal(microseconds, size)}{unit}"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, 1_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _within_years(at: datetime) -> datetime:
    if not EARLIEST.year <= at.year < LATEST.year:
        raise BadExpression("time", f"must lie in the years {EARLIEST.year} to {LATEST.year - 1}")
    return utc(at)


def _decimal(number: int, size: int) -> str:
    return f"{(Decimal(number) / size).normalize():f}"


def _words(length: timedelta) -> str:
    seconds = length // _SECOND
    parts = []
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        amount, seconds = divmod(seconds, size)
        if amount:
            parts.append(f"{amount} {name}{'' if amount == 1 else 's'}")
    return " ".join(parts) if len(parts) > 1 else parts[0].removeprefix("1 ")
