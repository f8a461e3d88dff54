"""The sums with times."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs import timing

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_a_delay_is_drawn_over_all_whole_seconds_of_its_window() -> None:
    rng = random.Random(7)
    drawn = {timing.draw_delay_seconds(1, rng) for _ in range(5_000)}
    assert drawn == set(range(61))


def test_a_delay_of_nought_is_no_delay() -> None:
    assert timing.draw_delay_seconds(0, random.Random(7)) == 0


@pytest.mark.parametrize(
    ("requested", "delay_seconds", "expected"),
    [
        (None, 0, NOW),
        (None, 30, NOW + timedelta(seconds=30)),
        (NOW - timedelta(days=3), 0, NOW),
        (NOW - timedelta(days=3), 30, NOW + timedelta(seconds=30)),
        (NOW + timedelta(days=3), 30, NOW + timedelta(days=3, seconds=30)),
    ],
)
def test_a_job_starts_at_its_time_or_now_and_then_waits_its_delay(
    requested: datetime | None, delay_seconds: int, expected: datetime
) -> None:
    assert timing.effective_start(requested, now=NOW, delay_seconds=delay_seconds) == expected


@pytest.mark.parametrize(
    ("interval_minutes", "retry_after", "low", "high"),
    [(2, None, 120, 120), (2, 600, 600, 600), (2, 5, 120, 120), (0, None, 1, 5), (0, 30, 30, 30)],
)
def test_the_next_attempt_comes_after_the_interval_or_a_later_retry_after(
    interval_minutes: float, retry_after: float | None, low: float, high: float
) -> None:
    policy = timing.RetryPolicy.of({"task_retry_interval": interval_minutes})
    seconds = policy.wait_seconds(1, retry_after=retry_after, rng=random.Random(7))
    assert low <= seconds <= high


def test_a_retry_policy_grows_up_to_its_longest_interval() -> None:
    policy = timing.RetryPolicy.of({"retry_policy": {"initial_interval_seconds": 10, "max_interval_seconds": 35}})
    waits = [policy.wait_seconds(failed, retry_after=None, rng=random.Random(7)) for failed in (1, 2, 3, 4, 500)]
    assert (policy.max_attempts, waits) == (3, [10, 20, 35, 35, 35])


def test_the_jitter_of_a_retry_policy_is_a_share_of_the_wait() -> None:
    stated = {"initial_interval_seconds": 100, "max_interval_seconds": 100, "jitter": 0.2}
    policy = timing.RetryPolicy.of({"retry_policy": stated})
    rng = random.Random(7)
    waits = [policy.wait_seconds(1, retry_after=None, rng=rng) for _ in range(200)]
    assert 80 <= min(waits) < 85
    assert 115 < max(waits) <= 120
