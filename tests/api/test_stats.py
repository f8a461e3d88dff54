"""Statistics of jobs and the list of workers: exact, within a range of time, and of the own organisation only."""

import importlib
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs import lifecycle
from agent_jobs.duties import tallying
from agent_jobs.legal_moves import Event
from agent_jobs.models import Job, JobTally, JobTallyEntry, UsageDay, WorkerProcess
from agent_jobs.specs import priority_name
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.worker.loop import Worker
from tests import factories, rows
from tests.conversations import QuietKeeper

pytestmark = pytest.mark.django_db
STATS = "/services/stats"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RANGE = "created_at_gte=2026-03-01&created_at_lte=2026-03-02"


def fill(org_id="acme"):
    """Ten jobs on two days: 4 COMPLETED in 10, 20, 30 and 40 s, a FAILED one in 100 s, and living ones."""
    day = timedelta(days=1)
    made = {"org_id": org_id, "created_at": NOON}
    for place, seconds in enumerate((10, 20, 30, 40)):
        times = {"started_at": NOON, "finished_at": NOON + timedelta(seconds=seconds)}
        rows.job(JobStatus.COMPLETED, **made, **times, inbox_count=place, follow_ups_total=1, priority=9)
    times = {"started_at": NOON, "finished_at": NOON + timedelta(seconds=100)}
    rows.job(JobStatus.FAILED, **made, **times, job_type_key="report")
    rows.job(JobStatus.CANCELED, **made, channel_code="C1", platform="slack")
    rows.job(JobStatus.SCHEDULED, **made | {"created_at": NOON + day})
    rows.job(JobStatus.RUNNING, **made | {"created_at": NOON + day})
    queued = {"queue_at": NOON + timedelta(hours=1), "priority": 5}
    rows.job(JobStatus.WAITING, **made | {"created_at": NOON + day}, **queued)
    rows.job(JobStatus.WAITING, **made | {"created_at": NOON + day}, **queued | {"queue_at": NOON})
    rows.job(JobStatus.COMPLETED, **made | {"created_at": NOON + 2 * day})  # outside the range
    usage = {"org_id": org_id, "job_type_key": "greet", "model": "m", "part": 0}
    UsageDay.objects.create(**usage, day=NOON.date(), cost=Decimal("1.25"))
    UsageDay.objects.create(**usage, day=NOON.date() + 5 * day, cost=Decimal(9))


def test_the_statistics_are_exact(acme):
    rows.org("rival")
    fill()
    fill("rival")

    response = acme.get(f"{STATS}?{RANGE}")

    assert response.status_code == 200, response.content
    assert response.json()["data"] == {
        "total": 10,
        "by_status": {"waiting": 2, "scheduled": 1, "running": 1, "completed": 4, "failed": 1, "canceled": 1},
        "by_type": [{"job_type_id": "greet", "count": 9}, {"job_type_id": "report", "count": 1}],
        "by_channel": [
            {"platform": "web", "channel_code": "lobby", "count": 9},
            {"platform": "slack", "channel_code": "C1", "count": 1},
        ],
        "by_priority": [
            {"priority": 5, "priority_name": "normal", "count": 6},
            {"priority": 9, "priority_name": "urgent", "count": 4},
        ],
        "by_day": [{"day": "2026-03-01", "count": 6}, {"day": "2026-03-02", "count": 4}],
        "success_rate": 0.8,
        "p50_seconds": 30.0,
        "p95_seconds": 100.0,
        "follow_ups": 4,
        "replies": 6,
        "jobs_with_reply": 3,
        "cost": 1.25,
        "queues": [{"queue": "messages", "waiting": 2, "oldest_at": "2026-03-01T12:00:00.000000Z"}],
    }
    assert response.json()["meta"] == {
        "org_id": "acme",
        "created_at_gte": "2026-03-01T00:00:00.000000Z",
        "created_at_lte": "2026-03-02T23:59:59.999999Z",
    }


def test_without_jobs_everything_is_there_and_nothing_counts(acme):
    shown = acme.get(STATS).json()["data"]

    assert (shown["total"], shown["by_type"], shown["by_day"], shown["queues"]) == (0, [], [], [])
    assert shown["by_status"] == dict.fromkeys(shown["by_status"], 0)
    assert (shown["success_rate"], shown["p50_seconds"], shown["cost"]) == (None, None, 0)


