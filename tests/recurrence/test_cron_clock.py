"""Cron where clocks change: tables of right answers, and every zone against a walk over every minute."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_jobs import recurrence
from agent_jobs.recurrence import FoldPolicy, GapPolicy
from infra import time_zones

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "dst_answers.json").read_text())["zones"]
MINUTE = timedelta(minutes=1)
LITERAL_POLICIES = [
    (GapPolicy.SKIP, FoldPolicy.ONCE),
    (GapPolicy.SKIP, FoldPolicy.TWICE),
    (GapPolicy.RUN_AFTER, FoldPolicy.ONCE),
    (GapPolicy.RUN_AFTER, FoldPolicy.TWICE),
]
CASES = [(place, expression) for place, answers in ANSWERS.items() for expression in answers["entries"]]


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def fired(rule: recurrence.Recurrence, start: datetime, end: datetime) -> list[datetime]:
    """Firings from `start` until before `end`."""
    begun = rule.after(start - timedelta(microseconds=1))
    return [firing.at for firing in takewhile(lambda firing: firing.at < end, begun)]


@pytest.mark.parametrize(("place", "expression"), CASES)
def test_firings_round_a_clock_change_are_the_known_ones(place: str, expression: str) -> None:
    zone = place.rpartition("/")[0]
    answer = ANSWERS[place]["entries"][expression]
    gap_adds, fold_adds = [{at(text) for text in answer[name]} for name in ("gap_adds", "fold_adds")]
    added: dict[tuple[GapPolicy, FoldPolicy], set[datetime]] = {policies: set() for policies in LITERAL_POLICIES}
    for change in map(at, ANSWERS[place]["changes"]):
        start, end = change - timedelta(hours=6), change + timedelta(hours=30, seconds=1)
        by_policy = {
            (gap, fold): fired(recurrence.parse(expression, time_zone=zone, gap=gap, fold=fold), start, end)
            for gap, fold in LITERAL_POLICIES
        }
        base = by_policy[GapPolicy.SKIP, FoldPolicy.ONCE]
        if "near" in answer:
            assert base == [moment for moment in map(at, answer["near"]) if start <= moment < end]
        for policies, firings in by_policy.items():
            assert firings == sorted(set(firings) | set(base))
            added[policies] |= set(firings) - set(base)
    assert added[GapPolicy.SKIP, FoldPolicy.TWICE] == fold_adds
    assert added[GapPolicy.RUN_AFTER, FoldPolicy.ONCE] == gap_adds
    assert added[GapPolicy.RUN_AFTER, FoldPolicy.TWICE] == gap_adds | fold_adds


@pytest.mark.parametrize(
    ("place", "expression"),
    [
        case
        for case in CASES
        if ANSWERS[case[0]]["entries"][case[1]]["count"] < 2_000 or case[0] == "Europe/Berlin/2026"
    ],
)
def test_a_local_year_has_the_known_number_of_firings(place: str, expression: str) -> None:
    zone, _, year = place.rpartition("/")
    start, end = (datetime(int(year) + n, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) for n in (0, 1))
    rule = recurrence.parse(expression, time_zone=zone, gap=GapPolicy.SKIP, fold=FoldPolicy.ONCE)
    assert len(fired(rule, start, end)) == ANSWERS[place]["entries"][expression]["count"]


def changes_in_2026_and_2027() -> Iterator[tuple[str, datetime]]:
    """One zone for each way in which clocks change, with the first UTC minute after the change."""
    seen = set()
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(731)]
    for name in sorted(time_zones.names()):
        zone = ZoneInfo(name)
        offsets = [day.astimezone(zone).utcoffset() for day in days]
        for number, (before, after) in enumerate(pairwise(offsets)):
            if before != after:
                low, high = days[number], days[number + 1]
                while high - low > MINUTE:
                    middle = low + (high - low) // MINUTE // 2 * MINUTE
                    low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
                if (high, before, after) not in seen:
                    seen.add((high, before, after))
                    yield name, high


CHANGES = list(changes_in_2026_and_2027())


def test_the_changes_of_all_zones_are_found() -> None:
    zones = {zone for zone, _ in CHANGES}
    assert len(CHANGES) > 60
    assert {"Antarctica/Troll", "Australia/LHI", "Africa/Cairo", "Africa/Casablanca"} <= zones


@dataclass(frozen=True)
class Entry:
    """An expression and, independently of the parser, the local times that it means."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    weekdays: frozenset[int]  # Monday is 0

    def means(self, clock: datetime) -> bool:
        return clock.minute in self.minutes and clock.hour in self.hours and clock.weekday() in self.weekdays


