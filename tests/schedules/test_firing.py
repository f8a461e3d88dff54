"""Schedules fire: they make jobs, or skip them for overlaps and misfires, with jitter, beside faults and races."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from agent_jobs import duty_rounds
from agent_jobs.models import Announcement, Job, JobType, Org, Schedule, ScheduleFiring
from agent_jobs.schedules import editing, firing
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from agent_jobs.webhooks import endpoints
from agent_jobs.webhooks.event_types import SCHEDULE_EVENTS
from tests import races, rows
from tests.schedules.conftest import BASE, due, make

TESTER = Actor("system", "test")
pytestmark = pytest.mark.django_db


def outcomes(schedule_id):
    found = ScheduleFiring.objects.filter(schedule_id=schedule_id).order_by("fire_at", "id")
    return [one.outcome for one in found]


def end(job, status=JobStatus.COMPLETED):
    Job.objects.filter(pk=job.pk).update(status=status, finished_at=datetime.now(UTC), queue_at=None, lease_until=None)


def test_a_due_schedule_makes_one_job_and_moves_on(acme):
    found = make(acme, every_seconds=3600, cron=None)
    at = due(found)
    Schedule.objects.filter(pk=found).update(created_at=at)  # intervals count from here

    assert firing.fire_due() == 1
    assert firing.fire_due() == 0

    job = Job.objects.get()
    assert (job.status, job.fire_at, str(job.schedule_id)) == (JobStatus.WAITING, at, found)
    schedule = Schedule.objects.get()
    assert schedule.next_at == at + timedelta(hours=1)
    assert outcomes(found) == ["started"]


def test_a_one_off_schedule_is_completed_after_its_time(acme):
    ahead = f"{datetime.now(UTC) + timedelta(hours=1):%FT%TZ}"
    found = make(acme, cron=None, run_at=ahead)
    at = datetime.now(UTC).replace(microsecond=0)
    definition = {**Schedule.objects.get().definition, "run_at": at.isoformat()}
    Schedule.objects.filter(pk=found).update(next_at=at, definition=definition)
    firing.fire_due()
    assert Job.objects.count() == 1
    assert acme.get(f"{BASE}/{found}").json()["data"]["status"] == "completed"


@pytest.mark.parametrize(
    ("overlap", "expected", "jobs"),
    [
        ("allow", ["started", "started", "started"], 3),
        ("forbid", ["started", "skipped", "skipped"], 1),
        ("replace", ["started", "started", "started"], 3),
        ("queue_one", ["started", "queued", "skipped"], 1),
    ],
)
def test_the_overlap_policy_decides_while_a_job_has_not_ended(acme, overlap, expected, jobs):
    found = make(acme, every_seconds=1, cron=None, overlap=overlap)
    Schedule.objects.filter(pk=found).update(created_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=1))
    for ago in (30, 20, 10):
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ago)
        ends_at = at.isoformat()
        definition = {**Schedule.objects.get().definition, "ends_at": ends_at}
        Schedule.objects.filter(pk=found).update(next_at=at, definition=definition)
        firing.fire_due()
    assert outcomes(found) == expected
    assert Job.objects.count() == jobs
    alive = Job.objects.exclude(status=JobStatus.CANCELED).count()
    assert alive == (1 if overlap == "replace" else jobs)


def test_schedules_with_different_policies_that_are_due_together_keep_their_own(acme):
    found = {overlap: make(acme, overlap=overlap) for overlap in ("allow", "forbid", "queue_one")}
    for schedule_id in found.values():
        acme.post(f"{BASE}/{schedule_id}/run", None)
        due(schedule_id)

    assert firing.fire_due() == 3

    last = {overlap: outcomes(schedule_id)[0] for overlap, schedule_id in found.items()}
    assert last == {"allow": "started", "forbid": "skipped", "queue_one": "queued"}


def test_a_queued_firing_runs_when_the_job_before_it_has_ended(acme):
    found = make(acme, overlap="queue_one")
    acme.post(f"{BASE}/{found}/run", None)
    (first,) = Job.objects.all()
    due(found)
    firing.fire_due()
    assert firing.release_queued() == 0

    end(first)

    assert firing.release_queued() == 1
    assert firing.release_queued() == 0
    assert Job.objects.count() == 2


def test_a_run_by_hand_that_has_to_wait_keeps_its_overrides(acme):
    found = make(acme)
    acme.post(f"{BASE}/{found}/run", None)
    (first,) = Job.objects.all()
    channel = {"org_id": "acme", "platform": "web", "code": "attic"}
    sent = {"params": {"name": "Eve"}, "tags": ["q4"], "priority": 9, "target_channel": channel}

    answer = acme.post(f"{BASE}/{found}/run", {**sent, "overlap": "queue_one"})
    end(first)
    firing.release_queued()

    assert answer.json()["data"]["outcome"] == "queued"
    job = Job.objects.exclude(pk=first.pk).get()
    assert (job.params, job.tags, job.priority, job.channel_code) == ({"name": "Eve"}, ["q4"], 9, "attic")


@pytest.mark.parametrize("is_busy", [True, False])
@pytest.mark.parametrize(
    ("sent", "field"),
    [({"work": {"url": "https://example.com"}}, "work"), ({"config": {"max_steps": 0}}, "config.max_steps")],
)
def test_a_run_that_may_have_to_wait_is_refused_for_wrong_overrides_at_once(acme, sent, field, is_busy):
    found = make(acme)
    if is_busy:
        acme.post(f"{BASE}/{found}/run", None)

    answer = acme.post(f"{BASE}/{found}/run", {**sent, "overlap": "queue_one"})

    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert "queued" not in outcomes(found)


def test_webhooks_hear_of_a_queued_firing_whose_job_cannot_be_made(acme):
    endpoints.create("acme", url="https://example.com/hook", event_types=list(SCHEDULE_EVENTS), actor=TESTER)
    found = make(acme)
    acme.post(f"{BASE}/{found}/run", None)
    acme.post(f"{BASE}/{found}/run", {"overlap": "queue_one"})
    end(Job.objects.get())
    JobType.objects.update(active=False)

    assert firing.release_queued() == 1

    assert outcomes(found) == ["started", "failed"]
    (told,) = Announcement.objects.filter(event="schedule.skipped")
    assert (told.payload["outcome"], told.payload["count"]) == ("failed", 1)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", ["misfired", "misfired", "misfired"]),
        ("run_once", ["misfired", "misfired", "started"]),
        ("run_all", ["started", "started", "started"]),
    ],
)
def test_the_misfire_policy_decides_after_an_hour_without_beats(acme, policy, expected):
    found = make(acme, every_seconds=1200, cron=None, misfire={"policy": policy})
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=3 * 1200 - 600)
    Schedule.objects.filter(pk=found).update(created_at=start, next_at=start)
    firing.fire_due()
    assert outcomes(found) == expected
    assert Schedule.objects.get().next_at == start + timedelta(seconds=3600)


def test_more_missed_firings_than_are_looked_at_leave_one_run_and_a_record(acme):
    found = make(acme, every_seconds=1, cron=None, misfire={"policy": "run_all", "max_runs": 3})
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=10_000)
    Schedule.objects.filter(pk=found).update(created_at=start, next_at=start)
    firing.fire_due()
    first = ScheduleFiring.objects.order_by("fire_at").first()
    assert (first.outcome, first.fire_at) == ("misfired", start)
    assert "5,000" in first.reason
    assert Job.objects.count() == 1
    assert Schedule.objects.get().next_at > datetime.now(UTC) - timedelta(seconds=2)


def test_the_jitter_delays_the_job_and_not_the_firing(acme):
    found = make(acme, every_seconds=3600, cron=None, jitter_seconds=86_400)
    at = due(found)
    firing.fire_due()
    job = Job.objects.get()
    assert job.fire_at == at
    assert at <= job.scheduled_at < at + timedelta(days=1)
    assert job.status == (JobStatus.SCHEDULED if job.scheduled_at > job.created_at else JobStatus.WAITING)


def test_a_job_that_cannot_be_made_is_a_failed_firing(acme):
    found = make(acme)
    rows.job_type().__class__.objects.update(active=False)
    due(found)
    firing.fire_due()
    record = ScheduleFiring.objects.get()
    assert (record.outcome, record.reason.split(":")[0]) == ("failed", "job_type_not_found")
    assert Schedule.objects.get().next_at > datetime.now(UTC)


def test_a_schedule_that_cannot_be_read_does_not_stop_the_others(acme):
    broken, sound = make(acme), make(acme)
    definition = Schedule.objects.get(pk=broken).definition
    Schedule.objects.filter(pk=broken).update(definition={**definition, "overlap": "of a newer release"})
    due(broken, ago=timedelta(seconds=5))
    due(sound)
    firing.fire_due()
    assert [str(job.schedule_id) for job in Job.objects.all()] == [sound]
    assert firing.fire_due() == 0


def test_schedules_of_a_closed_organisation_do_not_fire(acme):
    due(make(acme))
    Org.objects.update(closed_at=datetime.now(UTC))
    assert (firing.fire_due(), firing.seconds_to_next_due()) == (0, duty_rounds.LONGEST_WAIT)
    Org.objects.update(closed_at=None)
    assert firing.fire_due() == 1


def test_a_schedule_that_is_set_aside_does_not_keep_the_duty_busy(acme):
    broken = make(acme)
    Schedule.objects.update(definition={**Schedule.objects.get(pk=broken).definition, "overlap": "unknown"})
    due(broken)
    assert firing.seconds_to_next_due() < 0
    firing.fire_due()
    assert firing.seconds_to_next_due() == duty_rounds.LONGEST_WAIT


def test_a_change_in_the_moment_of_a_firing_does_not_lose_it(acme):
    found = make(acme)
    at = due(found)
    acme.patch(f"{BASE}/{found}", {"cron": "@yearly"})
    assert [one.fire_at for one in ScheduleFiring.objects.all()] == [at]
    due(found, ago=timedelta(seconds=9))
    acme.post(f"{BASE}/{found}/pause", None)
    assert ScheduleFiring.objects.count() == 2
    assert firing.fire_due() == 0


def test_next_times_of_an_older_time_zone_database_are_computed_again(acme):
    found = make(acme)
    right = Schedule.objects.get().next_at
    Schedule.objects.filter(pk=found).update(next_at=right + timedelta(minutes=30), tz_version="2001a")
    assert firing.refresh_zones() == 1
    assert Schedule.objects.get().next_at == right
    assert firing.refresh_zones() == 0


@pytest.mark.django_db(transaction=True)
def test_many_beats_make_one_job_for_each_time(acme, caplog):
    ids = [make(acme, name=f"Schedule {number}") for number in range(20)]
    for found in ids:
        due(found)

    def fire():
        while firing.fire_due(batch=3):
            pass

    races.in_threads(*[fire] * 6)

    assert sorted(str(job.schedule_id) for job in Job.objects.all()) == sorted(ids)
    assert "is skipped" not in caplog.text  # no schedule was set aside


@pytest.mark.django_db(transaction=True)
def test_a_schedule_that_somebody_is_changing_is_left_to_the_next_round(acme):
    held, free = make(acme), make(acme)
    due(held)
    due(free)
    with transaction.atomic():
        editing.locked("acme", held)
        assert races.in_threads(firing.fire_due) == [1]
        assert [str(job.schedule_id) for job in Job.objects.all()] == [free]
    assert firing.fire_due() == 1


def _pause(schedule_id):
    editing.pause("acme", schedule_id, actor=TESTER)


def _edit(schedule_id):
    editing.change("acme", schedule_id, {"cron": "@yearly"}, actor=TESTER)


def _delete(schedule_id):
    editing.delete("acme", schedule_id, actor=TESTER)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [_pause, _edit, _delete])
def test_a_change_races_with_the_firing_and_neither_is_lost(acme, change, caplog):
    for _ in range(5):
        found = make(acme)
        due(found)
        races.in_threads(lambda found=found: change(found), firing.fire_due)
        made = Job.objects.filter(schedule_id=found).count()
        left = Schedule.objects.filter(pk=found).first()
        if change is _delete:
            assert (left, made in (0, 1), ScheduleFiring.objects.filter(schedule_id=found).count()) == (None, True, 0)
        elif change is _pause:
            assert (made, left.is_paused, left.next_at) == (1, True, None)
        else:
            assert (made, left.definition["cron"], left.next_at.month, left.next_at.day) == (1, "@yearly", 1, 1)
    assert "is skipped" not in caplog.text  # no schedule was set aside


def test_webhooks_hear_of_skipped_and_misfired_firings_once_for_each_outcome(acme):
    endpoints.create("acme", url="https://example.com/hook", event_types=list(SCHEDULE_EVENTS), actor=TESTER)
    found = make(acme, every_seconds=1200, cron=None, misfire={"policy": "skip"})
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=3000)
    Schedule.objects.filter(pk=found).update(created_at=start, next_at=start)

    firing.fire_due()

    (told,) = Announcement.objects.all()
    assert (told.event, told.subject_id, told.payload["count"]) == ("schedule.misfired", found, 3)
    assert told.payload["name"] == "Hourly greeting"
