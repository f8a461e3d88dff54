"""The definition of a schedule. It is JSON; clients see it, and versions keep it:

    {"name": "Nightly report", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "dst": {"gap": "auto", …},
     "job": {"job_type_id": "report", "params": {…}, "work": {… secrets masked …}, …}, "tags": ["nightly"],
     "jitter_seconds": 0, "pauses": [{"starts_at": "…", "ends_at": "…"}], "misfire": {"policy": "run_once", …},
     "overlap": "allow"}

Exactly one of `cron`, `every_seconds` and `run_at` says when. Functions here are pure; `checked_job` needs the tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from agent_jobs import recurrence, work
from agent_jobs.errors import FieldError
from agent_jobs.recurrence import BadExpression, Bounds, Pause, Recurrence
from agent_jobs.specs import DEFAULT_PRIORITY, ChannelSpec, JobSpec

TIMINGS = ("cron", "every_seconds", "run_at")
# A change of one of these changes when the schedule fires.
TIMING_KEYS = frozenset({*TIMINGS, "time_zone", "dst", "starts_at", "ends_at", "pauses"})
LONGEST_INTERVAL_SECONDS = 366 * 86_400
MAX_JITTER_SECONDS = 86_400
MAX_PAUSES = 100
MAX_RUNS = 1_000


class Misfire(StrEnum):
    """The treatment of firings that nobody made in time, because no beat or no worker was there."""

    SKIP = "skip"
    RUN_ONCE = "run_once"
    RUN_ALL = "run_all"


class Overlap(StrEnum):
    """The behaviour of a firing while an earlier job of the schedule has not ended."""

    ALLOW = "allow"
    FORBID = "forbid"
    REPLACE = "replace"
    QUEUE_ONE = "queue_one"


DEFAULTS: Mapping[str, Any] = {
    "time_zone": "UTC",
    "dst": {"gap": "auto", "fold": "auto"},
    "tags": [],
    "jitter_seconds": 0,
    "pauses": [],
    "misfire": {"policy": "run_once", "grace_seconds": 60, "max_runs": 100},
    "overlap": "allow",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule fires: its rule, its bounds, and the policies for late and overlapping firings."""

    rule: Recurrence
    bounds: Bounds
    misfire: Misfire
    grace: timedelta
    max_runs: int
    overlap: Overlap
    jitter_seconds: int


def completed(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with defaults for what is left out, in nested objects too."""
    whole = {**DEFAULTS, **stated}
    for key in ("dst", "misfire"):
        whole[key] = {**DEFAULTS[key], **(stated.get(key) or {})}
    return whole


def timing(definition: Mapping[str, Any], *, anchor: datetime) -> Timing:
    """The timing of a definition. Intervals count from its `starts_at`, else from `anchor`. Raises BadExpression."""
    starts_at, ends_at = _moment(definition.get("starts_at")), _moment(definition.get("ends_at"))
    pauses = tuple(Pause(_must(one["starts_at"]), _moment(one.get("ends_at"))) for one in definition["pauses"])
    late = definition["misfire"]
    return Timing(
        rule=_rule(definition, starts_at or anchor),
        bounds=Bounds(starts_at, ends_at, pauses),
        misfire=Misfire(late["policy"]),
        grace=timedelta(seconds=late["grace_seconds"]),
        max_runs=late["max_runs"],
        overlap=Overlap(definition["overlap"]),
        jitter_seconds=definition["jitter_seconds"],
    )


def _rule(definition: Mapping[str, Any], anchor: datetime) -> Recurrence:
    zone = definition["time_zone"]
    if "cron" in definition:
        gap, fold = (recurrence.GapPolicy(definition["dst"]["gap"]), recurrence.FoldPolicy(definition["dst"]["fold"]))
        return recurrence.parse(definition["cron"], time_zone=zone, gap=gap, fold=fold, anchor=anchor)
    if "every_seconds" in definition:
        return recurrence.every(timedelta(seconds=definition["every_seconds"]), anchor=anchor, time_zone=zone)
    return recurrence.once(_must(definition["run_at"]), time_zone=zone)


def problems(definition: Mapping[str, Any], *, now: datetime) -> list[FieldError]:
    """Errors that the shapes of the fields do not show. An expression that never fires is one of them."""
    found = []
    stated = [key for key in TIMINGS if key in definition]
    if len(stated) != 1:
        what = "is missing: give exactly one of" if not stated else "are too many: give exactly one of"
        return [FieldError(stated[0] if stated else "cron", "invalid", f"{what} {', '.join(TIMINGS)}")]
    starts_at, ends_at = _moment(definition.get("starts_at")), _moment(definition.get("ends_at"))
    if starts_at and ends_at and ends_at < starts_at:
        found.append(FieldError("ends_at", "invalid", "is before starts_at"))
    for number, pause in enumerate(definition["pauses"]):
        end = _moment(pause.get("ends_at"))
        if end is not None and end <= _must(pause["starts_at"]):
            found.append(FieldError(f"pauses.{number}.ends_at", "invalid", "is not after starts_at"))
    try:
        recurrence.time_zone(definition["time_zone"])
    except BadExpression as error:
        return [*found, FieldError("time_zone", "invalid", error.reason)]
    try:
        timing(definition, anchor=now)
    except BadExpression as error:
        found.append(FieldError(stated[0], "invalid_schedule", str(error)))
    return found


def stated_timing(definition: Mapping[str, Any]) -> str:
    """The one field of TIMINGS that the definition uses."""
    return next(key for key in TIMINGS if key in definition)


def job_spec(
    definition: Mapping[str, Any], secrets: work.Secrets, *, schedule: Any, fire_at: datetime, due_at: datetime | None
) -> JobSpec:
    """The job that a firing makes. `due_at` is None for now."""
    job = definition["job"]
    channel = job.get("target_channel")
    return JobSpec(
        job_type_id=job["job_type_id"],
        channel=ChannelSpec(channel["platform"], channel["code"], channel.get("type", ""), channel.get("data", {}))
        if channel
        else None,
        config=job.get("config", {}),
        params=job.get("params", {}),
        scheduled_at=due_at,
        delay_minutes=job.get("delay_minutes", 0),
        tags=tuple(job.get("tags", ())),
        priority=job.get("priority", DEFAULT_PRIORITY),
        metadata=job.get("metadata", {}),
        work=work.joined(job.get("work", {}), secrets),
        outcome_channel=job.get("outcome_channel", {}),
        # Random ids: Chronos' programs show their first characters, which are alike in ids that begin with a time.
        id=uuid4(),
        schedule_id=schedule.pk,
        fire_at=fire_at,
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any], at: str = "") -> list[dict[str, Any]]:
    """The differences of two definitions, objects field by field: `[{"field": "job.params", "before", "after"}]`."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        field = f"{at}.{key}" if at else key
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, field)
        elif old != new or type(old) is not type(new):
            found.append({"field": field, "before": old, "after": new})
    return found


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _must(text: str) -> datetime:
    return datetime.fromisoformat(text)
