"""The public shapes: a firing, the policies for clock changes, the interface of a recurrence, and its one error."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo

# Firings lie between these. The margin before the year 9999 is wider than any sum here: no date overflows.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9800, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

Note = Literal["", "gap", "fold_first", "fold_second"]


class BadExpression(ValueError):
    """An expression that cannot be used. `field` is its wrong part: "minute", "day of month", "expression", "time
    zone", "duration". The text is one sentence for people, which names the field and the reason.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class GapPolicy(StrEnum):
    """How local times that a clock change leaves out are treated."""

    AUTO = "auto"  # skip if the minute or the hour field begins with *, else run after
    RUN_AFTER = "run_after"  # one firing at the end of the gap for all that fell into it
    SKIP = "skip"


class FoldPolicy(StrEnum):
    """How local times that a clock change repeats are treated."""

    AUTO = "auto"  # twice if the minute or the hour field begins with *, else once
    ONCE = "once"  # the first pass only
    TWICE = "twice"


@dataclass(frozen=True, slots=True)
class Firing:
    """One time of a recurrence. `at` is in UTC; `local` is the same moment on the clocks of the recurrence's zone.
    `note` marks clock changes: a firing moved to the end of a gap, or one within the first or second pass of a repeated
    hour.
    """

    at: datetime
    local: datetime
    note: Note = ""


class Recurrence(ABC):
    """When something fires. Immutable; equal input gives equal firings on every host. `zone` is the one of local
    times: that of a prefix `CRON_TZ=`, else the one given to `parse`.
    """

    __slots__ = ()
    zone: ZoneInfo

    @abstractmethod
    def after(self, moment: datetime) -> Iterator[Firing]:
        """Firings strictly after `moment`, strictly increasing. `moment` must be aware.

        Lazy, and without an end if the recurrence has none. Cron stops after a hundred years.
        """

    @abstractmethod
    def describe(self) -> str:
        """A plain English sentence without its full stop, such as "At 02:30 every day, Europe/Berlin time"."""

    def next_after(self, moment: datetime) -> Firing | None:
        """The first firing strictly after `moment`; None if there is none."""
        return next(self.after(moment), None)

    def latest_between(self, start: datetime, end: datetime) -> Firing | None:
        """The last firing after `start`, up to and including `end`. Cheap even if there are millions of them."""
        found = self.next_after(start)
        if found is None or found.at > end:
            return None
        low, high = found.at, end  # a firing is at `low`; none is after `high`
        while high - low >= _SECOND:  # firings are at least a second apart
            middle = low + (high - low) / 2
            later = self.next_after(middle)
            if later is not None and later.at <= end:
                found, low = later, later.at
            else:
                high = middle
        return found


def utc(moment: datetime) -> datetime:
    """`moment` in UTC, moved into the years with which this package counts. Raises ValueError for a naive time."""
    if moment.tzinfo is None:
        raise ValueError("a recurrence needs aware times")
    if moment.year < EARLIEST.year:
        return EARLIEST - timedelta(days=1)
    if moment.year >= LATEST.year:
        return LATEST
    return moment.astimezone(UTC)


def clock_of(zone: ZoneInfo) -> str:
    return zone.key if zone.key == "UTC" else f"{zone.key} time"
