"""Hours: when one may speak, through nights, weekends, holidays and the two nights on which the clock is changed."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.hours import calendar
from agent_jobs.hours.calendar import Hours
from infra import time_zones

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = {"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"]}
OFFICE = {
    "time_zone": "Europe/Berlin",
    "open": {day: ["09:00-12:00", "13:00-17:30"] for day in ("mon", "tue", "wed", "thu", "fri")},
    "holidays": ["2026-12-25"],
}


def parsed(stated: Any) -> Hours:
    found, errors = calendar.parse(stated, at="hours")
    assert errors == []
    return found


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(
    ("stated", "at", "opens"),
    [
        (NIGHTS, "2026-11-21 12:00", "2026-11-21 12:00"),
        (NIGHTS, "2026-11-21 21:59", "2026-11-21 21:59"),
        (NIGHTS, "2026-11-21 22:00", "2026-11-22 07:00"),
        (NIGHTS, "2026-11-22 06:59", "2026-11-22 07:00"),
        (OFFICE, "2026-11-20 12:30", "2026-11-20 13:00"),
        (OFFICE, "2026-11-20 17:30", "2026-11-23 09:00"),  # Friday evening: Monday
        (OFFICE, "2026-12-24 18:00", "2026-12-28 09:00"),  # Friday is a holiday
        ({**NIGHTS, "quiet": []}, "2026-11-21 03:00", "2026-11-21 03:00"),
        ({**NIGHTS, "quiet": ["00:00-06:00", "05:00-07:00", "23:00-24:00"]}, "2026-11-21 23:30", "2026-11-22 07:00"),
    ],
)
def test_what_is_said_at_a_bad_time_waits_for_a_good_one(stated: Any, at: str, opens: str) -> None:
    assert parsed(stated).next_open(berlin(at)) == berlin(opens)
    assert parsed(stated).is_open(berlin(at)) is (at == opens)


@pytest.mark.parametrize(
    ("quiet", "at", "opens"),
    [
        # 29 March 2026: 02:00 becomes 03:00.
        ("22:00-07:00", "2026-03-28 23:00", datetime(2026, 3, 29, 5, 0, tzinfo=UTC)),
        ("01:00-02:30", "2026-03-29 01:15", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),  # the moment of the jump
        # 25 October 2026: 03:00 becomes 02:00, so 02:30 comes twice, and both times belong to what is open.
        ("22:00-07:00", "2026-10-24 23:00", datetime(2026, 10, 25, 6, 0, tzinfo=UTC)),
        ("01:00-02:30", "2026-10-25 01:15", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_the_nights_on_which_the_clock_is_changed(quiet: str, at: str, opens: datetime) -> None:
    assert parsed({**NIGHTS, "quiet": [quiet]}).next_open(berlin(at)) == opens


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    night = parsed({"time_zone": "Europe/Berlin", "open": {"sun": ["02:00-03:00"]}})
    for fold in (0, 1):
        assert night.is_open(berlin("2026-10-25 02:30", fold))
    begins = berlin("2026-10-25 02:00")
    assert night.after(begins, timedelta(hours=2)) - begins.astimezone(UTC) == timedelta(hours=2)


@pytest.mark.parametrize(
    ("zone", "span", "last_open", "first_closed"),
    [
        # What closes at the beginning of the repeated hour closes at its first time, not an hour later.
        (
            "Europe/Berlin",
            "02:00-07:00",
            datetime(2026, 10, 24, 23, 59, tzinfo=UTC),
            datetime(2026, 10, 25, tzinfo=UTC),
        ),
        (
            "America/Havana",
            "00:00-07:00",
            datetime(2026, 11, 1, 3, 59, tzinfo=UTC),
            datetime(2026, 11, 1, 4, tzinfo=UTC),
        ),
        (
            "America/New_York",
            "01:00-07:00",
            datetime(2026, 11, 1, 4, 59, tzinfo=UTC),
            datetime(2026, 11, 1, 5, tzinfo=UTC),
        ),
        # What closes inside of it, or at its end, closes at the second time.
        (
            "Europe/Berlin",
            "02:30-07:00",
            datetime(2026, 10, 25, 1, 29, tzinfo=UTC),
            datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        ),
        (
            "Europe/Berlin",
            "03:00-07:00",
            datetime(2026, 10, 25, 1, 59, tzinfo=UTC),
            datetime(2026, 10, 25, 2, tzinfo=UTC),
        ),
    ],
)
def test_a_window_that_ends_in_the_repeated_hour(
    zone: str, span: str, last_open: datetime, first_closed: datetime
) -> None:
    hours = parsed({"time_zone": zone, "quiet": [span]})

    assert hours.is_open(last_open)
    assert not hours.is_open(first_closed)


WINDOWS = ("02:00-07:00", "01:00-07:00", "00:00-06:00", "22:00-02:30", "23:30-02:15", "01:00-02:00", "02:30-03:00")


@lru_cache(maxsize=1)
def changes_of_clocks() -> dict[tuple[timedelta, timedelta, str], tuple[ZoneInfo, datetime]]:
    """A zone and an instant for each kind of change in 2026 and 2027: from one offset to another, at a local time."""
    found = {}
    for name in sorted(time_zones.names()):
        zone, at = ZoneInfo(name), datetime(2026, 1, 1, tzinfo=UTC)
        while at < datetime(2028, 1, 1, tzinfo=UTC):
            later = at + timedelta(days=7)
            if at.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
                change = next(
                    moment
                    for moment in (at + timedelta(minutes=15 * step) for step in range(673))
                    if moment.astimezone(zone).utcoffset() == later.astimezone(zone).utcoffset()
                )
                before, after = ((change - timedelta(minutes=1)).astimezone(zone), change.astimezone(zone))
                found[before.utcoffset(), after.utcoffset(), f"{after:%H:%M}"] = zone, change
            at = later
    return found


@pytest.mark.parametrize("window", WINDOWS)
def test_the_clock_on_the_wall_decides_in_every_minute_round_every_change_of_clocks(window: str) -> None:
    changes = changes_of_clocks()
    assert len(changes) > 20
    for zone, change in changes.values():
        hours = parsed({"time_zone": zone.key, "quiet": [window]})
        begins, ends = change - timedelta(hours=5), change + timedelta(hours=5)
        closed = list(hours.closed_between(begins, ends))
        for minute in range(600):
            at = begins + timedelta(minutes=minute)
            stands, (start, end) = f"{at.astimezone(zone):%H:%M}", window.split("-")
            is_quiet = start <= stands < end if start < end else stands >= start or stands < end
            assert any(first <= at < last for first, last in closed) == is_quiet, (zone.key, at)
            if minute % 30 in (0, 1, 29):
                assert hours.is_open(at) is not is_quiet, (zone.key, at)


def test_open_time_is_counted_over_nights_and_weekends() -> None:
    office = parsed(OFFICE)
    assert office.after(berlin("2026-11-20 16:30"), timedelta(hours=2)) == berlin("2026-11-23 10:00")
    assert office.after(berlin("2026-11-20 16:30"), timedelta(hours=1)) == berlin("2026-11-20 17:30")
    assert office.after(berlin("2026-11-21 10:00"), timedelta(hours=7.5)) == berlin("2026-11-23 17:30")


@given(
    at=st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    minutes=st.integers(1, 3000),
    stated=st.sampled_from([NIGHTS, OFFICE, {**NIGHTS, "time_zone": "America/St_Johns", "quiet": ["23:30-02:15"]}]),
)
def test_open_time_passes_only_while_it_is_open(at: datetime, minutes: int, stated: Any) -> None:
    found = parsed(stated)
    opens = found.next_open(at)
    assert opens >= at
    assert found.next_open(opens) == opens
    ends = found.after(at, timedelta(minutes=minutes))
    assert ends >= opens + timedelta(minutes=minutes)
    assert found.after(at, timedelta(minutes=minutes + 1)) > ends


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        ("22:00", "hours"),
        ({}, "hours.time_zone"),
        ({"time_zone": "Europe/Berlin"}, "hours"),
        ({**NIGHTS, "time_zone": "Mars/Base"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "right/Europe/Berlin"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "posix/Europe/Berlin"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "posixrules"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "localtime"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "Factory"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "tzdata.zi"}, "hours.time_zone"),
        ({**NIGHTS, "time_zone": "../../etc/passwd"}, "hours.time_zone"),
        ({**NIGHTS, "open": {}}, "hours"),
        ({**NIGHTS, "quiet": "22:00-07:00"}, "hours.quiet"),
        ({**NIGHTS, "quiet": ["22-07"]}, "hours.quiet.0"),
        ({**NIGHTS, "quiet": ["22:00-25:00"]}, "hours.quiet.0"),
        ({**NIGHTS, "quiet": ["22:60-23:00"]}, "hours.quiet.0"),
        ({**NIGHTS, "quiet": ["08:00-08:00"]}, "hours.quiet.0"),
        ({**NIGHTS, "quiet": ["24:00-07:00"]}, "hours.quiet.0"),
        ({**NIGHTS, "quiet": ["00:00-24:00"]}, "hours"),
        ({**OFFICE, "open": {"mon": ["17:00-09:00"]}}, "hours.open.mon.0"),
        ({**OFFICE, "open": {"monday": ["09:00-17:00"]}}, "hours.open.monday"),
        ({**OFFICE, "open": []}, "hours.open"),
        ({**OFFICE, "holidays": ["25.12.2026"]}, "hours.holidays.0"),
        ({**OFFICE, "holidays": [20261225]}, "hours.holidays.0"),
        ({**NIGHTS, "nights": 1}, "hours.nights"),
    ],
)
def test_what_does_not_hold_is_named(stated: Any, field: str) -> None:
    found, errors = calendar.parse(stated, at="hours")
    assert field in [error.field for error in errors]
    assert found == calendar.ALWAYS


def test_closed_times_of_a_range_begin_and_end_with_it():
    hours = calendar.parse({"time_zone": "UTC", "quiet": ["18:00-08:00"]}, at="hours")[0]
    start, end = datetime(2026, 1, 5, 20, tzinfo=UTC), datetime(2026, 1, 7, 6, tzinfo=UTC)

    closed = list(hours.closed_between(start, end))

    assert closed == [
        (start, datetime(2026, 1, 6, 8, tzinfo=UTC)),
        (datetime(2026, 1, 6, 18, tzinfo=UTC), end),
    ]


def test_hours_that_are_always_open_are_never_closed():
    start = datetime(2026, 1, 5, 20, tzinfo=UTC)

    assert list(calendar.ALWAYS.closed_between(start, start + timedelta(days=3))) == []
