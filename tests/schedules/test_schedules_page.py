"""docs/schedules.md is true: its example makes a schedule, and its tables say what the code does."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_jobs import recurrence
from agent_jobs.recurrence import BadExpression
from agent_jobs.schedules import definition, planning
from tests import factories, rows
from tests.architecture.test_project_rules import ROOT
from tests.schedules.conftest import BASE

PAGE = (ROOT / "docs/schedules.md").read_text()
DAYS = (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC))
# The firings of each row of the table of clock changes, in UTC: from 00:00 until 02:00 of both days, or until 03:00.
CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "30 2 * * *": (["01:00 gap"], ["00:30"]),
    "10,40 2 * * *": (["01:00 gap"], ["00:10", "00:40"]),
    "0 2,3 * * *": (["01:00 gap"], ["00:00", "02:00"]),
    "30 * * * *": (["00:30", "01:30"], ["00:30", "01:30"]),
    "*/15 2 * * *": (
        [],
        ["00:00", "00:15", "00:30", "00:45", "01:00", "01:15", "01:30", "01:45"],
    ),
    "30 2 * * *, gap skip, fold twice": ([], ["00:30", "01:30"]),
    "*/15 * * * *, gap run_after, fold once": (
        ["00:00", "00:15", "00:30", "00:45", "01:00 gap", "01:15", "01:30", "01:45"],
        ["00:00", "00:15", "00:30", "00:45"],
    ),
    "30 2 * * 0": (["01:00 gap"], ["00:30"]),
    "@every 1h": (["00:00", "01:00"], ["00:00", "01:00"]),
}


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table whose head begins with `heading`, without the head."""
    table = re.search(rf"^\| {re.escape(heading)}.*?(?=\n\n|\Z)", PAGE, re.M | re.S)
    assert table, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


@pytest.mark.django_db
def test_the_example_makes_a_schedule() -> None:
    (body,) = re.findall(r"-d '(\{.*?\})'\n```", PAGE, re.S)
    rows.org("demo")
    rows.job_type("demo", key="announcement", default_config={"start_prompt": "{{ text }}"})
    answer = factories.api("demo", "SERVICES:WRITE").post(BASE, json.loads(body))
    assert answer.status_code == 201, answer.content
    made = answer.json()["data"]
    assert (made["describes"], len(made["next_runs"])) == ("At 02:30 every day, Europe/Berlin time", 5)


@pytest.mark.parametrize("row", rows_of("Expression"), ids=lambda row: row[0])
def test_each_row_of_the_clock_changes_holds(row: list[str]) -> None:
    case = re.sub(r" \(.*?\)", "", row[0]).replace("`", "")
    text, *policies = case.split(", ")
    stated: dict[str, Any] = dict(policy.split() for policy in policies)
    rule = recurrence.parse(text, time_zone="Europe/Berlin", **stated)
    for day, expected in zip(DAYS, CHANGES[case], strict=True):
        until = day + timedelta(hours=3 if "02:00" in expected else 2)
        bounds = recurrence.Bounds(day, until - timedelta(microseconds=1))
        found = recurrence.within(rule, bounds, after=day - timedelta(days=1), limit=100)
        assert [f"{one.at:%H:%M}{' gap' if one.note == 'gap' else ''}" for one in found] == expected


def test_every_row_of_the_clock_changes_has_its_times() -> None:
    assert {re.sub(r" \(.*?\)", "", row[0]).replace("`", "") for row in rows_of("Expression")} == set(CHANGES)


@pytest.mark.parametrize("text", [text for row in rows_of("Written")[:5] for text in re.findall(r"`(.*?)`", row[0])])
def test_each_form_of_an_expression_is_read(text: str) -> None:
    assert recurrence.parse(text).next_after(datetime(2026, 1, 1, tzinfo=UTC))


def test_what_the_page_calls_refused_is_refused() -> None:
    (paragraph,) = re.findall(r"^\*\*Refused\*\*.*?\n\n", PAGE, re.M | re.S)
    in_minutes, in_days = ("*/90", "22-2", "H", "R"), ("15W", "L-3")
    for text in (*in_minutes, *in_days, "@reboot", "0 0 31 2 *"):
        assert f"`{text}`" in paragraph
    whole = [*(f"{one} * * * *" for one in ("*/90", "H", "R")), "0 22-2 * * *", *(f"0 0 {one} * *" for one in in_days)]
    for text in (
        *whole,
        "0 0 * * L",
        "0 0 * * Monday",
        "0 0 1 1 * 2026 1",
        "@reboot",
        "0 0 31 2 *",
        "1," * 128 + "1 * * * *",
    ):
        with pytest.raises(BadExpression):
            recurrence.parse(text)


def test_the_defaults_and_limits_are_those_of_the_code() -> None:
    defaults = definition.DEFAULTS
    for text in (
        f"`misfire.grace_seconds` ({defaults['misfire']['grace_seconds']})",
        f"`misfire.max_runs` ({defaults['misfire']['max_runs']})",
        f"Of more than {planning.MOST_LOOKED_AT:,} late firings",
        f"| `misfire` | What becomes of firings that nobody made in time | `{defaults['misfire']['policy']}` |",
        f"| `overlap` | What a firing does while an earlier job has not ended | `{defaults['overlap']}` |",
        f"| `time_zone` | The zone of the cron expression, by its IANA name | `{defaults['time_zone']}` |",
        f"at most {definition.LONGEST_INTERVAL_SECONDS // 86_400} days",
    ):
        assert text in " ".join(PAGE.split()), text
