"""Writes the demo organisation: people, catalogue, channels, and jobs of the last weeks up to this minute."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from django.db import transaction
from uuid_utils.compat import uuid7

from agent_jobs.demo import demo_cast, demo_places, demo_schedules, demo_stories
from agent_jobs.demo.demo_cast import DemoType
from agent_jobs.demo.demo_recorder import MODEL, Recorder
from agent_jobs.models import (
    Activity,
    Approval,
    AppToken,
    Budget,
    Job,
    JobType,
    Message,
    Org,
    Profile,
    Step,
    Task,
    UsageDay,
)
from agent_jobs.models.budgets import Scope
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from agent_jobs.tenants import app_tokens, orgs
from channels_integration import directory

ACTOR = Actor("command", "demo_data")
_BATCH = 2_000
_TAGS = ("acme-core", "q4", "eu", "priority-accounts", "trial")


def fill(org_id: str, *, name: str, password: str, days: int, now: datetime, seed: int) -> int:
    """Make the organisation and its jobs. Returns how many jobs were made. The same seed makes the same stories."""
    org, _ = orgs.create(org_id, name=name, actor=ACTOR, max_cost_per_day="25")
    for username, first, last, role in demo_cast.PEOPLE:
        name_of = f"{first} {last}"
        orgs.create_user(org, username=username, role=role, password=password, full_name=name_of, actor=ACTOR)
    _make_catalogue(org)
    for code, title in (("finance-desk", "finance-desk"), ("people-desk", "people-desk")):
        directory.register_channel(org_id, platform="web", code=code, name=title)
    for code in ("executor", "command", "wms.kestrelfoods.example"):
        directory.register_channel(org_id, platform="null", code=code)
    token, _ = app_tokens.issue(org, name="billing-sync", app="Billing", scopes=("SERVICES:WRITE",))
    told = [_told(org, token, kind, at, rng, now) for kind, at, rng in _occasions(days, now, seed)]
    told += _scenes(org, token, now, seed)
    firings = demo_schedules.fill(org, now=now, seed=seed)
    told += [_scheduled_story(org, token, one, now) for one in firings if one.row.outcome == "started"]
    demo_schedules.write(firings)
    for start in range(0, len(told), _BATCH):
        _write(told[start : start + _BATCH])
    _add_usage(org, told, now)
    demo_places.fill(org_id, now=now)
    return len(told)


def _make_catalogue(org: Org) -> None:
    for key, name, text in (
        ("finance-assistant", "Finance assistant", "You are polite, brief and exact about money."),
        ("people-partner", "People partner", "You ask short questions and thank people for their answers."),
    ):
        Profile.objects.get_or_create(org=org, key=key, defaults={"name": name, "instructions": text})
    for kind in demo_cast.TYPES:
        columns = {
            "name": kind.name,
            "description": kind.description,
            "runner": kind.runner,
            "default_config": dict(kind.config),
            **kind.columns,
        }
        JobType.objects.get_or_create(org=org, key=kind.key, defaults=columns)


def _occasions(days: int, now: datetime, seed: int) -> Iterator[tuple[DemoType, datetime, Random]]:
    """The type and the time of creation of each job: more on working days and in working hours."""
    rng = Random(seed)  # noqa: S311 - stories, no secrets
    for ago in range(days, -1, -1):
        day = now - timedelta(days=ago)
        for kind in demo_cast.TYPES:
            share = 0.3 if day.weekday() >= 5 else rng.uniform(0.85, 1.15)
            for _ in range(max(round(kind.a_day * share), 1)):
                at = day - timedelta(hours=_hours_before(kind, rng))
                yield kind, at, Random(rng.random())  # noqa: S311
    for kind in demo_cast.TYPES:  # what is still to come
        for _ in range(rng.randint(1, 4)):
            yield kind, now - timedelta(minutes=rng.uniform(1, 50)), Random(-rng.random())  # noqa: S311


def _scheduled_story(org: Org, token: AppToken, one: demo_schedules.DemoFiring, now: datetime) -> Recorder:
    """The story of the job that a firing made."""
    told = _told(org, token, one.kind, one.row.fire_at, one.rng, now, is_due=True)
    job, created = told.job, told.activities[0]
    job.created_by, job.schedule_id, job.fire_at = None, one.row.schedule_id, one.row.fire_at
    job.platform, job.channel_code = one.channel
    created.note, created.actor = "made by a schedule", "system:schedules"
    one.row.job_id = job.pk
    return told


def _hours_before(kind: DemoType, rng: Random) -> float:
    """How long before this time of day: the demo's working day ends about now, whenever it is made."""
    if kind.story == "report":
        return 11.0 + rng.uniform(0, 0.1)
    if kind.story in ("sync", "long"):
        return rng.uniform(0, 24)
    return abs(rng.gauss(4.0, 3.2))


