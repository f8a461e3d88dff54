"""Cron where clocks change: tables of right answers, and every zone against a walk over every minute."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agent_jobs import recurrence
from agent_jobs.recurrence import FoldPolicy, GapPolicy

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "dst_answers.json").read_text())["zones"]
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
    moment = timedelta(microseconds=1)
    return [firing.at for firing in rule.between(start - moment, end - moment, limit=100_000)]


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
