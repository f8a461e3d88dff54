"""Pure functions of time: the delay, the next attempt, the next follow-up. Time and randomness are arguments."""

import random
from datetime import datetime, timedelta

# A start further ahead than this is probably a typo.
MAX_AHEAD = timedelta(days=3653)
# One step of priority counts as much as this long in the queue, so that low-priority jobs also start in time.
PRIORITY_STEP = timedelta(minutes=1)
DEFAULT_FOLLOW_UP_INTERVAL_MINUTES = 60.0


def draw_delay_seconds(delay_minutes: int, rng: random.Random) -> int:
    """Uniform over the whole seconds in [0, 60 x minutes]. Pass a CSPRNG; drawn once for each job."""
    return rng.randint(0, 60 * delay_minutes)


def effective_start(requested: datetime | None, *, now: datetime, delay_seconds: int) -> datetime:
    """When a job is due: a time in the past counts as now."""
    return max(requested or now, now) + timedelta(seconds=delay_seconds)


def place_in_queue(since: datetime, priority: int, *, default_priority: int) -> datetime:
    """The time by which a job is ordered in its queue: each step above the default moves it ahead, each below moves it
    back.
    """
    return since - (priority - default_priority) * PRIORITY_STEP


def retry_delay_seconds(interval_minutes: float, *, retry_after: float | None, rng: random.Random) -> float:
    """Seconds from a failure to the next attempt: the interval, or 1 to 5 s where it is 0; a later Retry-After wins."""
    seconds = interval_minutes * 60 if interval_minutes else rng.uniform(1, 5)
    return max(seconds, retry_after or 0)


def follow_up_seconds(interval_minutes: float, unanswered: int) -> float:
    """Seconds of silence before follow-up number `unanswered` + 1: 1x, 2x, then always 4x the interval."""
    return float(interval_minutes * 60 * min(2**unanswered, 4))