def _told(
    org: Org, token: AppToken, kind: DemoType, at: datetime, rng: Random, now: datetime, *, is_due: bool = False
) -> Recorder:
    """The story of one job. Without `is_due` it may be one of those that are still to come."""
    rec = _begun(org, token, kind, at, rng, now)
    job = rec.job
    fate = rng.random()
    rec.is_called_off = fate > 0.985
    if at > now - timedelta(minutes=55) and fate < 0.3 and not is_due:
        return _scheduled(rec, now)
    if rng.random() < 0.2 and not is_due:
        job.delay_minutes, job.delay_seconds = 10, rng.randint(20, 600)
        job.scheduled_at = at + timedelta(seconds=job.delay_seconds)
    rec.at = job.scheduled_at + timedelta(seconds=rng.uniform(0.05, 1.4))
    if rec.is_over:
        return _scheduled(rec, now)
    job.status = JobStatus.RUNNING
    demo_stories.STORIES[kind.story](rec, kind)
    if (job.status == JobStatus.RUNNING and not job.waiting_for) or (job.finished_at and job.finished_at > now):
        _at_work(rec, now)
    if job.updated_at > now:
        job.updated_at = now
    return rec


def _begun(org: Org, token: AppToken, kind: DemoType, at: datetime, rng: Random, now: datetime) -> Recorder:
    job = _job(org, kind, at, rng)
    job.created_by = token
    rec = Recorder(job, rng, now, at)
    rec.move("job.created", "posted by billing-sync", to="WAITING", actor="token:billing-sync")
    return rec


def _job(org: Org, kind: DemoType, at: datetime, rng: Random) -> Job:
    platform, code = rng.choice(kind.channels)
    customer, name = rng.choice(demo_cast.CUSTOMERS), rng.choice(demo_cast.COLLEAGUES)
    params: dict[str, Any] = {
        "invoice": {
            "invoice": f"INV-{rng.randint(1_900, 2_099)}",
            "customer": customer,
            "name": name,
            "amount": f"€{rng.randint(4, 90) * 110:,}.00",
        },
        "standup": {"name": name},
        "report": {"title": f"Region {rng.choice(demo_cast.REGIONS)}"},
        "sync": {"customer": customer.lower().replace(" ", "-")},
        "deploy": {"release": rng.choice(demo_cast.RELEASES)},
        "long": {"file": f"reel-{rng.randint(100, 990):04}.mov"},
    }[kind.story]
    if kind.key == "contract-renewal":
        params = {"customer": customer, "invoice": f"C-{rng.randint(100, 900)}", "name": name, "amount": "€18,400.00"}
    if kind.story == "report":
        params |= {"region": params["title"].removeprefix("Region ")}
    if kind.key == "backup-verify":
        params = {"database": rng.choice(("db-primary", "db-ledger"))}
    return Job(
        id=uuid7(),
        org=org,
        status=JobStatus.WAITING,
        job_type_key=kind.key,
        runner=kind.runner,
        lane="agents" if kind.runner == "conversation" else "messages",
        platform=platform,
        channel_code=code,
        channel_data={"name": code} if platform == "slack" else {},
        prompt=str(kind.config["start_prompt"]),
        params=params,
        config=dict(kind.config),
        tags=rng.sample(_TAGS, rng.randint(0, 2)),
        priority=rng.choices((5, 7, 9), (90, 7, 3))[0],
        created_at=at,
        updated_at=at,
        scheduled_at=at,
        deadline_minutes=7_200,
    )


def _scheduled(rec: Recorder, now: datetime) -> Recorder:
    job = rec.job
    job.status, job.updated_at = JobStatus.SCHEDULED, job.created_at
    job.requested_at = now + timedelta(hours=rec.rng.uniform(0.5, 40))
    job.delay_minutes, job.delay_seconds = rec.rng.choice((0, 0, 10)), 0
    job.scheduled_at = job.requested_at
    rec.activities[0].moved_to = JobStatus.SCHEDULED
    return rec