def part(size: int, *, likely: list[int]) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    everything = st.just(("*", frozenset(range(size))))
    steps = st.integers(2, size).map(lambda step: (f"*/{step}", frozenset(range(0, size, step))))
    lists = st.lists(st.sampled_from(likely) | st.integers(0, size - 1), min_size=1, max_size=4, unique=True).map(
        lambda values: (",".join(map(str, values)), frozenset(values))
    )
    ranges = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).map(
        lambda ends: (f"{min(ends)}-{max(ends)}", frozenset(range(min(ends), max(ends) + 1)))
    )
    return everything | steps | lists | ranges


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    minute, minutes = draw(part(60, likely=[0, 15, 29, 30, 59]))
    hour, hours = draw(part(24, likely=[0, 1, 2, 3, 22, 23]))
    weekday, weekdays = draw(st.just(("*", frozenset(range(7)))) | part(7, likely=[0, 6]).filter(lambda p: p[0] != "*"))
    return Entry(f"{minute} {hour} * * {weekday}", minutes, hours, frozenset((day - 1) % 7 for day in weekdays))


@cache
def walk(zone: str, change: datetime) -> list[tuple[datetime, datetime]]:
    """Each UTC minute round the change, with the local time of it."""
    minutes = [change + n * MINUTE for n in range(-400, 700)]
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)) for moment in minutes]


def expected(entry: Entry, zone: str, change: datetime, *, runs_after: bool, runs_twice: bool) -> list[datetime]:
    found, seen = set(), set()
    previous = None
    for moment, clock in walk(zone, change):
        missing = previous + MINUTE if previous else clock
        while missing < clock:
            if runs_after and entry.means(missing):
                found.add(moment)
            missing += MINUTE
        if entry.means(clock) and (runs_twice or clock not in seen):
            found.add(moment)
        seen.add(clock)
        previous = clock
    return sorted(found)


def assert_fires_as_the_walk_says(
    entry: Entry, zone: str, change: datetime, gap: GapPolicy, fold: FoldPolicy, first: datetime
) -> None:
    is_exempt = entry.text.startswith("*") or entry.text.split()[1].startswith("*")
    runs_after = gap is GapPolicy.RUN_AFTER or (gap is GapPolicy.AUTO and not is_exempt)
    runs_twice = fold is FoldPolicy.TWICE or (fold is FoldPolicy.AUTO and is_exempt)
    last = walk(zone, change)[-1][0]
    reference = expected(entry, zone, change, runs_after=runs_after, runs_twice=runs_twice)
    rule = recurrence.parse(entry.text, time_zone=zone, gap=gap, fold=fold)
    later = takewhile(lambda firing: firing.at <= last, rule.after(first))
    assert [firing.at for firing in later] == [at for at in reference if at > first]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(CHANGES),
    entries(),
    st.sampled_from(GapPolicy),
    st.sampled_from(FoldPolicy),
    st.integers(-190 * 60, 330 * 60),
)
def test_every_zone_fires_as_a_walk_over_all_minutes_says(
    place: tuple[str, datetime], entry: Entry, gap: GapPolicy, fold: FoldPolicy, seconds: int
) -> None:
    zone, change = place
    assert_fires_as_the_walk_says(entry, zone, change, gap, fold, change + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("zone", "change"), [pytest.param(*case, id=f"{case[0]} {case[1]:%Y-%m-%d}") for case in CHANGES]
)
def test_each_change_of_each_zone_keeps_the_rules(zone: str, change: datetime) -> None:
    """Two entries that lie within the change: one fixed to its minute, one with every hour."""
    (_, before), (_, after) = [pair for pair in walk(zone, change) if pair[0] in (change - MINUTE, change)]
    within = min(before + MINUTE, after) + 20 * MINUTE
    every_day, every_hour = frozenset(range(7)), frozenset(range(24))
    for entry in (
        Entry(f"{within.minute} {within.hour} * * *", frozenset({within.minute}), frozenset({within.hour}), every_day),
        Entry(f"{within.minute} * * * *", frozenset({within.minute}), every_hour, every_day),
    ):
        for gap in GapPolicy:
            for fold in FoldPolicy:
                assert_fires_as_the_walk_says(entry, zone, change, gap, fold, change - 200 * MINUTE)


