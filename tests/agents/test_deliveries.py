"""COMPLETED means that everything a job said in this life is delivered. What dies in delivery makes it FAILED."""

from typing import Any

import pytest

from agent_jobs import jobs, llm
from agent_jobs.approvals import decisions
from agent_jobs.conversation import agent_messages
from agent_jobs.jobs import repeats as retrying
from agent_jobs.models import Activity, Approval, Job, Message
from agent_jobs.states import ActivityStatus, JobStatus
from agent_jobs.worker.loop import Worker
from channels_integration.models import OutboundMessage
from tests import rows
from tests.agents import scripted_models
from tests.agents.places import Place
from tests.agents.scripted_models import Actor, call, done, work
from tests.channels.sending import deliver_all, deliver_now
from tests.conversations import QuietKeeper, again
from tests.fakes.slack import Fault
from tests.fakes.webhook import Reply

pytestmark = pytest.mark.django_db(transaction=True)


def standing(job: Job) -> tuple[str, str, str]:
    now = again(job)
    return now.status, now.waiting_for, now.error_code


def test_a_silent_ending_waits_until_what_was_said_before_is_delivered(place: Place) -> None:
    job = scripted_models.job(**place.columns)
    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), done(text=""))):
        work()
    assert standing(job) == ("RUNNING", "delivery", "")
    deliver_now()
    assert standing(job) == ("COMPLETED", "", "")
    assert again(job).result == "all is well"
    assert place.count_received() == 1


def test_a_job_that_ends_silently_can_be_canceled_while_its_words_are_on_their_way(place: Place) -> None:
    job = scripted_models.job(**place.columns)
    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), done(text=""))):
        work()
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    deliver_now()
    assert standing(job) == ("CANCELED", "", "")
    assert place.count_received() == 0


def test_a_silent_ending_whose_words_die_is_a_failure(place: Place) -> None:
    job = scripted_models.job(**place.columns)
    place.refuse()
    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), done(text=""))):
        work()
    deliver_now()
    assert standing(job) == ("FAILED", "", "delivery_failed")
    assert "a message could not be delivered" in again(job).error_message


def test_a_message_that_dies_while_the_model_thinks_ends_the_job(place: Place) -> None:
    job = scripted_models.job(**place.columns)
    place.refuse()

    def thinks(turn: llm.Turn) -> llm.Reply:
        deliver_now()
        return done(text="Bye.")

    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), thinks)):
        work()
    assert standing(job) == ("FAILED", "", "delivery_failed")
    deliver_now()
    assert not OutboundMessage.objects.filter(text="Bye.").exists()


def test_a_silent_ending_completes_at_once_where_all_is_delivered_by_then(place: Place) -> None:
    job = scripted_models.job(**place.columns)

    def thinks(turn: llm.Turn) -> llm.Reply:
        deliver_now()
        return done(text="")

    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), thinks)):
        work()
    assert standing(job) == ("COMPLETED", "", "")


@pytest.mark.parametrize("ending", [done(text="Bye."), llm.Reply(text="All right?")])
def test_a_later_message_makes_no_success_of_a_first_one_that_died(webhook: Place, ending: llm.Reply) -> None:
    job = scripted_models.job(**webhook.columns)
    webhook.refuse()
    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), ending)):
        work()
    deliver_all()
    assert standing(job) == ("FAILED", "", "delivery_failed")
    assert webhook.count_received() == 1, "a job that has ended says no more"


def test_a_follow_up_is_counted_from_the_delivery_of_a_question_that_a_tool_said(place: Place) -> None:
    job = scripted_models.job(**place.columns)
    with scripted_models.playing(Actor(call("send_message", text="How are you?"), llm.Reply(text=""))):
        work()
    (question,) = OutboundMessage.objects.all()
    assert (again(job).waiting_for, again(job).wake_at) == ("reply", None)
    assert again(job).timer_message_id == question.pk
    deliver_now()
    question.refresh_from_db()
    assert (again(job).wake_at - question.sent_at).total_seconds() == pytest.approx(600, abs=5)


@pytest.mark.parametrize(
    ("ending", "is_over"),
    [(done(text=""), lambda job: job.status == "COMPLETED"), (llm.Reply(), lambda job: job.wake_at)],
)
def test_a_delivery_just_before_the_turn_is_settled_is_not_missed(
    webhook: Place, monkeypatch: pytest.MonkeyPatch, ending: llm.Reply, is_over: Any
) -> None:
    job = scripted_models.job(**webhook.columns)
    look = agent_messages.undelivered

    def looks(*given: Any) -> agent_messages.Undelivered:
        found = look(*given)
        deliver_now()
        return found

    monkeypatch.setattr(agent_messages, "undelivered", looks)
    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), ending)):
        work()
    monkeypatch.undo()
    assert webhook.count_received() == 1
    assert is_over(again(job))


