"""A question that could not be delivered is told, and asked in the next channel that the job's config names."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_jobs.approvals import button_presses
from agent_jobs.models import Activity, Announcement, Approval, Job, WebhookEndpoint
from agent_jobs.reads import explanations
from channels_integration import directory, web_messages
from channels_integration.messages import Did, Incoming
from channels_integration.models import Channel, OutboundMessage
from tests import rows
from tests.agents import scripted_models
from tests.agents.places import Place
from tests.agents.scripted_models import Actor, call, done, work
from tests.channels.sending import deliver_all
from tests.conversations import again
from tests.fakes.slack import Fault, Step

pytestmark = pytest.mark.django_db(transaction=True)
CAREFUL = {"type": "send_message", "requires_approval": True, "approval_minutes": 60}
LOBBY = {"platform": "web", "code": "lobby"}
OTHER = {"platform": "slack", "code": "C0TWO"}


def asking(slack: Place, *channels: dict[str, Any], lost: int = 1) -> tuple[Job, Approval, Actor]:
    """A job whose question is refused by the first `lost` channels of Slack."""
    slack.server.script(*[Step(Fault.NAMED, error="is_archived")] * lost)
    config = {"approval_channels": list(channels)} if channels else {}
    job = scripted_models.job(tools=[CAREFUL], config=config, **slack.columns)
    actor = Actor(call("send_message", text="Fire!"), done(text=""))
    with scripted_models.playing(actor):
        work()
    deliver_all()
    return again(job), Approval.objects.get(job=job), actor


def noted(job: Job) -> list[str]:
    return list(
        Activity.objects.filter(job=job, code__startswith="approval").order_by("number").values_list("code", flat=True)
    )


def press(approval: Approval, **fields: Any) -> None:
    where = {"platform": "web", "code": "lobby", "author": "Ann", "event_id": "e"} | fields
    text, now = f"approve:{approval.pk}", datetime.now(UTC)
    button_presses.receive(Incoming(org_id="acme", text=text, sent_at=now, did=Did.PRESSED, **where))


def test_a_question_that_nobody_got_is_told_everywhere(slack: Place) -> None:
    rows.org()
    WebhookEndpoint.objects.create(org_id="acme", url="https://x.example", event_types=["approval.undelivered"])
    job, approval, _ = asking(slack)

    (lost,) = approval.undelivered
    assert (lost["platform"], lost["code"], lost["error_code"]) == ("slack", "C0ONE", "is_archived")
    assert noted(job) == ["approval.undelivered"]
    assert "could not be delivered in slack:C0ONE (is_archived)" in explanations.of("acme", job.pk).state
    (told,) = Announcement.objects.filter(event="approval.undelivered")
    assert told.payload["job_id"] == str(job.pk)
    assert told.payload["undelivered"] == [lost]
    assert (job.status, job.waiting_for) == ("RUNNING", "approval")
    assert job.wake_at is not None, "the time to decide by API runs"


def test_the_question_goes_to_the_next_channel_and_its_answer_counts(slack: Place) -> None:
    directory.register_channel("acme", platform="web", code="lobby")
    job, approval, actor = asking(slack, LOBBY)

    (line,) = web_messages.read("acme", "web", "lobby")
    assert approval.question in line.text
    assert str(job.pk) in line.text
    assert [label for label, _ in line.buttons] == ["Approve", "Deny"]
    assert approval.place == ("web", "lobby")
    assert noted(job) == ["approval.undelivered", "approval.asked"]
    assert "could not be delivered" not in explanations.of("acme", job.pk).state
    assert job.thread == "", "the job's thread is not that of the question"
    assert job.wake_at is not None
    press(approval, code="elsewhere")
    approval.refresh_from_db()
    assert approval.status == "pending"
    press(approval)
    with scripted_models.playing(actor):
        work()
    deliver_all()

    assert [post.text for post in slack.server.posts] == ["Fire!"]
    (line,) = web_messages.read("acme", "web", "lobby")
    assert line.buttons == []
    assert line.text.endswith("Approved by Ann")
    assert again(job).status == "COMPLETED"


def test_every_channel_is_tried_once_in_its_order(slack: Place) -> None:
    Channel.objects.create(org_id="acme", platform="null", code="void")
    void = {"platform": "null", "code": "void"}
    job, approval, _ = asking(slack, OTHER, void, LOBBY, lost=2)

    assert [lost["code"] for lost in approval.undelivered] == ["C0ONE", "C0TWO"]
    assert approval.place == ("null", "void")
    assert noted(job) == ["approval.undelivered", "approval.asked", "approval.undelivered", "approval.asked"]
    assert approval.timer_seconds is None
    assert job.wake_at is not None


def test_a_channel_that_does_not_exist_is_no_end(slack: Place) -> None:
    job, approval, _ = asking(slack, {"platform": "webhook", "code": "nobody"})

    assert [lost["error_code"] for lost in approval.undelivered] == ["is_archived", "channel_not_found"]
    assert (job.status, job.waiting_for) == ("RUNNING", "approval")
    assert "webhook:nobody" in explanations.of("acme", job.pk).state


def test_a_press_on_a_button_that_should_be_gone_for_a_while_takes_it_off_again(slack: Place) -> None:
    _, approval, _ = asking(slack, lost=0)
    (posted,) = slack.server.posts
    slack.server.script_updates(Step(Fault.NAMED, error="edit_window_closed"))
    press(approval, platform="slack", code="C0ONE", author="U0ANN")
    deliver_all()
    assert slack.server.message("C0ONE", posted.ts)["blocks"][-1]["type"] == "actions"
    Approval.objects.update(decided_at=datetime.now(UTC) - timedelta(minutes=2))
    press(approval, platform="slack", code="C0ONE", author="U0BEA", event_id="f")
    deliver_all()

    assert "Approved by <@U0ANN>" in str(slack.server.message("C0ONE", posted.ts)["blocks"][-1])
    assert OutboundMessage.objects.filter(change__isnull=False).count() == 2
