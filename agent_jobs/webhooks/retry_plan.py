"""When a failed delivery is tried again, and when an endpoint has failed for too long. Pure functions of time."""

import random
from datetime import datetime, timedelta

# Seconds after each failed try. Together they are just under three days.
WAITS = (5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 86_400)
MOST_TRIES = len(WAITS) + 1
JITTER = 0.1
# An endpoint is disabled after so long a time of nothing but failures.
DISABLE_AFTER = timedelta(days=5)
LONGEST_RETRY_AFTER = 86_400.0


def next_wait(tries: int, *, retry_after: float | None, rng: random.Random) -> timedelta | None:
    """The time from failed try number `tries` to the next; None if that was the last one.

    A `retry_after` that is later wins, up to LONGEST_RETRY_AFTER.
    """
    if tries >= MOST_TRIES:
        return None
    seconds = WAITS[tries - 1] * (1 + rng.uniform(0, JITTER))
    return timedelta(seconds=max(seconds, min(retry_after or 0.0, LONGEST_RETRY_AFTER)))


def failing_since(since: datetime | None, last_failed_at: datetime | None, *, now: datetime) -> datetime:
    """The start of the series of failures to which a failure at `now` belongs.

    A failure long ago with no attempt since then says nothing about the last days, so a new series begins.
    """
    if since is None or last_failed_at is None or now - last_failed_at > DISABLE_AFTER:
        return now
    return since


def is_hopeless(since: datetime, *, now: datetime) -> bool:
    return now - since >= DISABLE_AFTER
