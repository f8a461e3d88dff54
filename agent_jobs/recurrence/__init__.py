"""When something recurs: cron on the clocks of a time zone, fixed intervals, one-off times. Pure functions of time.

    rule = recurrence.parse("30 2 * * *", time_zone="Europe/Berlin")
    rule.next_after(moment)                       # Firing(at=…UTC, local=…, note="gap")
    recurrence.within(rule, Bounds(end=…), after=moment, limit=10)

Nothing here reads a clock or a database. What a firing makes, and what becomes of missed ones, belongs to schedules.
Tenants supply the input, so texts and horizons are bounded: a call costs at most some milliseconds per firing.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from agent_jobs.recurrence import cron_clock, cron_text, intervals
from agent_jobs.recurrence.bounds import Bounds, Pause, jittered, within
from agent_jobs.recurrence.firings import (
    EARLIEST,
    BadExpression,
    Firing,
    FoldPolicy,
    GapPolicy,
    Note,
    Recurrence,
)
from agent_jobs.recurrence.intervals import format_go_duration, parse_go_duration
from infra import time_zones

_SHOWN = 40

__all__ = [
    "BadExpression",
    "Bounds",
    "Firing",
    "FoldPolicy",
    "GapPolicy",
    "Note",
    "Pause",
    "Recurrence",
    "every",
    "format_go_duration",
    "jittered",
    "once",
    "parse",
    "parse_go_duration",
    "time_zone",
    "tz_version",
    "within",
]


def parse(
    expression: str,
    *,
    time_zone: str = "UTC",
    gap: GapPolicy = GapPolicy.AUTO,
    fold: FoldPolicy = FoldPolicy.AUTO,
    anchor: datetime = EARLIEST,
) -> Recurrence:
    """Parse an expression: cron with 5 fields, or with 6 (seconds first), `@hourly` and its kin, or `@every 90s`.

    A prefix `CRON_TZ=Europe/Berlin ` or `TZ=…` wins over `time_zone`. `@every` counts from `anchor`; nothing else does.
    Raises BadExpression.
    """
    text, zone = _read(expression, time_zone)
    if isinstance(text, cron_text.EveryText):
        return intervals.every(intervals.parse_go_duration(text.duration), anchor=anchor, zone=zone)
    return _cron(text, zone, GapPolicy(gap), FoldPolicy(fold))


def every(interval: timedelta, *, anchor: datetime, time_zone: str = "UTC") -> Recurrence:
    """The recurrence at `anchor` and every `interval` after it. The zone is only for display. Raises
    BadExpression("duration").
    """
    return intervals.every(interval, anchor=anchor, zone=_zone(time_zone))


def once(at: datetime, *, time_zone: str = "UTC") -> Recurrence:
    """The recurrence that fires once, at this time. The zone is only for display."""
    return intervals.once(at, zone=_zone(time_zone))


def time_zone(name: str) -> ZoneInfo:
    """The IANA zone of that name in any case. Raises BadExpression("time zone")."""
    return _zone(name)


def tz_version() -> str:
    """The release of the IANA time zone database, such as `2026f`. With a new one, stored next times are stale."""
    return time_zones.version()


def _zone(name: str) -> ZoneInfo:
    zone = time_zones.find(name)
    if zone is None:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        raise BadExpression("time zone", f"{shown!r} is not a name of the IANA database, such as Europe/Berlin")
    return zone


# A tick of the duty parses the same few texts again and again. A text that is refused is not kept.
@lru_cache(maxsize=2048)
def _read(expression: str, time_zone: str) -> tuple[cron_text.CronText | cron_text.EveryText, ZoneInfo]:
    zone = _zone(time_zone)
    text = cron_text.read(expression)
    return text, _zone(text.zone) if text.zone else zone


_cron = lru_cache(maxsize=2048)(cron_clock.of)