def test_the_default_range_is_the_last_seven_days(acme):
    for days in (0, 6, 8):
        rows.job(JobStatus.COMPLETED, created_at=Now() - timedelta(days=days))

    assert acme.get(STATS).json()["data"]["total"] == 2
    assert acme.get(f"{STATS}?created_at_gte=2000-01-01").json()["data"]["total"] == 3


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("created_at_gte=yesterday", "created_at_gte"),
        ("created_at_lte=2026-02-30", "created_at_lte"),
        ("created_at_gte=2026-03-02&created_at_lte=2026-03-01", "created_at_gte"),
        ("since=2026-03-01", "since"),
    ],
)
def test_a_wrong_range_is_named(acme, query, wrong):
    response = acme.get(f"{STATS}?{query}")

    assert (response.status_code, factories.fields_of(response)) == (400, [wrong])


def test_the_first_and_the_last_times_are_answered(acme):
    for query in ("created_at_gte=1970-01-01", "created_at_lte=9000-01-01", "created_at_lte=1970-01-01"):
        assert acme.get(f"{STATS}?{query}").status_code == 200


def test_random_histories_are_counted_as_by_hand(acme):
    """Jobs end, are retried, reported again and deleted, while tallies lag behind; every range agrees with the rows."""
    rng = random.Random(15)
    begin = datetime(2026, 2, 27, 21, 30, tzinfo=UTC)
    for step in range(60):
        _change_history(rng, begin)
        if rng.random() < 0.1:
            tallying.add_entries()
        if step % 10 == 9:
            for _ in range(4):
                since, until = sorted(_some_time(rng, begin) for _ in range(2))
                asked = {"created_at_gte": since.isoformat(), "created_at_lte": until.isoformat()}
                shown = acme.get(f"{STATS}?{urlencode(asked)}").json()["data"]
                by_hand = _by_hand(since, until)
                assert {name: shown[name] for name in by_hand} == by_hand
    assert JobTally.objects.filter(span="day", number__gt=1).exists()


def test_jobs_that_ended_before_the_tallies_were_there_are_counted_once(acme):
    """The migration counts all anew, while the trigger is at work already."""
    entries = importlib.import_module("agent_jobs.migrations.0041_entries_of_ended_jobs")
    rng, begin = random.Random(3), datetime(2026, 2, 27, 21, 30, tzinfo=UTC)
    for number in range(10):
        with connection.cursor() as cursor:
            if number < 5:
                cursor.execute("SET LOCAL session_replication_role = replica")  # the trigger does not fire
            for _ in range(4):
                _change_history(rng, begin)
            cursor.execute("SET LOCAL session_replication_role = origin")
    tallying.add_entries()
    _change_history(rng, begin)

    with connection.cursor() as cursor:
        cursor.execute(entries.COUNT)

    for _ in range(2):
        shown = acme.get(f"{STATS}?created_at_gte=2026-02-27&created_at_lte=2026-03-05").json()["data"]
        by_hand = _by_hand(datetime(2026, 2, 27, tzinfo=UTC), datetime(2026, 3, 5, tzinfo=UTC))
        assert {name: shown[name] for name in by_hand} == by_hand
        tallying.add_entries()


def test_tallies_keep_no_row_of_deleted_jobs(acme):
    """Retention deletes jobs; what counted them goes too."""
    for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED):
        rows.job(status, created_at=NOON, started_at=NOON)
    assert tallying.serve_slice() == 3
    assert JobTally.objects.filter(kind="status", number=1).count() == 6  # of a day and of an hour

    Job.objects.all().delete()

    assert tallying.serve_slice() == 3
    assert (JobTally.objects.count(), JobTallyEntry.objects.count()) == (0, 0)


def _change_history(rng, begin):
    """Ten new jobs, and a change of each of some others."""
    for _ in range(10):
        created_at = _some_time(rng, begin)
        started_at = created_at + timedelta(seconds=rng.expovariate(0.1)) if rng.random() < 0.8 else None
        columns = {"created_at": created_at, "started_at": started_at, "inbox_count": rng.choice((0, 0, 1, 4))}
        named = {"job_type_key": rng.choice("abc"), "channel_code": rng.choice("xyz"), "priority": rng.randrange(10)}
        status = rng.choice(list(JobStatus))
        if status == JobStatus.RUNNING:
            columns["started_at"] = created_at
        if status in TERMINAL:
            columns["finished_at"] = (started_at or created_at) + timedelta(seconds=rng.lognormvariate(2, 3))
        rows.job(status, follow_ups_total=rng.randrange(3), **columns, **named)
    chosen = rng.sample(list(Job.objects.order_by("pk").values_list("pk", flat=True)), 8)
    for job in Job.objects.filter(pk__in=chosen).order_by("pk"):
        if job.status in TERMINAL and rng.random() < 0.4:
            job.delete()
        elif job.status in (JobStatus.FAILED, JobStatus.CANCELED):
            lifecycle.move_one(Event.RETRY, job, actor=rows.TESTER, retry_count=job.retry_count + 1, finished_at=None)
        elif job.status not in TERMINAL:
            lifecycle.move_one(rng.choice((Event.CANCEL, Event.FAIL)), job, actor=rows.TESTER)


