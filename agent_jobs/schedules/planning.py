"""Decides which of a schedule's due times make a job. Pure: no clock, no database."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent_jobs import recurrence
from agent_jobs.schedules.definition import Misfire, Overlap, Timing

# More missed times than this are not looked at one by one; the latest of them stands for all.
MOST_LOOKED_AT = 5_000
# More misfires than this are not recorded one by one; one record counts the others.
MOST_RECORDED = 100
MICROSECOND = timedelta(microseconds=1)
OVERLAPS = "an earlier job of the schedule has not ended"
QUEUE_IS_FULL = "an earlier job of the schedule has not ended, and another firing waits for its end already"
REPLACED_AT_ONCE = "a later firing was due at the same moment and replaced it"
_LATE = "it was due while nothing fired schedules"


@dataclass(frozen=True, slots=True)
class Planned:
    """One due time and its outcome: `run`, `replace` (cancel the others first), `queued`, `skipped` or `misfired`."""

    fire_at: datetime
    outcome: str
    reason: str = ""

    @property
    def makes_job(self) -> bool:
        return self.outcome in ("run", "replace")


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcomes of all times that are due, oldest first, and the next time to fire."""

    planned: tuple[Planned, ...]
    next_at: datetime | None


def plan(timing: Timing, *, next_at: datetime, now: datetime, active: int, queued: int) -> Plan:
    """Decide about all due times. `active` jobs have not ended, and `queued` firings wait for their end."""
    due, left_out = _due(timing, next_at, now)
    late, on_time = [at for at in due if at < now - timing.grace], [at for at in due if at >= now - timing.grace]
    allowed = {Misfire.SKIP: 0, Misfire.RUN_ONCE: 1, Misfire.RUN_ALL: timing.max_runs}[timing.misfire]
    misfired, runs = (late[:-allowed], late[-allowed:]) if allowed else (late, [])
    planned = [
        Planned(next_at, "misfired", f"{_LATE}, as were more than {MOST_LOOKED_AT:,} firings after it")
    ] * left_out
    planned += _recorded_misfires(misfired)
    planned += by_overlap(timing.overlap, [*runs, *on_time], active=active, queued=queued)
    following = next(recurrence.within(timing.rule, timing.bounds, after=due[-1] if due else now, limit=1), None)
    return Plan(tuple(planned), following.at if following else None)


def next_time(timing: Timing, *, after: datetime) -> datetime | None:
    found = next(recurrence.within(timing.rule, timing.bounds, after=after, limit=1), None)
    return found.at if found else None


def _due(timing: Timing, next_at: datetime, now: datetime) -> tuple[list[datetime], bool]:
    """The times from `next_at` to `now`, and whether older ones are left out because there are too many."""
    firings = recurrence.within(timing.rule, timing.bounds, after=next_at - MICROSECOND, limit=MOST_LOOKED_AT + 1)
    due: deque[datetime] = deque()
    for firing in firings:
        if firing.at > now:
            return list(due), False
        due.append(firing.at)
        if len(due) > MOST_LOOKED_AT:
            break
    else:
        return list(due), False
    latest = timing.rule.latest_between(due[-1], now)
    end = timing.bounds.end
    is_open = latest is not None and timing.bounds.pause_at(latest.at) is None and (end is None or latest.at <= end)
    return [latest.at] if latest is not None and is_open else list(due)[-1:], True


def _recorded_misfires(misfired: list[datetime]) -> Iterator[Planned]:
    earlier = len(misfired) - MOST_RECORDED
    for number, at in enumerate(misfired[-MOST_RECORDED:]):
        yield Planned(
            at, "misfired", f"{_LATE}, as were {earlier:,} firings before it" if earlier > 0 and not number else _LATE
        )


def by_overlap(overlap: Overlap, times: Iterable[datetime], *, active: int, queued: int) -> list[Planned]:
    """Apply the overlap policy to each time. `active` jobs are unfinished, `queued` firings wait."""
    planned = []
    times = list(times)
    if overlap == Overlap.REPLACE:  # of several due at once, the last replaces the others before they begin
        planned = [Planned(at, "skipped", REPLACED_AT_ONCE) for at in times[:-1]]
        times = times[-1:]
    for at in times:
        one = _by_overlap(overlap, at, active=active, queued=queued)
        active = {"run": active + 1, "replace": 1}.get(one.outcome, active)
        queued += one.outcome == "queued"
        planned.append(one)
    return planned


def _by_overlap(overlap: Overlap, at: datetime, *, active: int, queued: int) -> Planned:
    if not active and not queued:
        return Planned(at, "run")
    match overlap:
        case Overlap.ALLOW:
            return Planned(at, "run")
        case Overlap.REPLACE:
            return Planned(at, "replace")
        case Overlap.FORBID:
            return Planned(at, "skipped", OVERLAPS)
        case Overlap.QUEUE_ONE:
            return Planned(at, "skipped", QUEUE_IS_FULL) if queued else Planned(at, "queued", OVERLAPS)
