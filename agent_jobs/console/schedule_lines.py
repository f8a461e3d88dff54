"""A schedule in words and marks: its rule, its policies, its state, and its last outcomes as bars."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agent_jobs.console import clock
from agent_jobs.reads import schedule_rows
from agent_jobs.reads.schedule_lists import FiringLine
from agent_jobs.schedules import definition as definitions

SHOWN_OUTCOMES = 14
_HEIGHT = 20.0
_STEP = 8.0
_LEAST = 5.0
MISFIRES = {"skip": "Skip it", "run_once": "Run once", "run_all": "Run each"}
OVERLAPS = {
    "allow": "Run beside it",
    "forbid": "Skip the new one",
    "replace": "Cancel the old one",
    "queue_one": "Let one wait",
}
GAPS = {"auto": "As the rule says", "run_after": "Run after the gap", "skip": "Skip it"}
FOLDS = {"auto": "As the rule says", "once": "Run once", "twice": "Run twice"}
# Glyph and colour of what became of a firing.
RESULTS: Mapping[str, tuple[str, str]] = {
    "scheduled": ("scheduled", "scheduled"),
    "waiting": ("waiting", "waiting"),
    "running": ("running", "running"),
    "completed": ("completed", "completed"),
    "failed": ("failed", "failed"),
    "canceled": ("canceled", "canceled"),
    "skipped": ("skipped", "canceled"),
    "misfired": ("failed", "failed"),
    "queued": ("waiting", "waiting"),
    "gone": ("completed", "canceled"),
}
_WORDS = {"gone": "Started, now pruned", "misfired": "Missed", "queued": "Waits in line"}


@dataclass(frozen=True, slots=True)
class OutcomeBar:
    """One firing in the drawing of the last outcomes. `mark` is its CSS class, its height shows the duration. A firing
    that made no job is hollow.
    """

    x: float
    y: float
    height: float
    mark: str
    title: str
    is_failed: bool
    is_hollow: bool
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    id: UUID
    name: str
    type_key: str
    platform: str
    rule: str
    expression: str
    zone: str
    next_at: datetime | None
    state: str
    paused_by: str
    paused_at: datetime | None
    bars: Sequence[OutcomeBar]
    outcome_words: str


def of(
    rows: Sequence[Mapping[str, Any]],
    outcomes: Mapping[UUID, Sequence[FiringLine]],
    pauses: Mapping[UUID, Mapping[str, Any]],
    names: Mapping[str, str],
) -> list[ScheduleLine]:
    found = []
    for row in rows:
        definition, pause = row["definition"], pauses.get(row["id"])
        lines = outcomes.get(row["id"], ())
        found.append(
            ScheduleLine(
                id=row["id"],
                name=row["name"],
                type_key=row["job_type_key"],
                platform=(definition["job"].get("target_channel") or {}).get("platform", "null"),
                rule=rule_words(row),
                expression=expression(definition),
                zone=definition["time_zone"],
                next_at=row["next_at"],
                state=schedule_rows.status(row),
                paused_by=author(pause["author"], names) if pause else "",
                paused_at=pause["at"] if pause else None,
                bars=bars(lines),
                outcome_words=result_counts(lines[:SHOWN_OUTCOMES]) or "never fired",
            )
        )
    return found


def rule_words(row: Mapping[str, Any]) -> str:
    """The rule as a sentence, without its zone, which stands beside it."""
    rule = definitions.timing(row["definition"], anchor=row["created_at"]).rule
    return re.sub(r", [A-Za-z_+\-/0-9]+( time)?$", "", rule.describe())


def expression(definition: Mapping[str, Any]) -> str:
    if "cron" in definition:
        return str(definition["cron"])
    if "every_seconds" in definition:
        return f"@every {definition['every_seconds']}s"
    return str(definition["run_at"])


def author(stated: str, names: Mapping[str, str]) -> str:
    """`Mara Lindqvist` for `user:mara`, `token billing-sync` for a token."""
    kind, _, name = stated.partition(":")
    if kind == "user":
        return names.get(name, name)
    return f"{kind} {name}" if name else stated


def deciders(stated: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The people and apps that may decide, from approvers as a tool states them (`agent_jobs.approvers`)."""
    return [author(text, names) if ":" in text else text for text in stated]


def bars(lines: Sequence[FiringLine]) -> list[OutcomeBar]:
    """The last outcomes, the newest at the right."""
    shown = list(lines[:SHOWN_OUTCOMES])[::-1]
    longest = max((line.seconds or 0.0 for line in shown), default=0.0) or 1.0
    first = SHOWN_OUTCOMES - len(shown)
    found = []
    for place, line in enumerate(shown):
        is_hollow = line.job_status is None
        share = (line.seconds or 0.0) / longest
        height = _LEAST if is_hollow else round(_LEAST + (_HEIGHT - _LEAST) * share, 1)
        took = f", {clock.length(line.seconds)}" if line.seconds is not None else ""
        found.append(
            OutcomeBar(
                x=(first + place) * _STEP,
                y=_HEIGHT - height,
                height=height,
                mark=f"m-{RESULTS.get(line.result, ('', 'canceled'))[1]}",
                title=f"{result_words(line)}{took}",
                is_failed=line.has_failed,
                is_hollow=is_hollow and not line.has_failed,
            )
        )
    return found


def result_counts(lines: Sequence[FiringLine]) -> str:
    """The number of firings by result: `12 completed, 1 failed, 1 skipped`."""
    return ", ".join(f"{number} {name}" for name, number in Counter(line.result for line in lines).items())


def result_words(line: FiringLine) -> str:
    return _WORDS.get(line.result, line.result.capitalize())


def firing_note(line: FiringLine) -> str:
    parts = [line.reason or line.error_code or ""]
    if line.kind != "timer":
        parts.insert(0, {"manual": "by hand", "backfill": "made up for"}.get(line.kind, line.kind))
    return "; ".join(part for part in parts if part)


def dst_words(note: str, at: datetime, rule_time: str) -> str:
    """The effect of a clock change on a firing."""
    if note == "gap":
        return f"{rule_time or 'Its time'} does not exist that day; it runs after the gap"
    if note == "fold_first":
        return "This time comes twice that day; it runs the first time"
    return "This time comes twice that day; it runs the second time too" if note else ""