def _some_time(rng, begin):
    """Within three days; often at the full hour or at midnight, where ranges of tallies begin and end."""
    at = begin + timedelta(seconds=rng.randrange(3 * 86_400))
    return rng.choice((at, at.replace(minute=0, second=0), at.replace(hour=0, minute=0, second=0)))


def _by_hand(since, until):
    jobs = [job for job in Job.objects.all() if since <= job.created_at <= until]
    took = sorted(job.finished_at - job.started_at for job in jobs if job.finished_at and job.started_at)
    return {
        "total": len(jobs),
        "by_status": {str(s).lower(): sum(job.status == s for job in jobs) for s in JobStatus},
        "by_type": _most("job_type_id", Counter(job.job_type_key for job in jobs)),
        "by_channel": [
            {"platform": "web", **one} for one in _most("channel_code", Counter(job.channel_code for job in jobs))
        ],
        "by_priority": [
            {"priority": key, "priority_name": priority_name(key), "count": count}
            for key, count in sorted(Counter(job.priority for job in jobs).items())
        ],
        "by_day": [
            {"day": str(key), "count": count}
            for key, count in sorted(Counter(job.created_at.date() for job in jobs).items())
        ],
        "follow_ups": sum(job.follow_ups_total for job in jobs),
        "replies": sum(job.inbox_count for job in jobs),
        "jobs_with_reply": sum(job.inbox_count > 0 for job in jobs),
        "p50_seconds": _percentile(took, 50),
        "p95_seconds": _percentile(took, 95),
    }


def _most(name, counts):
    return [{name: key, "count": count} for key, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]


def _percentile(took, percent):
    """The smallest duration that at least `percent` % of them do not exceed, with seven significant digits."""
    if not took:
        return None
    seconds = took[-(-len(took) * percent // 100) - 1].total_seconds()
    return pytest.approx(seconds, rel=1e-6)


# --- Workers ---------------------------------------------------------------------------------------------------
def test_workers_show_how_many_own_jobs_they_hold(acme, rival):
    first, second = (WorkerProcess.objects.create(name=f"host-{n}", runners=["message"]) for n in range(2))
    WorkerProcess.objects.create(name="lost", lost_at=Now())
    WorkerProcess.objects.create(name="silent", seen_at=Now() - timedelta(minutes=1))
    for _ in range(2):
        rows.job(JobStatus.RUNNING, worker_id=first.pk)
    rows.job(JobStatus.RUNNING, org_id="rival", worker_id=second.pk)

    ours, theirs = (api.get("/services/workers").json() for api in (acme, rival))

    assert [(worker["worker_id"], worker["holds"]) for worker in ours["data"]] == [(first.pk, 2), (second.pk, 0)]
    assert [worker["holds"] for worker in theirs["data"]] == [0, 1]
    assert ours["meta"] == {"org_id": "acme", "count": 2, "holds": 2}
    assert set(ours["data"][0]) == {"worker_id", "started_at", "last_seen_at", "runners", "holds", "jobs_done"}
    assert Job.objects.count() == 3


def test_workers_show_how_many_own_jobs_they_have_ended(acme, rival):
    keeper = QuietKeeper()
    keeper.worker_id = WorkerProcess.objects.create(name="host", runners=["message"]).pk
    for org_id in ("acme", "rival", "acme"):
        rows.job(org_id=org_id, platform="null", channel_code="nowhere")
    rows.job(platform="null", channel_code="nowhere", prompt="{{ missing }")  # fails, and is ended all the same

    Worker(keeper).serve("messages")
    keeper._say_seen()

    assert not Job.objects.exclude(status__in=TERMINAL).exists()
    for api, done in ((acme, 3), (rival, 1)):
        (worker,) = api.get("/services/workers").json()["data"]
        assert (worker["worker_id"], worker["jobs_done"], worker["holds"]) == (keeper.worker_id, done, 0)