def test_what_died_in_an_earlier_life_does_not_count(webhook: Place) -> None:
    job = scripted_models.job(**webhook.columns)
    webhook.refuse()
    with scripted_models.playing(
        Actor(call("send_message", text="Lost."), done(text=""), call("send_message", text="Heard."), done(text=""))
    ):
        work()
        deliver_now()
        assert standing(job) == ("FAILED", "", "delivery_failed")
        retrying.retry("acme", job.pk, actor=rows.TESTER)
        work()
    deliver_now()
    assert again(job).status == JobStatus.COMPLETED
    assert list(Message.objects.filter(job=job).values_list("text", flat=True)) == ["Heard."]


def test_a_question_that_cannot_be_delivered_may_be_decided_over_the_api_and_the_job_completes(webhook: Place) -> None:
    job = scripted_models.job(tools=[{"type": "ask_approval"}], **webhook.columns)
    webhook.refuse()
    with scripted_models.playing(Actor(call("ask_approval", question="May I?"), done(text="Done."))):
        work()
        deliver_now()
        assert again(job).waiting_for == "approval"
        asked = Approval.objects.get()
        decisions.decide("acme", asked.pk, "approve", by="token:ops", actor=rows.TESTER)
        work()
    deliver_all()
    assert again(job).status == JobStatus.COMPLETED


def test_what_an_older_release_left_undelivered_fails_the_job_at_its_silent_end(webhook: Place) -> None:
    job = scripted_models.job(**webhook.columns)

    def thinks(turn: llm.Turn) -> llm.Reply:
        OutboundMessage.objects.update(status="dead", error_code="http_410", error_message="gone")
        Activity.objects.filter(code="message.out").update(status=ActivityStatus.CANCELED)
        return done(text="")

    with scripted_models.playing(Actor(call("send_message", text="Report: all well."), thinks)):
        work()
    assert standing(job) == ("FAILED", "", "delivery_failed")
    assert again(job).error_message == "a message could not be delivered: http_410: gone"


@pytest.mark.parametrize(("fault", "status"), [(Fault.DROP_AFTER, "completed"), (Fault.DROP_BEFORE, "canceled")])
def test_a_cancel_during_a_send_of_unknown_outcome_tells_what_became_of_the_message(
    slack: Place, settings: Any, fault: Fault, status: str
) -> None:
    settings.DELIVERY_GRACE_SECONDS = 0.5
    job = scripted_models.job(**slack.columns)
    slack.server.script(fault)
    with scripted_models.playing(Actor(llm.Reply(text="How are you?"))):
        work()
    deliver_now()
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    deliver_all()
    assert again(job).status == "CANCELED"
    assert Activity.objects.get(code="message.out").status == status
    assert bool(Message.objects.get(job=job).delivered_at) == (status == "completed")
    assert slack.count_received() == (status == "completed")


def test_a_cancel_while_a_webhook_may_have_received_a_message_says_that_nobody_knows(
    webhook: Place, settings: Any
) -> None:
    settings.DELIVERY_GRACE_SECONDS = 0.5
    job = scripted_models.job(**webhook.columns)
    webhook.server.replies.append(Reply(is_dropped=True))
    with scripted_models.playing(Actor(llm.Reply(text="How are you?"))):
        work()
    deliver_now()
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    deliver_all()
    assert Activity.objects.get(code="message.out").status == "unknown"
    assert webhook.count_received() == 1


def test_a_long_text_is_said_in_messages_that_slack_takes_and_the_job_waits_for_the_last(slack: Place) -> None:
    text = "\n\n".join(f"Paragraph {number}: a < b & c. " + "word " * 100 for number in range(14))
    job = scripted_models.job(**slack.columns, params={})
    with scripted_models.playing(Actor(call("send_message", text=text), llm.Reply(text=text))):
        work()
    deliver_all()

    posts = slack.server.posts
    assert len(posts) == len(scripted_models.said(job)) == 4
    assert all(len(post.request["text"]) <= 4_000 for post in posts)
    assert " ".join(post.text for post in posts).split() == f"{text} {text}".split()
    assert {post.thread_ts for post in posts[1:]} == {posts[0].ts}
    assert standing(job) == ("RUNNING", "reply", "")
    assert again(job).wake_at is not None


def test_people_and_channels_that_the_params_name_are_mentioned_and_no_others(slack: Place) -> None:
    columns = {"runner": "message", "lane": "messages", **slack.columns}
    prompt = "{{ person | mention }}, {{ places[0] | mention }}, <@U0OTHER> <!channel>: {{ name | mention }}"
    params = {"person": "U0ANN", "places": ["C0TWO"], "name": "!here"}
    scripted_models.job(**columns, prompt=prompt, params=params)
    Worker(QuietKeeper()).serve("messages")
    deliver_all()

    (post,) = slack.server.posts
    assert post.request["text"] == "<@U0ANN>, <#C0TWO>, &lt;@U0OTHER&gt; &lt;!channel&gt;: @!here"
