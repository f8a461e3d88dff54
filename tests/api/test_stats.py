"""Statistics of jobs and the list of workers: exact, within a range of time, and of the own organisation only."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs.models import Job, UsageDay, WorkerProcess
from agent_jobs.reads import job_statistics
from agent_jobs.states import JobStatus
from tests import factories, rows

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


def test_the_covering_index_has_every_column_that_is_read(acme):
    with connection.cursor() as cursor:
        for name in ("seqscan", "bitmapscan", "indexscan"):
            cursor.execute(f"SET LOCAL enable_{name} = off")  # leaves index-only scans
        asked = {"org": "acme", "since": NOON, "until": NOON + timedelta(days=2)}
        cursor.execute(f"EXPLAIN {job_statistics._COUNTS}", asked)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "Index Only Scan using job_statistics" in plan, plan


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
    assert set(ours["data"][0]) == {"worker_id", "started_at", "last_seen_at", "runners", "holds"}
    assert Job.objects.count() == 3
