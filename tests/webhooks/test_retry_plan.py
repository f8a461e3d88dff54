"""Retries last three days, and five days of failures are enough."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs.webhooks import retry_plan

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_the_tries_of_one_delivery_span_about_three_days() -> None:
    waits = [retry_plan.next_wait(n, retry_after=None, rng=random.Random(n)) for n in range(1, retry_plan.MOST_TRIES)]
    total = sum((wait for wait in waits if wait), timedelta())
    assert timedelta(days=2.9) < total < timedelta(days=3.3)
    assert retry_plan.next_wait(retry_plan.MOST_TRIES, retry_after=None, rng=random.Random(0)) is None


def test_waits_grow_and_have_jitter() -> None:
    drawn = [[retry_plan.next_wait(n, retry_after=None, rng=random.Random(seed)) for n in (1, 2, 3)] for seed in (1, 2)]
    for waits in drawn:
        assert waits[0] < waits[1] < waits[2]  # type: ignore[operator]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(("stated", "seconds"), [(100.0, 100), (1.0, 5), (10**9, 86_400)])
def test_a_later_retry_after_wins_within_a_day(stated: float, seconds: float) -> None:
    wait = retry_plan.next_wait(1, retry_after=stated, rng=random.Random(0))
    assert wait is not None
    assert seconds <= wait.total_seconds() <= seconds * 1.2


@pytest.mark.parametrize(
    ("since", "last", "begins"),
    [(None, None, 0), (4, 1, 4), (9, 1, 9), (9, 6, 0)],
)
def test_a_series_of_failures_begins_anew_after_days_without_an_attempt(
    since: float | None, last: float | None, begins: float
) -> None:
    ago = [None if days is None else NOW - timedelta(days=days) for days in (since, last)]
    assert retry_plan.failing_since(*ago, now=NOW) == NOW - timedelta(days=begins)
