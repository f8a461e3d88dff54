"""Cron on the clocks of a time zone: local times that `cronsim` counts, mapped to moments in UTC.

`cronsim` gets naive times only, because its rules for clock changes are fixed and differ between 5 and 6 fields. A walk
goes through local times in order. Where the clock is put forward, it jumps over the missing times; where the clock is
put back, it begins again at the start of the repeated times. So firings come in order, without a look back.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from agent_jobs.recurrence import cron_words
from agent_jobs.recurrence.cron_text import CronText
from agent_jobs.recurrence.firings import (
    EARLIEST,
    LATEST,
    BadExpression,
    Firing,
    FoldPolicy,
    GapPolicy,
    Note,
    Recurrence,
    clock_of,
    utc,
)

_SECOND = timedelta(seconds=1)
_HORIZON = timedelta(days=36_525)
_MARGIN = timedelta(days=2)  # more than any offset from UTC
_END_OF_TIMES = datetime(9999, 12, 31)  # noqa: DTZ001 (a local time)
# `cronsim` gives up after 50 years. The 50 years from here have each date on each day of the week.
_PROBE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CronRecurrence(Recurrence):
    """A cron expression on the clocks of one zone; `of` makes it. `counter` is a CronSim: each iteration advances a
    copy of it.
    """

    fields: tuple[str, str, str, str, str, str]
    zone: ZoneInfo
    runs_after_gap: bool
    runs_twice: bool
    counter: CronSim

    def after(self, moment: datetime) -> Iterator[Firing]:
        latest = max(utc(moment), EARLIEST - _SECOND)
        end = min(latest + _HORIZON, LATEST)
        for firing in self._walk(latest, end):
            if firing.at > end:
                return
            if firing.at > latest:  # a time lost in a gap and one at the end of the gap are one firing
                yield firing
                latest = firing.at

    def describe(self) -> str:
        return f"{cron_words.sentence(self.fields)}, {clock_of(self.zone)}"

    def _walk(self, start: datetime, end: datetime) -> Iterator[Firing]:
        here = start.astimezone(self.zone)
        clock = here.replace(tzinfo=None, microsecond=0, fold=0)
        last_clock = end.replace(tzinfo=None) + _MARGIN
        times = self._times_after(clock)
        first_pass, second_pass = _clock_change(clock, self.zone), None
        if here.fold:  # the first pass is over, so its times need no walk
            first_pass, second_pass = None, first_pass
        while True:
            if second_pass and not self.runs_twice:
                times = self._times_after(second_pass.local_end - _SECOND)
                second_pass = None
            clock = next(times, _END_OF_TIMES)
            if first_pass and clock >= first_pass.local_end:
                times = self._times_after(first_pass.local_start - _SECOND)
                first_pass, second_pass = None, first_pass
                continue
            if second_pass and clock >= second_pass.local_end:
                second_pass = None
            if clock > last_clock:
                return
            if second_pass:
                yield self._firing(clock, "fold_second")
                continue
            change = first_pass or _clock_change(clock, self.zone)
            if change is None:
                yield self._firing(clock, "")
            elif change.is_fold:
                first_pass = change
                yield self._firing(clock, "fold_first")
            else:
                times = self._times_after(change.local_end - _SECOND)
                if self.runs_after_gap:
                    yield Firing(change.at, change.at.astimezone(self.zone), "gap")

    def _firing(self, clock: datetime, note: Note) -> Firing:
        local = clock.replace(tzinfo=self.zone, fold=int(note == "fold_second"))
        return Firing(local.astimezone(UTC), local, note)

    def _times_after(self, clock: datetime) -> Iterator[datetime]:
        """Local times after `clock`. The end of this iterator means: none within 50 years."""
        counter = copy.copy(self.counter)
        counter.dt = clock
        return counter


@dataclass(frozen=True, slots=True)
class _Change:
    """A clock change at `at`. Local times from `local_start` until before `local_end` are missing, or come twice."""

    at: datetime
    local_start: datetime
    local_end: datetime
    is_fold: bool


def of(text: CronText, zone: ZoneInfo, gap: GapPolicy, fold: FoldPolicy) -> CronRecurrence:
    """The recurrence of a read text. Raises BadExpression if it never fires."""
    try:
        counter = CronSim(" ".join(text.fields), _PROBE.replace(tzinfo=None))
    except CronSimError as error:
        raise BadExpression("expression", f"is not understood: {error}") from None
    has_wildcard = text.fields[1].startswith("*") or text.fields[2].startswith("*")
    recurrence = CronRecurrence(
        text.fields,
        zone,
        runs_after_gap=gap is GapPolicy.RUN_AFTER or (gap is GapPolicy.AUTO and not has_wildcard),
        runs_twice=fold is FoldPolicy.TWICE or (fold is FoldPolicy.AUTO and has_wildcard),
        counter=counter,
    )
    if next(copy.copy(counter), None) is None:
        raise BadExpression("expression", "never fires: no date has all that it asks for")
    if recurrence.next_after(_PROBE) is None:
        raise BadExpression("expression", f"never fires: clock changes in {zone.key} leave out all of its times")
    return recurrence


def _clock_change(clock: datetime, zone: ZoneInfo) -> _Change | None:
    """The clock change that makes `clock` a missing or a repeated local time; None for an ordinary one."""
    before = _offset(clock.replace(tzinfo=zone))
    after = _offset(clock.replace(tzinfo=zone, fold=1))
    if before == after:
        return None
    low = (clock - max(before, after)).replace(tzinfo=UTC)  # before the change
    high = (clock - min(before, after)).replace(tzinfo=UTC)  # not before it
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if _offset(middle.astimezone(zone)) == before:
            low = middle
        else:
            high = middle
    moment = high.replace(tzinfo=None)
    local_start, local_end = sorted((moment + before, moment + after))
    return _Change(high, local_start, local_end, is_fold=before > after)


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()