def test_rare_and_old_clock_changes_keep_the_rules() -> None:
    """Samoa left out a day in 2011; São Paulo changed at midnight."""
    for zone, change in (
        ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
        ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
        ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),
        ("Europe/Dublin", datetime(2018, 10, 28, 1, tzinfo=UTC)),
    ):
        entry = Entry("0,30 0,1,23 * * *", frozenset({0, 30}), frozenset({0, 1, 23}), frozenset(range(7)))
        for gap in GapPolicy:
            for fold in FoldPolicy:
                assert_fires_as_the_walk_says(entry, zone, change, gap, fold, change - 200 * MINUTE)


GAP_IN_BERLIN = at("2026-03-29T01:00")
FOLD_IN_BERLIN = at("2026-10-25T01:00")


@pytest.mark.parametrize(
    ("expression", "start", "firings"),
    [
        ("30 2 * * *", "2026-03-29T00:00", [("2026-03-29T01:00", "gap"), ("2026-03-30T00:30", "")]),
        ("30 2 * * *", "2026-10-25T00:00", [("2026-10-25T00:30", "fold_first"), ("2026-10-26T01:30", "")]),
        # Several times that one gap leaves out are one firing; one at its end is the same.
        ("10,40 2 * * *", "2026-03-29T00:00", [("2026-03-29T01:00", "gap"), ("2026-03-30T00:10", "")]),
        ("0 2,3 * * *", "2026-03-29T00:00", [("2026-03-29T01:00", "gap"), ("2026-03-30T00:00", "")]),
        # Wildcards go by real hours.
        ("30 * * * *", "2026-03-29T00:00", [("2026-03-29T00:30", ""), ("2026-03-29T01:30", "")]),
        ("30 * * * *", "2026-10-25T00:00", [("2026-10-25T00:30", "fold_first"), ("2026-10-25T01:30", "fold_second")]),
        ("*/30 2 * * *", "2026-03-29T00:00", [("2026-03-30T00:00", ""), ("2026-03-30T00:30", "")]),
        # With 6 fields as with 5.
        ("15 30 2 * * *", "2026-03-29T00:00", [("2026-03-29T01:00", "gap"), ("2026-03-30T00:30:15", "")]),
        ("15 30 2 * * *", "2026-10-25T00:00", [("2026-10-25T00:30:15", "fold_first"), ("2026-10-26T01:30:15", "")]),
        # The weekday is that of the missing time.
        ("30 2 * * 0", "2026-03-29T00:00", [("2026-03-29T01:00", "gap"), ("2026-04-05T00:30", "")]),
    ],
)
def test_auto_runs_fixed_times_once_a_day_and_wildcards_each_real_hour(
    expression: str, start: str, firings: list[tuple[str, str]]
) -> None:
    rule = recurrence.parse(expression, time_zone="Europe/Berlin")
    found = list(islice(rule.after(at(start)), 2))
    assert [(firing.at, firing.note) for firing in found] == [(at(text), note) for text, note in firings]


