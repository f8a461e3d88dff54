"""Intervals, one-off times and Go's durations."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs import recurrence
from agent_jobs.recurrence import BadExpression

ANCHOR = datetime(2026, 11, 27, 10, 0, 7, tzinfo=UTC)


def test_an_interval_fires_at_its_anchor_and_at_each_multiple_after_it() -> None:
    rule = recurrence.every(timedelta(minutes=5), anchor=ANCHOR)
    before = [firing.at - ANCHOR for firing in islice(rule.after(ANCHOR - timedelta(days=9)), 3)]
    later = [firing.at - ANCHOR for firing in islice(rule.after(ANCHOR + timedelta(minutes=12)), 2)]
    assert before == [timedelta(), timedelta(minutes=5), timedelta(minutes=10)]
    assert later == [timedelta(minutes=15), timedelta(minutes=20)]
    assert rule.next_after(ANCHOR) == next(iter(islice(rule.after(ANCHOR), 1)))
    assert recurrence.parse("@every 5m", anchor=ANCHOR) == rule


def test_an_interval_does_not_drift_and_ignores_clock_changes() -> None:
    rule = recurrence.every(
        timedelta(hours=24), anchor=datetime(2026, 10, 24, 1, tzinfo=UTC), time_zone="Europe/Berlin"
    )
    firings = list(islice(rule.after(datetime(2026, 10, 24, 1, tzinfo=UTC)), 2))
    assert [firing.at.hour for firing in firings] == [1, 1]
    assert [firing.local.hour for firing in firings] == [2, 2]
    assert [firing.local.utcoffset() for firing in firings] == [timedelta(hours=1)] * 2


@pytest.mark.parametrize(("text", "seconds"), [("@every 1.5s", 1), ("@every 20ms", 1), ("@every 1.5h", 5_400)])
def test_an_interval_is_cut_to_whole_seconds_as_in_go(text: str, seconds: int) -> None:
    first, second = islice(recurrence.parse(text, anchor=ANCHOR).after(ANCHOR), 2)
    assert second.at - first.at == timedelta(seconds=seconds)


@pytest.mark.parametrize("interval", [timedelta(), timedelta(seconds=-1), timedelta(days=367)])
def test_an_interval_without_a_sensible_length_is_refused(interval: timedelta) -> None:
    with pytest.raises(BadExpression) as refused:
        recurrence.every(interval, anchor=ANCHOR)
    assert refused.value.field == "duration"


def test_a_one_off_time_fires_once() -> None:
    rule = recurrence.once(ANCHOR, time_zone="Asia/Tokyo")
    assert [firing.at for firing in rule.after(ANCHOR - timedelta(seconds=1))] == [ANCHOR]
    assert rule.next_after(ANCHOR) is None
    assert rule.latest_between(ANCHOR - timedelta(days=9), ANCHOR) == rule.next_after(ANCHOR - timedelta(days=1))
    assert rule.describe() == "Once, on 2026-11-27 at 19:00:07, Asia/Tokyo time"


@pytest.mark.parametrize("year", [1, 1969, 9_900, 9_999])
def test_a_time_outside_the_calendar_is_refused(year: int) -> None:
    with pytest.raises(BadExpression, match="time: must lie in the years 1970 to 9799"):
        recurrence.once(datetime(year, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", timedelta()),
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("+5m", timedelta(minutes=5)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1.5h", timedelta(minutes=90)),
        (".5s", timedelta(milliseconds=500)),
        ("1.s", timedelta(seconds=1)),
        ("1m1h", timedelta(minutes=61)),
        ("1h1h", timedelta(hours=2)),
        ("250ms", timedelta(milliseconds=250)),
        ("7us", timedelta(microseconds=7)),
        ("7µs", timedelta(microseconds=7)),  # micro sign
        ("7μs", timedelta(microseconds=7)),  # Greek mu
        ("1999ns", timedelta(microseconds=1)),
        ("8784h", timedelta(days=366)),
    ],
)
def test_go_durations_are_read(text: str, duration: timedelta) -> None:
    assert recurrence.parse_go_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "s", ".s", "1d", "1h 30m", "1H", "-1s", "1e3s", "٣s", "1,5s", "8785h", "9" * 60 + "h", "1s" * 99],
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(BadExpression) as refused:
        recurrence.parse_go_duration(text)
    assert refused.value.field == "duration"
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(hours=1, minutes=30), "1h30m0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=100), "100h0m0s"),
        (timedelta(seconds=100), "1m40s"),
        (timedelta(seconds=10), "10s"),
        (timedelta(milliseconds=1_500), "1.5s"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(microseconds=1_500), "1.5ms"),
        (timedelta(microseconds=7), "7µs"),
        (timedelta(microseconds=100), "100µs"),
        (timedelta(seconds=-90), "-1m30s"),
    ],
)
def test_durations_are_written_as_go_writes_them(duration: timedelta, text: str) -> None:
    assert recurrence.format_go_duration(duration) == text


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=366)))
def test_a_written_duration_reads_as_itself(duration: timedelta) -> None:
    assert recurrence.parse_go_duration(recurrence.format_go_duration(duration)) == duration
