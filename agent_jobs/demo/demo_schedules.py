"""The schedules of the demo organisation, with the firings of the last weeks and their versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from agent_jobs.demo import demo_cast
from agent_jobs.demo.demo_cast import DemoType
from agent_jobs.hours import stated_hours
from agent_jobs.models import Org, Schedule, ScheduleFiring, ScheduleVersion
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing, planning
from agent_jobs.specs import Actor

_ZONE = "Europe/Berlin"
_KINDS: Mapping[str, DemoType] = {kind.key: kind for kind in demo_cast.TYPES}
# Number of firings made for each schedule: as many as the console shows at once.
_MOST_FIRINGS = 26


@dataclass(frozen=True, slots=True)
class DemoSchedule:
    """A schedule of the demo. `edits`: its changes and their authors, oldest first. `skipped`: past firings without a
    job, counted back.
    """

    name: str
    kind: str
    channel: tuple[str, str]
    timing: Mapping[str, Any]
    params: Mapping[str, Any]
    tags: Sequence[str] = ()
    edits: Sequence[tuple[str, Mapping[str, Any]]] = ()
    skipped: Sequence[int] = ()
    paused_by: str = ""


@dataclass(frozen=True, slots=True)
class DemoFiring:
    """A past firing, not yet written. The story of its job is still to be told."""

    row: ScheduleFiring
    kind: DemoType
    channel: tuple[str, str]
    rng: Random


_NAMES = {"name": "Priya Nair", "customer": "Brightwave", "invoice": "INV-2041", "amount": "€4,290.00"}
SCHEDULES: Sequence[DemoSchedule] = (
    DemoSchedule(
        "Inventory sync",
        "inventory-sync",
        ("null", "wms.kestrelfoods.example"),
        {"cron": "*/15 * * * *"},
        {"customer": "kestrel-foods"},
        tags=("eu",),
    ),
    DemoSchedule(
        "Invoice sweep",
        "invoice-chase",
        ("web", "finance-desk"),
        {"cron": "0 9-18 * * 1-5", "time_zone": _ZONE},
        {**_NAMES, "title": "Invoices that are overdue"},
        tags=("q4", "acme-core"),
        skipped=(4,),
    ),
    DemoSchedule(
        "Stand-up, Lisbon",
        "standup",
        ("web", "people-desk"),
        {"cron": "30 16 * * 1-5", "time_zone": "Europe/Lisbon"},
        {"name": "Team Lisbon"},
        skipped=(7,),
    ),
    DemoSchedule(
        "Nightly report",
        "nightly-report",
        ("web", "finance-desk"),
        {"cron": "0 2 * * *", "time_zone": _ZONE},
        {"title": "Region DACH", "region": "DACH"},
        edits=(("user:ben", {"misfire": {"policy": "run_once", "grace_seconds": 300}}),),
    ),
    DemoSchedule(
        "Ledger close",
        "backup-verify",
        ("null", "command"),
        {"cron": "30 2 28 * *", "time_zone": _ZONE},
        {"database": "db-ledger"},
        tags=("finance",),
        edits=(
            ("user:mara", {"cron": "30 2 * * 7L"}),
            ("user:ben", {"overlap": "forbid", "jitter_seconds": 60}),
            ("user:mara", {"dst": {"gap": "run_after", "fold": "once"}}),
        ),
        skipped=(2, 5),
    ),
    DemoSchedule(
        "Backup verify", "backup-verify", ("null", "command"), {"cron": "15 3 * * *"}, {"database": "primary"}
    ),
    DemoSchedule(
        "Contract renewals",
        "contract-renewal",
        ("web", "finance-desk"),
        {"cron": "30 9 1 * *", "time_zone": "America/New_York"},
        {**_NAMES, "invoice": "C-311"},
    ),
    DemoSchedule(
        "Media clean-up",
        "media-transcode",
        ("null", "executor"),
        {"cron": "0 0 * * 0"},
        {"file": "reel-0419.mov"},
        skipped=(0, 1),
        paused_by="user:ben",
    ),
)


def fill(org: Org, *, now: datetime, seed: int) -> list[DemoFiring]:
    """Make the schedules with their firings. Returns their past firings, for `write`."""
    quiet = {"time_zone": _ZONE, "quiet": ["18:00-08:00"]}
    stated_hours.put(org.pk, stated_hours.Place(), quiet, actor=Actor("user", "mara"))
    rng, found = Random(seed), []  # noqa: S311 - stories, no secrets
    for one in SCHEDULES:
        found += _fires(org, _made(org, one, now), one, now, rng)
    return found


def write(firings: Sequence[DemoFiring]) -> None:
    """Store the firings, each with the job that was told of it."""
    ScheduleFiring.objects.bulk_create([one.row for one in firings])


def _made(org: Org, one: DemoSchedule, now: datetime) -> Schedule:
    platform, code = one.channel
    job = {
        "job_type_id": one.kind,
        "params": dict(one.params),
        "target_channel": {"platform": platform, "code": code},
    }
    stated = {"name": one.name, "job": job, "tags": list(one.tags), **one.timing}
    made = editing.create(org.pk, stated, actor=Actor("user", "mara"))
    for author, change in one.edits:
        made = editing.change(org.pk, made.pk, change, actor=Actor(*author.split(":")))
    if one.paused_by:
        made = editing.pause(org.pk, made.pk, actor=Actor(*one.paused_by.split(":")))
    # It was made long ago, and the last change was days ago.
    numbers = list(ScheduleVersion.objects.filter(schedule=made).order_by("number").values_list("number", flat=True))
    for number in numbers:
        at = now - timedelta(days=21 * (len(numbers) - number) + 17, hours=number * 3)
        ScheduleVersion.objects.filter(schedule=made, number=number).update(created_at=at)
    Schedule.objects.filter(pk=made.pk).update(created_at=now - timedelta(days=700))
    return made


def _fires(org: Org, schedule: Schedule, one: DemoSchedule, now: datetime, rng: Random) -> list[DemoFiring]:
    """The past firings, oldest first: of the last hours, weeks or year, by how often the schedule fires."""
    timing = definitions.timing(schedule.definition, anchor=now - timedelta(days=700))
    span = timedelta(days=400) if "L" in one.timing.get("cron", "") or one.edits else timedelta(days=40)
    if one.timing["cron"].startswith("*/"):
        span = timedelta(hours=7)
    times = []
    at = planning.next_time(timing, after=now - span)
    while at is not None and at < now - timedelta(minutes=1):
        times.append(at)
        at = planning.next_time(timing, after=at)
    found = []
    for place, at in enumerate(reversed(times[-_MOST_FIRINGS:])):
        row = ScheduleFiring(org=org, schedule=schedule, fire_at=at, kind="timer", outcome="started", created_at=at)
        if place in one.skipped:
            row.outcome, row.reason = "skipped", planning.OVERLAPS
        found.append(DemoFiring(row, _KINDS[one.kind], one.channel, Random(rng.random())))  # noqa: S311
    return found[::-1]