def test_the_day_of_the_week_is_that_of_the_missing_time() -> None:
    rule = recurrence.parse("30 23 * * 6", time_zone="America/Nuuk")
    firing = rule.next_after(at("2026-03-28T12:00"))
    assert firing is not None
    assert (firing.at, firing.note, f"{firing.local:%a %H:%M}") == (at("2026-03-29T01:00"), "gap", "Sun 00:00")


def test_local_times_carry_the_offset_of_their_pass() -> None:
    rule = recurrence.parse("30 2 * * *", time_zone="Europe/Berlin", fold=FoldPolicy.TWICE)
    first, second = islice(rule.after(FOLD_IN_BERLIN - timedelta(hours=1)), 2)
    assert [firing.local.isoformat() for firing in (first, second)] == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00",
    ]


@pytest.mark.parametrize("change", [GAP_IN_BERLIN, FOLD_IN_BERLIN])
def test_asking_from_each_firing_gives_the_same_chain_as_one_walk(change: datetime) -> None:
    rule = recurrence.parse("20 */10 1-3 * * *", time_zone="Europe/Berlin", fold=FoldPolicy.TWICE)
    walked = list(islice(rule.after(change - timedelta(hours=3)), 60))
    moment, chained = change - timedelta(hours=3), []
    for _ in walked:
        firing = rule.next_after(moment)
        assert firing is not None
        chained.append(firing)
        moment = firing.at
    assert chained == walked


def test_a_firing_is_strictly_after_the_moment_and_at_a_full_second() -> None:
    rule = recurrence.parse("* * * * * *")
    firing = rule.next_after(at("2026-11-27T10:00:00.250000"))
    assert firing is not None
    assert firing.at == at("2026-11-27T10:00:01")
    again = rule.next_after(firing.at)
    assert again is not None
    assert again.at == at("2026-11-27T10:00:02")


@pytest.mark.parametrize(
    "expression", ["* * * * * *", "0 * * * *", "30 2 * * *", "0 0 29 2 *", "* * 1 1 *", "@every 7m", "59 59 23 31 12 *"]
)
def test_the_latest_firing_of_a_span_is_the_last_of_all(expression: str) -> None:
    rule = recurrence.parse(expression, time_zone="Europe/Berlin")
    start, end = at("2028-01-31T22:00"), at("2028-03-02T01:02:03")
    span = timedelta(hours=2) if expression.startswith("* * * * *") else end - start
    every = list(takewhile(lambda firing: firing.at <= end, rule.after(end - span)))
    assert rule.latest_between(end - span, end) == (every[-1] if every else None)


def test_the_latest_of_firings_each_second_is_at_the_end() -> None:
    rule, start = recurrence.parse("* * * * * *"), at("2026-11-27T00:00")
    for seconds in range(1, 70):
        for end in (start + timedelta(seconds=seconds), start + timedelta(seconds=seconds, microseconds=999_999)):
            latest = rule.latest_between(start, end)
            assert latest is not None
            assert latest.at == start + timedelta(seconds=seconds)
    assert rule.latest_between(start, start) is None


def test_feb_29_and_fifth_mondays_of_february_come_in_their_years() -> None:
    moment = at("2026-11-27T00:00")
    leap = [firing.at.year for firing in islice(recurrence.parse("0 0 29 2 *").after(moment), 3)]
    mondays = [firing.at.year for firing in islice(recurrence.parse("0 0 * 2 mon#5").after(moment), 3)]
    assert (leap, mondays) == ([2028, 2032, 2036], [2044, 2072, 2112])


def test_a_moment_at_the_end_or_the_beginning_of_the_calendar_is_no_error() -> None:
    rule = recurrence.parse("0 0 * * *", time_zone="Pacific/Kiritimati")
    assert rule.next_after(datetime.max.replace(tzinfo=UTC)) is None
    first = rule.next_after(datetime.min.replace(tzinfo=UTC))
    assert first is not None
    assert first.at.year == 1970
    with pytest.raises(ValueError, match="aware"):
        rule.next_after(datetime(2026, 1, 1))  # noqa: DTZ001