def _scenes(org: Org, token: AppToken, now: datetime, seed: int) -> Iterator[Recorder]:
    """Two jobs of a capped type at work, three in the queue behind them, a report at work, two pending approvals."""
    kinds = {kind.key: kind for kind in demo_cast.TYPES}
    scenes = (
        ("media-transcode", 52.0),
        ("media-transcode", 47.0),
        ("nightly-report", 0.4),
        ("deploy-approval", 0.8),
        ("deploy-approval", 1.1),
    )
    for number, (key, minutes) in enumerate(scenes):
        rec = _begun(org, token, kinds[key], now - timedelta(minutes=minutes), Random(seed + number), now)  # noqa: S311
        rec.at = rec.job.scheduled_at
        rec.job.status = JobStatus.RUNNING
        rec.begin()
        if key == "nightly-report":
            rec.tool("crm.list_regions", {"region": rec.job.params["region"]}, 0.6, "ok")
            rec.model(2.2, 2_100)
        _at_work(rec, now)
        yield rec
    for number, minutes in enumerate((0.8, 1.1)):  # so new that nobody has decided yet
        at = now - timedelta(minutes=minutes)
        rec = _begun(org, token, kinds["deploy-approval"], at, Random(seed + 20 + number), now)  # noqa: S311
        rec.at, rec.job.status = rec.job.scheduled_at, JobStatus.RUNNING
        demo_stories.STORIES["deploy"](rec, kinds["deploy-approval"])
        yield rec
    for number, minutes in enumerate((41.0, 18.0, 6.0)):
        at = now - timedelta(minutes=minutes)
        rec = _begun(org, token, kinds["media-transcode"], at, Random(seed + 10 + number), now)  # noqa: S311
        rec.job.queue_at = rec.job.scheduled_at
        rec.job.priority = 5
        yield rec


def _at_work(rec: Recorder, now: datetime) -> None:
    """Show the job as held by a worker: drop what its story tells after `now`, and lease it for half a day."""
    job = rec.job
    job.status, job.finished_at, job.result, job.error_code, job.error_message = JobStatus.RUNNING, None, None, "", ""
    job.waiting_for, job.wake_at, job.updated_at = "", None, now - timedelta(seconds=20)
    job.lease_until, job.lease_token = now + timedelta(hours=12), len(rec.tasks)
    rec.tasks = [task for task in rec.tasks if task.created_at < now]
    if rec.tasks:
        rec.tasks[-1].finished_at, rec.tasks[-1].status = None, "RUNNING"
    rec.steps = [step for step in rec.steps if step.begun_at < now]
    rec.messages = [message for message in rec.messages if message.created_at < now]
    rec.activities = [activity for activity in rec.activities if activity.created_at < now]


def _write(told: Sequence[Recorder]) -> None:
    for rec in told:
        rec.spend_time()
    with transaction.atomic():
        Job.objects.bulk_create([rec.job for rec in told], batch_size=500)
        Task.objects.bulk_create([task for rec in told for task in rec.tasks], batch_size=1_000)
        Step.objects.bulk_create([step for rec in told for step in rec.steps], batch_size=1_000)
        Message.objects.bulk_create([message for rec in told for message in rec.messages], batch_size=1_000)
        Activity.objects.bulk_create([activity for rec in told for activity in rec.activities], batch_size=1_000)
        Approval.objects.bulk_create([approval for rec in told for approval in rec.approvals], batch_size=500)


def _add_usage(org: Org, told: Sequence[Recorder], now: datetime) -> None:
    """The ledger's days and today's counters, as the calls of these jobs would have made them."""
    days: dict[tuple[date, str], list[Any]] = {}
    for rec in told:
        if rec.calls:
            entry = days.setdefault((rec.job.created_at.date(), rec.job.job_type_key), [0, 0, 0, Decimal(0)])
            entry[0] += rec.calls
            entry[1] += rec.tokens[0]
            entry[2] += rec.tokens[1]
            entry[3] += rec.cost
    UsageDay.objects.bulk_create(
        [
            UsageDay(
                org=org,
                day=day,
                job_type_key=key,
                model=MODEL,
                part=0,
                calls=calls,
                input_tokens=read,
                output_tokens=written,
                cost=cost,
            )
            for (day, key), (calls, read, written, cost) in days.items()
        ],
        ignore_conflicts=True,
    )
    today = {key: entry for (day, key), entry in days.items() if day == now.date()}
    counters = [Budget(org=org, scope=Scope.ORG, key="", day=now.date(), **_used(list(today.values())))]
    capped = {kind.key for kind in demo_cast.TYPES if kind.columns.get("max_cost_per_day")}
    counters += [
        Budget(org=org, scope=Scope.TYPE, key=key, day=now.date(), **_used([entry]))
        for key, entry in today.items()
        if key in capped
    ]
    Budget.objects.bulk_create(counters, ignore_conflicts=True)


def _used(entries: Sequence[list[Any]]) -> dict[str, Any]:
    return {
        "used_tokens": sum(entry[1] + entry[2] for entry in entries),
        "used_cost": sum((entry[3] for entry in entries), Decimal(0)),
    }
