"""Priorities by number and by word, and what becomes of a job that waits too long in the queue."""

from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs import lifecycle, specs
from agent_jobs.duties import recovery
from agent_jobs.lifecycle import OrgRotation
from agent_jobs.models import Job
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from tests import factories, rows
from tests.conversations import QuietKeeper

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"


def post(api, **fields):
    return api.post(JOBS, factories.job_request(**fields))


@pytest.mark.parametrize(
    ("sent", "number", "name"),
    [
        *[("urgent", 9, "urgent"), ("high", 7, "high"), ("normal", 5, "normal"), ("low", 2, "low")],
        *[("foreground", 7, "high"), ("background", 5, "normal"), ("best_effort", 2, "low")],
        *[(0, 0, "low"), (3, 3, "low"), (4, 4, "normal"), (6, 6, "high"), (8, 8, "urgent"), (9, 9, "urgent")],
    ],
)
def test_a_priority_is_a_number_or_a_word(acme, sent, number, name):
    shown = post(acme, priority=sent).json()["data"]

    assert (shown["priority"], shown["priority_name"]) == (number, name)


def test_a_replay_and_a_schedule_take_words_too(acme):
    first = post(acme).json()["data"]["id"]
    schedule = {"name": "n", "cron": "@daily", "job": {**factories.job_request(), "priority": "urgent"}}

    assert acme.post(f"{JOBS}/{first}/replay", {"priority": "low"}).json()["data"]["priority"] == 2
    made = acme.post("/services/agent-schedules", schedule)
    assert made.status_code == 201, made.content
    assert made.json()["data"]["job"]["priority"] == 9


@pytest.mark.parametrize("sent", ["Urgent", "", "5", -1, 10, 5.0, True, None, ["high"], {}])
def test_any_other_priority_is_refused(acme, sent):
    response = post(acme, priority=sent)

    if sent is None:  # the same as its absence
        assert response.json()["data"]["priority"] == 5
    else:
        assert (response.status_code, factories.fields_of(response)) == (400, ["priority"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("priority=9", [9]),
        ("priority=urgent", [8, 9]),
        ("priority=HIGH", [6, 7]),
        ("priority=foreground,0", [0, 6, 7]),
        ("priority=low&priority=5", [0, 1, 2, 3, 5]),
        ("priority=background", [4, 5]),
    ],
)
def test_the_list_is_filtered_by_words_and_numbers(acme, query, expected):
    for priority in specs.PRIORITIES:
        rows.job(priority=priority)

    response = acme.get(f"{JOBS}?{query}")

    assert sorted(job["priority"] for job in response.json()["data"]) == expected


@pytest.mark.parametrize("value", ["10", "-1", "05", "hurry", "1,", "٣"])
def test_a_filter_by_anything_else_is_refused(acme, value):
    response = acme.get(JOBS, {"priority": value})

    assert (response.status_code, factories.fields_of(response)) == (400, ["priority"])


def claim(most=1):
    claimed = lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), batch=most).claimed
    return [str(each.id) for each in claimed]


def test_an_urgent_job_overtakes_and_a_low_one_does_not_starve(acme):
    """Each step of priority is a minute in the queue, so a steady stream of urgent jobs cannot hold up a low one."""
    low = post(acme, priority="low").json()["data"]["id"]
    urgent = post(acme, priority="urgent").json()["data"]["id"]
    assert claim() == [urgent]

    Job.objects.filter(pk=low).update(queue_at=Job.objects.get(pk=low).queue_at - timedelta(minutes=8))
    post(acme, priority="urgent")

    assert claim() == [low]


# --- Expiry in the queue ---------------------------------------------------------------------------------------
def late(api, **columns):
    job = post(api, config={"queue_ttl_minutes": 10}).json()["data"]["id"]
    past = datetime.now(UTC) - timedelta(minutes=11)
    changed = {"scheduled_at": past, "expires_at": past + timedelta(minutes=10), **columns}
    Job.objects.filter(pk=job).update(**changed)
    return job


def shown(api, job_id):
    return api.get(f"{JOBS}/{job_id}").json()["data"]


def test_a_job_expires_its_minutes_after_it_is_due(acme):
    at_once = post(acme, config={"queue_ttl_minutes": 0.5}).json()["data"]
    later = post(acme, config={"queue_ttl_minutes": 30}, scheduled_at="2027-01-31T09:00:00Z").json()["data"]
    never = post(acme).json()["data"]

    due, expires = (datetime.fromisoformat(at_once[name]) for name in ("scheduled_at", "expires_at"))
    assert expires - due == timedelta(seconds=30)
    assert later["expires_at"] == "2027-01-31T09:30:00.000000Z"
    assert "expires_at" not in never


def test_a_job_that_nobody_began_in_time_fails_as_expired(acme):
    job, other = late(acme), post(acme, config={"queue_ttl_minutes": 10}).json()["data"]["id"]

    assert recovery.fail_expired() == 1

    ended = shown(acme, job)
    assert (ended["job_status"], ended["error_code"]) == ("FAILED", "expired")
    assert ended["error_message"] == "no worker began it within 10 minutes of its due time"
    assert shown(acme, other)["job_status"] == "WAITING"
    assert recovery.fail_expired() == 0


def test_a_worker_that_comes_before_the_sweep_does_not_run_it(acme):
    job = late(acme)

    Worker(QuietKeeper()).serve("messages")

    ended = shown(acme, job)
    assert (ended["job_status"], ended["error_code"]) == ("FAILED", "expired")
    assert ended["activities_count"] == 3  # created, started, failed: nothing was said


def test_a_job_that_was_begun_does_not_expire(acme):
    began = datetime.now(UTC) - timedelta(minutes=5)
    job = late(acme, started_at=began)

    assert recovery.fail_expired() == 0
    assert shown(acme, job)["job_status"] == "WAITING"


def test_a_retry_waits_as_long_again(acme):
    job = late(acme)
    recovery.fail_expired()

    retried = acme.post(f"{JOBS}/{job}/retry").json()["data"]

    due, expires = (datetime.fromisoformat(retried[name]) for name in ("scheduled_at", "expires_at"))
    assert abs(expires - due - timedelta(minutes=10)) < timedelta(seconds=1)
    assert recovery.fail_expired() == 0
    assert Job.objects.get(pk=job).status == JobStatus.WAITING


@pytest.mark.parametrize("minutes", [0, -1, 525_601, "10", True])
def test_a_wrong_time_to_live_is_refused(acme, minutes):
    response = post(acme, config={"queue_ttl_minutes": minutes})

    assert (response.status_code, factories.fields_of(response)) == (400, ["config.queue_ttl_minutes"])
