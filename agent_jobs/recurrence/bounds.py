"""Start, end and pauses of a schedule, and the stable jitter of its firings."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent_jobs.recurrence.firings import Firing, Recurrence, utc

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing fires from `start` until before `end`; without an end, nothing fires from `start` on."""

    start: datetime
    end: datetime | None = None

    def covers(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Firings from `start` to `end`, both included, outside the pauses. None means without a limit on that side."""

    start: datetime | None = None
    end: datetime | None = None
    pauses: tuple[Pause, ...] = ()

    def pause_at(self, at: datetime) -> Pause | None:
        return next((pause for pause in self.pauses if pause.covers(at)), None)


def within(recurrence: Recurrence, bounds: Bounds, *, after: datetime, limit: int) -> Iterator[Firing]:
    """At most `limit` firings after `after` within `bounds`. A long pause costs no more than a short one."""
    if bounds.start is not None:
        after = max(utc(after), utc(bounds.start) - _MICROSECOND)
    firings = recurrence.after(after)
    left = limit
    while left > 0:
        firing = next(firings, None)
        if firing is None or (bounds.end is not None and firing.at > bounds.end):
            return
        pause = bounds.pause_at(firing.at)
        if pause is None:
            yield firing
            left -= 1
        elif pause.end is None:
            return
        else:
            firings = recurrence.after(utc(pause.end) - _MICROSECOND)


def jittered(firing_at: datetime, *, key: str, max_seconds: int) -> datetime:
    """`firing_at` plus a delay that is uniform over the milliseconds of [0, max_seconds). Equal input gives an equal
    delay.

    `key` tells schedules apart, such as the schedule's id.
    """
    moment = firing_at.astimezone(UTC)
    digest = hashlib.blake2b(f"{key}\n{moment.isoformat()}".encode(), digest_size=8).digest()
    milliseconds = int.from_bytes(digest, "big") * max(max_seconds, 0) * 1_000 >> 64
    return moment + timedelta(milliseconds=milliseconds)
