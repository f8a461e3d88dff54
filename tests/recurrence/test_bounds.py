"""Start, end and pauses of a schedule, and the jitter of its firings."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs import recurrence
from agent_jobs.recurrence import Bounds, Pause, jittered, within

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOURLY = recurrence.parse("0 * * * *")


def hours_within(bounds: Bounds, *, limit: int = 5) -> list[int]:
    return [firing.at.hour for firing in within(HOURLY, bounds, after=NOON, limit=limit)]


def test_start_and_end_are_included() -> None:
    bounds = Bounds(start=NOON + timedelta(hours=2), end=NOON + timedelta(hours=4))
    assert hours_within(bounds) == [14, 15, 16]
    assert hours_within(Bounds(start=NOON - timedelta(hours=2)), limit=2) == [13, 14]
    assert hours_within(Bounds(), limit=0) == []


def test_a_pause_begins_with_its_start_and_ends_before_its_end() -> None:
    pause = Pause(NOON + timedelta(hours=2), NOON + timedelta(hours=4))
    assert hours_within(Bounds(pauses=(pause,))) == [13, 16, 17, 18, 19]
    assert [Bounds(pauses=(pause,)).pause_at(NOON + timedelta(hours=n)) for n in (1, 2, 4)] == [None, pause, None]


def test_pauses_may_overlap_and_touch_and_come_in_any_order() -> None:
    pauses = tuple(Pause(NOON + timedelta(hours=a), NOON + timedelta(hours=b)) for a, b in ((5, 6), (1, 3), (2, 5)))
    assert hours_within(Bounds(pauses=pauses), limit=2) == [18, 19]


def test_a_pause_without_an_end_ends_the_firings() -> None:
    assert hours_within(Bounds(pauses=(Pause(NOON + timedelta(hours=2)),))) == [13]


def test_a_long_pause_is_skipped_in_one_step() -> None:
    each_second = recurrence.parse("* * * * * *")
    bounds = Bounds(pauses=(Pause(NOON, NOON + timedelta(days=3_000)),))
    began = time.process_time()
    firings = list(within(each_second, bounds, after=NOON, limit=2))
    assert time.process_time() - began < 0.25
    assert [firing.at for firing in firings] == [NOON + timedelta(days=3_000, seconds=n) for n in (0, 1)]


def test_jitter_is_stable_for_a_firing_and_differs_between_firings_and_schedules() -> None:
    delay = jittered(NOON, key="a", max_seconds=600) - NOON
    assert jittered(NOON, key="a", max_seconds=600) - NOON == delay
    assert jittered(NOON.astimezone(recurrence.time_zone("Asia/Tokyo")), key="a", max_seconds=600) - NOON == delay
    assert jittered(NOON, key="b", max_seconds=600) - NOON != delay
    assert jittered(NOON + timedelta(hours=1), key="a", max_seconds=600) - NOON != delay + timedelta(hours=1)


def test_jitter_is_uniform_below_its_maximum() -> None:
    delays = [(jittered(NOON, key=str(n), max_seconds=10) - NOON).total_seconds() for n in range(5_000)]
    assert min(delays) >= 0
    assert max(delays) < 10
    shares = [sum(1 for delay in delays if int(delay) == second) for second in range(10)]
    assert min(shares) > 400
    assert max(shares) < 600


@pytest.mark.parametrize("max_seconds", [0, -5])
def test_without_jitter_a_firing_stays_where_it_is(max_seconds: int) -> None:
    assert jittered(NOON, key="a", max_seconds=max_seconds) == NOON
