"""An approval's time runs from when people could see what is asked, whatever kept it from them until then."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from agent_jobs.approvals import decisions
from agent_jobs.approvers import Token
from agent_jobs.conversation import replies
from agent_jobs.hours import stated_hours
from agent_jobs.models import Approval, Job, Message, Org
from agent_jobs.states import JobStatus
from channels_integration import directory, outbox
from channels_integration.messages import Delivery, Receipt
from channels_integration.models import OutboundMessage
from tests import factories, rows
from tests.agents import scripted_models
from tests.agents.scripted_models import Actor, asked, call, done, work
from tests.channels.sending import deliver, deliver_all
from tests.conversations import again, let_time_pass
from tests.fakes.slack import FakeSlack
from tests.hours.stated import OPEN, closed_now

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
CAREFUL = {"type": "send_message", "requires_approval": True, "approval_minutes": 60}


def park(platform: str = "slack") -> Job:
    """A job whose question is not out yet (where a platform has to deliver it)."""
    columns = {"platform": "slack", "channel_code": "C0ONE"} if platform == "slack" else {}
    job = scripted_models.job(tools=[CAREFUL], **columns)
    with scripted_models.playing(Actor(call("send_message", text="Fire!"))):
        work()
    assert again(job).waiting_for == "approval"
    return again(job)


def question(job: Job) -> OutboundMessage:
    return OutboundMessage.objects.get(pk=Approval.objects.get(job=job).message_key)


def is_told(job: Job, **end: Any) -> None:
    """Report the question's delivery, as the outbox does."""
    delivery = Delivery(question(job).pk, str(job.pk), datetime.now(UTC), **end)
    replies.settle_delivery(delivery)


def is_out(job: Job) -> None:
    is_told(job, receipt=Receipt("1.2", "1.2"))


def is_an_hour_from(moment: datetime, found: datetime | None) -> bool:
    """Give or take what a transaction, whose time stands still, or a busy machine makes of it."""
    return found is not None and abs(found - moment - HOUR) < timedelta(minutes=10)


def take_up(job: Job, *replies: Any) -> Actor:
    actor = Actor(*replies)
    with scripted_models.playing(actor):
        work()
    return actor


def test_no_time_runs_while_the_question_is_on_its_way() -> None:
    job = park()
    approval = asked(job)
    assert (job.wake_at, job.timer_message_id, job.timer_seconds) == (None, approval.message_key, 3_600)
    assert approval.timer_seconds == 3_600
    assert approval.expires_at > datetime.now(UTC) + timedelta(days=500)


def test_it_runs_from_the_delivery() -> None:
    job = park()
    before = datetime.now(UTC)
    is_out(job)
    job = again(job)
    assert is_an_hour_from(before, asked(job).expires_at)
    assert is_an_hour_from(before, job.wake_at)
    assert (asked(job).timer_seconds, job.timer_message_id) == (None, None)


def test_where_writing_it_down_is_delivery_it_runs_at_once() -> None:
    before = datetime.now(UTC)
    job = park("null")
    assert is_an_hour_from(before, asked(job).expires_at)
    assert is_an_hour_from(before, job.wake_at)


def test_when_it_is_over_it_is_over() -> None:
    job = park()
    is_out(job)
    Approval.objects.update(expires_at=Now())
    let_time_pass(job)
    actor = take_up(job, done(text=""))
    assert Approval.objects.get(job=job).status == "expired"
    assert "Nobody approved this in time" in actor.turns[0].steps[0].answers["c1"]


def test_one_that_nobody_has_seen_in_its_place_can_be_decided_by_api() -> None:
    job = park()
    decisions.decide("acme", asked(job).pk, "approve", by=Token("ops"), actor=rows.TESTER)
    take_up(job, done(text=""))
    assert Message.objects.filter(job=job, text="Fire!").exists()
    assert again(job).timer_message_id is None


def test_a_question_that_is_never_delivered_has_its_time_from_then_and_fails_nobody() -> None:
    job = park()
    before = datetime.now(UTC)
    is_told(job, error_code="channel_not_found", error_message="Slack answered channel_not_found")
    job = again(job)
    assert job.status == JobStatus.RUNNING
    assert is_an_hour_from(before, asked(job).expires_at)
    assert is_an_hour_from(before, job.wake_at)


def test_a_second_word_of_its_delivery_gives_no_more_time() -> None:
    job = park()
    is_out(job)
    expires_at, wake_at = asked(job).expires_at, again(job).wake_at
    is_out(job)
    assert (asked(job).expires_at, again(job).wake_at) == (expires_at, wake_at)


def test_who_takes_it_up_while_it_is_on_its_way_asks_nothing_twice_and_looks_again() -> None:
    job = park()
    Job.objects.update(wake_at=Now())
    let_time_pass(job)
    take_up(job)
    job = again(job)
    assert OutboundMessage.objects.filter(owner_key=str(job.pk)).count() == 1
    assert job.timer_message_id == asked(job).message_key
    assert job.wake_at is not None
    is_out(job)
    assert is_an_hour_from(job.updated_at, asked(job).expires_at)


def test_a_job_that_was_parked_by_the_release_before_is_woken_in_time() -> None:
    """It knows of no timer, and parked the job until the far end of the time."""
    job = park()
    Job.objects.update(timer_message_id=None, timer_seconds=None, wake_at=asked(job).expires_at)
    before = datetime.now(UTC)
    is_out(job)
    assert is_an_hour_from(before, again(job).wake_at)


def test_the_api_says_no_time_before_there_is_one() -> None:
    job = park()
    api = factories.api()
    shown = api.get(f"/services/agent-jobs/{job.pk}?include=explanation").json()["data"]
    (approval,) = shown["approvals"]
    assert "expires_at" not in approval
    assert "wake_at" not in shown
    assert shown["explanation"]["state"] == "It waits for somebody's approval; its question is not out yet."
    assert [held["id"] for held in shown["explanation"]["blocked_by"]] == [str(question(job).pk)]

    is_out(job)
    shown = api.get(f"/services/agent-jobs/{job.pk}?include=explanation").json()["data"]
    assert shown["approvals"][0]["expires_at"].endswith("Z")
    assert "until" in shown["explanation"]["state"]


# --- Over the wire ---------------------------------------------------------------------------------------------
@pytest.fixture
def slack(settings: Any) -> Iterator[FakeSlack]:
    with FakeSlack(team_id="T0ACME", signing_secret="acme-signing-secret", seed=1) as server:
        settings.SLACK_API_URL = server.api_url
        settings.DELIVERY_GRACE_SECONDS = 1
        directory.install_slack(
            "acme", team_id="T0ACME", bot_token=server.bot_token, signing_secret="acme-signing-secret"
        )
        yield server


@pytest.mark.django_db(transaction=True)
def test_what_quiet_hours_hold_back_does_not_expire_before_they_end(slack: FakeSlack) -> None:
    job = park()
    stated_hours.put("acme", stated_hours.Place(), closed_now(), actor=rows.TESTER)
    deliver(1)
    assert slack.posts == []
    assert question(job).error_code == "held"
    assert (asked(job).timer_seconds, again(job).wake_at) == (3_600, None)

    before = datetime.now(UTC)
    Org.objects.update(hours=OPEN)
    outbox.look_again("acme")
    deliver_all()
    assert len(slack.posts) == 1
    assert is_an_hour_from(before, asked(job).expires_at)
    assert is_an_hour_from(before, again(job).wake_at)
