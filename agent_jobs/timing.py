"""Pure functions of time: the random delay, the due time, the expiry in the queue, and the waits of the retry policy.

`turns.follow_ups` has the waits of follow-ups. Time and randomness are arguments.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

# A start further ahead than this is probably a typo.
MAX_AHEAD = timedelta(days=3653)
LONGEST_DEADLINE_MINUTES = 525_600


def draw_delay_seconds(delay_minutes: int, rng: random.Random) -> int:
    """Uniform over the whole seconds in [0, 60 x minutes]. Pass a CSPRNG; drawn once for each job."""
    return rng.randint(0, 60 * delay_minutes)


def effective_start(requested: datetime | None, *, now: datetime, delay_seconds: int) -> datetime:
    """When a job is due: a time in the past counts as now."""
    return max(requested or now, now) + timedelta(seconds=delay_seconds)


def queue_ttl(config: Mapping[str, Any]) -> timedelta | None:
    """How long a job may wait for its first start (`queue_ttl_minutes`); None: as long as it takes."""
    minutes = config.get("queue_ttl_minutes")
    return timedelta(minutes=minutes) if minutes else None


def expiry(config: Mapping[str, Any], due_at: datetime) -> datetime | None:
    """When a job that is due then fails as `expired` if it was not started."""
    ttl = queue_ttl(config)
    return due_at + ttl if ttl else None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is repeated. `max_attempts` counts the first one.

    The waits are `initial_seconds`, then each `multiplier` times as long, up to `max_seconds`. `jitter` is the share of
    a wait that is drawn at random: 0.2 gives 80 to 120 % of it. An initial wait of 0 without a policy is 1 to 5 s.
    """

    max_attempts: int
    initial_seconds: float
    max_seconds: float
    multiplier: float = 1.0
    jitter: float = 0.0
    draws_short_wait: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "RetryPolicy":
        """Read a job's config: its `retry_policy`, else `max_task_retries` and `task_retry_interval`."""
        stated = config.get("retry_policy")
        if stated is None:
            seconds = config.get("task_retry_interval", 0) * 60
            return cls(config.get("max_task_retries", 0) + 1, seconds, seconds, draws_short_wait=not seconds)
        known = {**RETRY_POLICY_DEFAULTS, **stated}
        return cls(
            known["max_attempts"],
            known["initial_interval_seconds"],
            known["max_interval_seconds"],
            known["multiplier"],
            known["jitter"],
        )

    def config(self, *, attempt_seconds: float) -> dict[str, Any]:
        """The config of a job with this policy and time-out, and a deadline that leaves its attempts and the waits
        between them their time, and queues an hour.
        """
        waits = (self.max_attempts - 1) * self.max_seconds
        minutes = math.ceil((self.max_attempts * attempt_seconds + waits) / 60)
        return {
            "attempt_timeout_seconds": attempt_seconds,
            "retry_policy": {
                "max_attempts": self.max_attempts,
                "initial_interval_seconds": self.initial_seconds,
                "max_interval_seconds": self.max_seconds,
                "multiplier": self.multiplier,
                "jitter": self.jitter,
            },
            "max_time_to_complete": min(minutes + 60, LONGEST_DEADLINE_MINUTES),
        }

    def wait_seconds(self, failed_attempts: int, *, retry_after: float | None, rng: random.Random) -> float:
        """Seconds from the failure number `failed_attempts` to the next attempt; a later Retry-After wins."""
        if self.draws_short_wait:
            seconds = rng.uniform(1, 5)
        else:
            # The exponent is bounded so that the power cannot overflow.
            grown = self.initial_seconds * self.multiplier ** min(failed_attempts - 1, 60)
            seconds = min(grown, self.max_seconds) * rng.uniform(1 - self.jitter, 1 + self.jitter)
        return max(seconds, retry_after or 0)


# Where a policy leaves a key out.
RETRY_POLICY_DEFAULTS: Mapping[str, Any] = {
    "max_attempts": 3,
    "initial_interval_seconds": 1.0,
    "max_interval_seconds": 60.0,
    "multiplier": 2.0,
    "jitter": 0.0,
}
