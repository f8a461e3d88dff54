"""Asking for jobs, and taking them back."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from agent_jobs import jobs, lifecycle
from agent_jobs.errors import Forbidden, IllegalMove, Invalid, NotFound
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import queues
from agent_jobs.models import Activity, Job, Profile
from agent_jobs.specs import ChannelSpec
from agent_jobs.states import TERMINAL, JobStatus
from channels_integration import outbox
from channels_integration.messages import Outgoing, Target
from channels_integration.models import OutboundMessage
from tests import rows

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)


def create(**fields: Any) -> Job:
    rng = fields.pop("rng", random.Random(7))
    rows.job_type()
    return jobs.create("acme", rows.spec(**fields), actor=rows.TESTER, rng=rng)


def test_a_job_without_a_time_waits_at_once() -> None:
    job = create()
    assert (job.status, job.requested_at, job.delay_seconds) == (JobStatus.WAITING, None, 0)
    assert job.queue_at is not None
    assert list(Activity.objects.values_list("code", "moved_to")) == [("job.created", "WAITING")]


def test_a_time_in_the_past_is_taken_and_means_now() -> None:
    job = create(scheduled_at=NOW - timedelta(days=900))
    assert job.status == JobStatus.WAITING
    assert job.scheduled_at >= NOW - timedelta(minutes=1)
    assert job.requested_at == NOW - timedelta(days=900)


def test_a_time_ahead_makes_it_scheduled() -> None:
    job = create(scheduled_at=NOW + timedelta(hours=1))
    assert (job.status, job.scheduled_at, job.queue_at) == (JobStatus.SCHEDULED, NOW + timedelta(hours=1), None)


def test_a_delay_makes_it_scheduled_within_its_window_and_is_kept() -> None:
    job = create(delay_minutes=10)
    assert job.status == JobStatus.SCHEDULED
    assert 0 <= job.delay_seconds <= 600
    assert job.scheduled_at == job.created_at + timedelta(seconds=job.delay_seconds)


def test_a_delay_that_is_drawn_as_nought_is_promoted_too() -> None:
    class Nought(random.Random):
        def randint(self, a: int, b: int) -> int:
            return 0

    job = create(delay_minutes=10, rng=Nought())
    assert job.status == JobStatus.SCHEDULED
    lifecycle.promote_due()
    assert Job.objects.get(pk=job.pk).status == JobStatus.WAITING


def test_the_config_is_the_types_default_under_the_jobs_own() -> None:
    rows.job_type(default_config={"start_prompt": "Hello", "max_follow_ups": 3})
    job = create(config={"max_follow_ups": 1, "max_time_to_complete": 5})
    assert job.config == {"start_prompt": "Hello", "max_follow_ups": 1, "max_time_to_complete": 5}
    assert job.deadline_minutes == 5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"config": {"max_follow_ups": -1}}, "config.max_follow_ups"),
        ({"config": {"colour": "red"}}, "config.colour"),
        ({"config": {"start_prompt": "{{ nobody }}"}}, "config.start_prompt"),
        ({"params": {}}, "params.name"),
        ({"params": {"name": 7}}, "params.name"),
        ({"scheduled_at": NOW + timedelta(days=4000)}, "scheduled_at"),
        ({"channel": ChannelSpec("pigeon", "lobby")}, "target_channel.platform"),
        ({"channel": ChannelSpec("slack", "C123456")}, "target_channel.platform"),
    ],
)
def test_what_does_not_hold_is_refused_by_name_and_nothing_is_stored(fields: dict[str, Any], named: str) -> None:
    rows.job_type(params_schema={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
    with pytest.raises(Invalid) as refusal:
        create(**fields)
    assert [error.field for error in refusal.value.errors] == [named]
    assert not Job.objects.exists()
    assert not Activity.objects.exists()


def test_a_job_type_of_another_organisation_does_not_exist() -> None:
    rows.job_type("rival", "theirs")
    with pytest.raises(NotFound) as refusal:
        create(job_type_id="theirs")
    assert refusal.value.code == "job_type_not_found"


def test_an_inactive_job_type_does_not_exist() -> None:
    rows.job_type(key="old", active=False)
    with pytest.raises(NotFound):
        create(job_type_id="old")


def test_a_profile_of_another_organisation_does_not_exist() -> None:
    Profile.objects.create(org=rows.org("rival"), key="theirs", name="Theirs")
    with pytest.raises(NotFound) as refusal:
        create(config={"profile_id": "theirs"})
    assert refusal.value.code == "profile_not_found"


def test_only_the_first_job_in_a_channel_finds_it_new() -> None:
    assert create().is_new_channel is True
    assert create().is_new_channel is False
    assert create(channel=ChannelSpec("web", "attic")).is_new_channel is True


def test_after_a_failure_the_next_job_of_the_type_there_is_held(settings: Any) -> None:
    failed_at = datetime.now(UTC) - timedelta(minutes=4)
    rows.job(JobStatus.FAILED, finished_at=failed_at)
    config = {"failure_cooldown_minutes": 10}
    held = create(config=config)
    assert (held.status, held.waiting_for) == (JobStatus.SCHEDULED, "cooldown")
    assert held.scheduled_at == failed_at + timedelta(minutes=10)
    assert create(config={**config, "ignore_cooldown": True}).status == JobStatus.WAITING
    assert create(config=config, channel=ChannelSpec("web", "attic")).status == JobStatus.WAITING
    assert create(config={"failure_cooldown_minutes": 3}).status == JobStatus.WAITING


def test_the_bell_rings_after_the_commit_and_not_before(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    monkeypatch.setattr(queues, "ring", lambda lane, times=1: rung.append(lane))
    with django_capture_on_commit_callbacks(execute=True):
        create()
        assert rung == []
    assert rung == ["messages"]


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_is_canceled_unless_it_has_ended(status: JobStatus) -> None:
    job = rows.job(status)
    if status in TERMINAL:
        with pytest.raises(IllegalMove):
            jobs.cancel("acme", job.pk, actor=rows.TESTER)
        return
    canceled = jobs.cancel("acme", job.pk, actor=rows.TESTER, reason="no longer needed")
    assert (canceled.status, canceled.lease_token) == (JobStatus.CANCELED, job.lease_token + 1)
    assert "no longer needed" in Activity.objects.get(job=job).note


def test_a_job_of_another_organisation_cannot_be_canceled() -> None:
    job = rows.job(org_id="rival")
    with pytest.raises(Forbidden):
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
    assert Job.objects.get(pk=job.pk).status == JobStatus.WAITING


def test_a_job_that_is_not_there_cannot_be_canceled() -> None:
    with pytest.raises(NotFound):
        jobs.cancel("acme", uuid7(), actor=rows.TESTER)


def test_what_a_canceled_job_has_not_said_yet_stays_unsaid() -> None:
    job = rows.job(JobStatus.RUNNING)
    target = Target("acme", "web", "lobby")
    outbox.enqueue([Outgoing(uuid7(), target, "Hello", owner_key=str(job.pk), thread_key=job.thread_key)])
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    assert OutboundMessage.objects.get().status == "withdrawn"


def test_a_failed_move_of_many_leaves_nothing_behind() -> None:
    job = rows.job(JobStatus.COMPLETED)
    with pytest.raises(IllegalMove):
        lifecycle.move_one(Event.FAIL, job, actor=rows.TESTER)
    assert not Activity.objects.exists()
