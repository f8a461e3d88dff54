"""Misfire and overlap policies decide for each due time whether it makes a job."""

from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs.schedules import definition, planning

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def planned(*, overlap="allow", due=3, active=0, queued=0, policy="run_all", late=False):
    """The outcomes of `due` firings, a second apart, the last one now, or an hour ago if `late`."""
    stated = {"name": "x", "every_seconds": 1, "overlap": overlap, "misfire": {"policy": policy, "max_runs": 2}}
    start = NOON - timedelta(seconds=due - 1)
    timing = definition.timing(definition.completed({**stated, "ends_at": NOON.isoformat()}), anchor=start)
    now = NOON + timedelta(hours=1) if late else NOON
    plan = planning.plan(timing, next_at=start, now=now, active=active, queued=queued)
    assert plan.next_at is None
    return [one.outcome for one in plan.planned]


@pytest.mark.parametrize(
    ("overlap", "active", "queued", "expected"),
    [
        ("allow", 0, 0, ["run", "run", "run"]),
        ("allow", 5, 1, ["run", "run", "run"]),
        ("forbid", 0, 0, ["run", "skipped", "skipped"]),
        ("forbid", 1, 0, ["skipped", "skipped", "skipped"]),
        ("replace", 0, 0, ["skipped", "skipped", "run"]),
        ("replace", 2, 0, ["skipped", "skipped", "replace"]),
        ("queue_one", 0, 0, ["run", "queued", "skipped"]),
        ("queue_one", 1, 0, ["queued", "skipped", "skipped"]),
        ("queue_one", 1, 1, ["skipped", "skipped", "skipped"]),
        ("queue_one", 0, 1, ["skipped", "skipped", "skipped"]),
    ],
)
def test_overlap_policies_look_at_unfinished_jobs_and_queued_firings(overlap, active, queued, expected):
    assert planned(overlap=overlap, active=active, queued=queued) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", ["misfired", "misfired", "misfired"]),
        ("run_once", ["misfired", "misfired", "run"]),
        ("run_all", ["misfired", "run", "run"]),
    ],
)
def test_misfire_policies_decide_about_late_firings(policy, expected):
    assert planned(policy=policy, late=True) == expected


def test_many_misfires_are_counted_and_not_recorded_one_by_one():
    outcomes = planned(policy="skip", late=True, due=planning.MOST_RECORDED + 50)
    assert outcomes == ["misfired"] * planning.MOST_RECORDED
