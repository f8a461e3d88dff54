"""Cron expressions that are accepted, and the complaints about others."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_jobs import recurrence
from agent_jobs.recurrence import BadExpression, FoldPolicy, GapPolicy

START = datetime(2026, 11, 27, tzinfo=UTC)  # a Friday
MAX_CPU_SECONDS = 0.25


def firings(expression: str, count: int = 3, *, time_zone: str = "UTC") -> list[str]:
    rule = recurrence.parse(expression, time_zone=time_zone)
    return [f"{firing.at:%m-%d %H:%M:%S}" for firing in islice(rule.after(START), count)]


def test_five_fields_begin_with_the_minute_and_six_with_the_second() -> None:
    assert firings("5 4 * * *", 1) == ["11-27 04:05:00"]
    assert firings("6 5 4 * * *", 1) == ["11-27 04:05:06"]


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@MIDNIGHT", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("  0\t0  1 1 * \n", "0 0 1 1 *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * sun", "0 0 * * 0"),
        ("0 0 * * Fri-Sun", "0 0 * * 0,5,6"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * jan,DEC *", "0 0 * 1,12 *"),
        ("0 0 ? * mon", "0 0 * * 1"),
        ("0 0 13 * ?", "0 0 13 * *"),
        ("5/15 * * * *", "5,20,35,50 * * * *"),
        ("10-30/10 * * * *", "10,20,30 * * * *"),
        ("14-14 * * * *", "14 * * * *"),
        ("14-14/1 * * * *", "14 * * * *"),
        ("05 04 * * *", "5 4 * * *"),
        ("0 0 * * 7L", "0 0 * * 0L"),
        ("0 0 * * friL", "0 0 * * 5L"),
        ("0 0 * * 7#2", "0 0 * * sun#2"),
        ("CRON_TZ=UTC 30 2 * * *", "30 2 * * *"),
    ],
)
def test_these_mean_the_same(expression: str, same: str) -> None:
    assert firings(expression, 20) == firings(same, 20)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 13 * 5", ["12-04", "12-11", "12-13"]),  # both restricted: either is enough
        ("0 0 1-31 * 1", ["11-28", "11-29", "11-30"]),
        ("0 0 */2 * 1", ["12-07", "12-21", "01-11"]),  # one begins with *: both must hold
        ("0 0 L * *", ["11-30", "12-31", "01-31"]),
        ("0 0 LW * *", ["11-30", "12-31", "01-29"]),
        ("0 0 * * 5L", ["12-25", "01-29", "02-26"]),
        ("0 0 * * mon#2", ["12-14", "01-11", "02-08"]),
        ("0 0 31 2 1", ["02-01", "02-08", "02-15"]),  # never the 31st, yet Mondays in February
        ("0 0 1,L * *", ["11-30", "12-01", "12-31"]),
    ],
)
def test_days_are_counted_as_in_other_crons(expression: str, expected: list[str]) -> None:
    assert [text.split()[0] for text in firings(expression)] == expected


@pytest.mark.parametrize("prefix", ["CRON_TZ=Asia/Kathmandu ", "TZ=Asia/Kathmandu ", "cron_tz=asia/kathmandu   "])
def test_a_prefix_sets_the_zone_and_wins_over_the_schedules(prefix: str) -> None:
    assert firings(f"{prefix}30 6 * * *", 1, time_zone="Europe/Berlin") == ["11-27 00:45:00"]
    assert firings(f"{prefix}@daily", 1) == ["11-27 18:15:00"]


@pytest.mark.parametrize(
    ("expression", "field", "says"),
    [
        ("", "expression", "is empty"),
        ("   ", "expression", "is empty"),
        ("* * * *", "expression", "has 4 fields"),
        ("0", "expression", "has 1 field;"),
        ("* * * * * * 2027", "expression", "has 7 fields"),
        ("@reboot", "expression", "@reboot is not supported"),
        ("@fortnightly", "expression", "@fortnightly is not known"),
        ("0 0 * * *\n0 1 * * *", "expression", "ASCII"),
        ("0 0 * * *\x00", "expression", "ASCII"),
        ("٣ * * * *", "expression", "ASCII"),
        ("60 * * * * *", "second", "60 is out of range; values are 0 to 59"),
        ("60 * * * *", "minute", "60 is out of range; values are 0 to 59"),
        ("*/90 * * * *", "minute", "the step of */90 is longer than its 60 values; use @every"),
        ("14-14/4 * * * *", "minute", "the step of 14-14/4 is longer"),
        ("*/0 * * * *", "minute", "at least 1 after the slash"),
        ("*/ * * * *", "minute", "at least 1 after the slash"),
        ("*/2/3 * * * *", "minute", "at least 1 after the slash"),
        ("1,,2 * * * *", "minute", "empty entry"),
        (", * * * *", "minute", "empty entry"),
        ("1.5 * * * *", "minute", "1.5 is not understood"),
        ("-1 * * * *", "minute", "-1 is not understood"),
        ("1-2-3 * * * *", "minute", "1-2-3 is not understood"),
        ("*-5 * * * *", "minute", "*-5 is not understood"),
        ("? * * * *", "minute", "? is allowed only for day of month and day of week"),
        ("R * * * *", "minute", "R is not understood"),
        ("H * * * *", "minute", "H is not understood"),
        ("jan * * * *", "minute", "JAN is not understood"),
        ("9" * 99 + " * * * *", "minute", "is out of range"),
        ("* 24 * * *", "hour", "24 is out of range"),
        ("0 22-2 * * *", "hour", "the range 22-2 runs backwards"),
        ("0 */36 * * *", "hour", "the step of */36 is longer than its 24 values"),
        ("0 0 0 * *", "day of month", "0 is out of range"),
        ("0 0 32 * *", "day of month", "32 is out of range"),
        ("0 0 15W * *", "day of month", "15W is not supported"),
        ("0 0 L-3 * *", "day of month", "L-3 is not supported"),
        ("0 0 L/2 * *", "day of month", "L/2 is not supported"),
        ("0 0 mon * *", "day of month", "MON is not understood"),
        ("0 0 * 0 *", "month", "0 is out of range; values are 1 to 12 or JAN to DEC"),
        ("0 0 * 13 *", "month", "13 is out of range"),
        ("0 0 * january *", "month", "JANUARY is not understood"),
        ("0 0 * mon *", "month", "MON is not understood"),
        ("0 0 * * 8", "day of week", "8 is out of range"),
        ("0 0 * * fri-mon", "day of week", "FRI-MON runs backwards"),
        ("0 0 * * Monday", "day of week", "MONDAY is not understood"),
        ("0 0 * * L", "day of week", "L alone is not supported"),
        ("0 0 * * 1#6", "day of week", "from 1 to 5 after #"),
        ("0 0 * * #1", "day of week", "#1 is not understood"),
        ("0 0 31 2 *", "day of month", "never fires: no day 31 exists in Feb"),
        ("0 0 30,31 2 *", "day of month", "never fires: no day 30 exists in Feb"),
        ("0 0 31 4,6,9,11 *", "day of month", "never fires: no day 31 exists in Apr, Jun, Sep, Nov"),
        ("0 0 30-31 feb ?", "day of month", "never fires"),
        ("0 0 */31 * 1#5", "expression", "never fires: no date has all that it asks for"),
        ("CRON_TZ=Mars/Olympus * * * * *", "time zone", "'Mars/Olympus' is not a name"),
        ("CRON_TZ= * * * * *", "time zone", "is missing"),
        ("CRON_TZ=UTC", "expression", "is empty"),
        ("@every", "duration", "is missing"),
        ("@every 1d", "duration", "there is no unit for days"),
        ("@every 0s", "duration", "longer than zero"),
        ("@every -5s", "duration", "must not be negative"),
        ("@every 9000h", "duration", "at most 366 days"),
        ("@every 5", "duration", "must be a Go duration"),
        ("@every90s", "expression", "@every90s is not known"),
    ],
)
def test_a_bad_expression_is_refused_with_its_field_and_the_reason(expression: str, field: str, says: str) -> None:
    with pytest.raises(BadExpression) as refused:
        recurrence.parse(expression)
    assert refused.value.field == field
    assert says in refused.value.reason
    assert str(refused.value) == f"{field}: {refused.value.reason}"
    assert len(str(refused.value)) < 250


def test_an_expression_that_clock_changes_never_let_fire_is_refused() -> None:
    """Clocks in Berlin leave out 02:30 on each last Sunday of March."""
    with pytest.raises(BadExpression, match="clock changes in Europe/Berlin leave out all of its times"):
        recurrence.parse("30 2 * 3 7L", time_zone="Europe/Berlin", gap=GapPolicy.SKIP)
    assert firings("30 2 * 3 7L", 1, time_zone="Europe/Berlin") == ["03-28 01:00:00"]


@pytest.mark.parametrize(
    "name", ["", "../x", "America", "localtime", "posix/UTC", "Factory", "a\x00", "x" * 9_999, "T"]
)
def test_a_name_that_is_no_place_is_refused(name: str) -> None:
    with pytest.raises(BadExpression) as refused:
        recurrence.time_zone(name)
    assert refused.value.field == "time zone"
    assert len(str(refused.value)) < 250
    with pytest.raises(BadExpression, match="time zone"):
        recurrence.parse("0 0 * * *", time_zone=name)


def test_a_zone_is_found_in_any_case_and_keeps_its_own_name() -> None:
    assert recurrence.time_zone("america/port-au-prince").key == "America/Port-au-Prince"


def previewed(expression: str, moment: datetime, *, zone: str = "Europe/Berlin") -> Callable[[], object]:
    def preview() -> object:
        try:
            rule = recurrence.parse(expression, time_zone=zone, gap=GapPolicy.RUN_AFTER, fold=FoldPolicy.ONCE)
        except BadExpression:
            return None
        rule.latest_between(moment, moment + timedelta(days=3_650))
        return list(islice(rule.after(moment), 100))

    return preview


FOLD = datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(previewed("*" * 10_000_000, START), id="10 MB"),
        pytest.param(previewed("0," * 5_000_000 + "0 * * * *", START), id="10 MB list"),
        pytest.param(previewed("CRON_TZ=" + "A/" * 120 + " * * * * *", START), id="long zone"),
        pytest.param(previewed("@every " + "1h" * 120, START), id="long duration"),
        pytest.param(previewed(",".join(["0-59"] * 45) + " * * * *", START), id="many ranges"),
        pytest.param(previewed("0 0 * 2 1#5", START), id="a day in 28 years"),
        pytest.param(previewed("0 0 */28 2 1#5", START), id="a day in 28 years, both fields"),
        pytest.param(previewed("59 59 23 */31 * 1#5", START), id="never"),
        pytest.param(previewed("59 59 23 */30 2 7L", START), id="never in February"),
        pytest.param(previewed("30 2 * 3 7L", START), id="only within gaps"),
        pytest.param(previewed("* * * * * *", FOLD), id="each second of a fold"),
        pytest.param(previewed("* * 1 29 2 *", FOLD), id="each second of a leap day"),
        pytest.param(previewed("* * * * * *", FOLD, zone="Antarctica/Troll"), id="a fold of two hours"),
        pytest.param(
            previewed("* * * * * *", datetime(2011, 12, 30, 9, tzinfo=UTC), zone="Pacific/Apia"), id="a gap of a day"
        ),
        pytest.param(previewed("@every 1ns", START), id="every nanosecond"),
    ],
)
def test_nothing_that_a_tenant_writes_takes_long(hostile: Callable[[], object]) -> None:
    began = time.process_time()
    hostile()
    assert time.process_time() - began < MAX_CPU_SECONDS


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/,-?LW#@ MONJANevryhs=.TZ_", max_size=40) | st.text(max_size=20))
def test_any_text_is_either_refused_or_fires(text: str) -> None:
    try:
        rule = recurrence.parse(text)
    except BadExpression:
        return
    firing = rule.next_after(START)
    assert firing is not None
    assert firing.at > START
    assert rule.describe()
