"""A job's outcome channel gets one message after the end, whatever the end. The job neither waits nor fails with it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_jobs import lifecycle
from agent_jobs.errors import RetryableError
from agent_jobs.jobs import repeats
from agent_jobs.legal_moves import Event
from agent_jobs.models import Activity, Announcement, Job, WebhookDelivery
from agent_jobs.runners import prompts
from agent_jobs.states import JobStatus
from agent_jobs.webhooks import expansion, outcome_messages
from agent_jobs.worker.loop import Worker
from channels_integration import directory, web_messages
from channels_integration.models import OutboundMessage
from tests import factories, rows
from tests.channels.sending import deliver_all, deliver_now
from tests.conversations import QuietKeeper
from tests.fakes.webhook import FakeReceiver, Reply
from tests.webhooks.conftest import make_endpoint

pytestmark = pytest.mark.django_db(transaction=True)
LOBBY = {"platform": "web", "code": "results"}


def expand() -> None:
    while expansion.expand_some():
        pass


def post(outcome_channel: Any, **fields: Any) -> Any:
    rows.job_type()
    return factories.api().post(
        "/services/agent-jobs", factories.job_request(outcome_channel=outcome_channel, **fields)
    )


def posted(outcome_channel: Any = None, **fields: Any) -> Job:
    response = post(outcome_channel or LOBBY, **fields)
    assert response.status_code == 201, response.content
    return Job.objects.get(pk=response.json()["data"]["id"])


def told() -> list[str]:
    return [message.text for message in OutboundMessage.objects.order_by("position") if message.code != "lobby"]


def end(job: Job, event: Event, **columns: Any) -> Job:
    if event == Event.COMPLETE:
        lifecycle.move_one(Event.START, job, actor=rows.TESTER, queue_at=None, started_at=datetime.now(UTC))
    return lifecycle.move_one(event, job, actor=rows.TESTER, **columns)


@pytest.mark.parametrize(
    ("event", "columns", "said"),
    [
        (Event.COMPLETE, {"result": "42"}, "Job greet ({id}) completed: 42"),
        (Event.COMPLETE, {"result": ""}, "Job greet ({id}) completed."),
        (Event.FAIL, {"error_code": "x", "error_message": "it broke"}, "Job greet ({id}) failed: it broke"),
        (Event.FAIL, {"error_code": "deadline_exceeded"}, "Job greet ({id}) failed: deadline_exceeded"),
        (Event.CANCEL, {}, "Job greet ({id}) was canceled."),
    ],
)
def test_each_end_is_told_once_in_a_plain_sentence(event: Event, columns: dict[str, Any], said: str) -> None:
    job = posted()
    expand()
    assert told() == [], "not before the end"
    end(job, event, **columns)
    expand()
    expand()
    assert told() == [said.format(id=job.pk)]
    deliver_all()
    activity = Activity.objects.get(job=job, code="outcome.out")
    assert (activity.status, activity.output) == ("completed", {"text": told()[0]})
    assert not Announcement.objects.exists()


def test_a_job_without_an_outcome_channel_tells_nobody() -> None:
    rows.job_type()
    response = factories.api().post("/services/agent-jobs", factories.job_request())
    job = Job.objects.get(pk=response.json()["data"]["id"])
    assert job.outcome_channel is None
    assert Job.objects.filter(outcome_channel__isnull=True).count() == 1
    end(job, Event.CANCEL)
    assert not Announcement.objects.exists()


def test_it_is_told_after_a_real_turn_of_a_worker() -> None:
    job = posted()
    Worker(QuietKeeper()).serve("messages")
    deliver_all()  # the job waits for its own words
    assert Job.objects.get(pk=job.pk).status == JobStatus.COMPLETED
    expand()
    deliver_all()
    assert told() == [f"Job greet ({job.pk}) completed: {Job.objects.get(pk=job.pk).result}"]
    assert [line.text for line in web_messages.read("acme", "web", "results")] == told()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ job_type }} {{ status }}: {{ result }}{{ error_message }}", "greet COMPLETED: 42"),
        ("{{ name }} and {{ params.name }}: {{ error_code or 'fine' }}", "Ann and Ann: fine"),
        ("{{ job_id }}", "{id}"),
        ("{% if status == 'FAILED' %}bad{% endif %}", "Job greet ({id}) completed: 42"),
    ],
)
def test_a_template_words_it(template: str, said: str) -> None:
    job = posted({**LOBBY, "template": template})
    end(job, Event.COMPLETE, result="42")
    expand()
    assert told() == [said.format(id=job.pk)]


def test_a_template_that_fails_with_the_real_values_gives_way_to_the_plain_sentence() -> None:
    job = posted({**LOBBY, "template": "{% if result %}{{ result.nothing.there }}{% endif %}"})
    end(job, Event.COMPLETE, result="42")
    expand()
    assert told() == [f"Job greet ({job.pk}) completed: 42"]


def test_a_text_that_has_to_wait_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    job = posted({**LOBBY, "template": "{{ result }}"})
    end(job, Event.COMPLETE, result="42")

    def busy(*_: Any) -> str:
        raise RetryableError("too many wait", code="busy")

    with monkeypatch.context() as patched:
        patched.setattr(prompts, "render", busy)
        expand()
        assert told() == []
    expand()
    assert told() == ["42"]


def test_texts_that_take_long_let_the_rest_wait_for_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "_TEXT_SECONDS", -1.0)
    job = posted()
    end(job, Event.CANCEL)
    assert expansion.expand_some() == 0
    monkeypatch.undo()
    assert expansion.expand_some() == 1


@pytest.mark.parametrize(
    ("channel", "field"),
    [
        ({"platform": "web"}, "outcome_channel.code"),
        ({"code": "x"}, "outcome_channel.platform"),
        ({**LOBBY, "org_id": "acme"}, "outcome_channel.org_id"),
        ({"platform": "webhook", "code": "unknown"}, "outcome_channel.code"),
        ({"platform": "pigeon", "code": "x"}, "outcome_channel.platform"),
        ({"platform": "slack", "code": "C1"}, "outcome_channel.platform"),
        ({**LOBBY, "code": "a/b"}, "outcome_channel.code"),
        ({**LOBBY, "data": []}, "outcome_channel.data"),
        ({**LOBBY, "template": 7}, "outcome_channel.template"),
        ({**LOBBY, "template": "{{ nobody }}"}, "outcome_channel.template"),
        ({**LOBBY, "template": "{% for"}, "outcome_channel.template"),
        ({**LOBBY, "template": "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}"},
         "outcome_channel.template"),
        ({**LOBBY, "template": "x" * 20_001}, "outcome_channel.template"),
        ("web:results", "outcome_channel"),
    ],
)  # fmt: skip
def test_a_channel_that_does_not_hold_is_refused_by_its_field(channel: Any, field: str) -> None:
    refused = post(channel)
    assert refused.status_code == 400
    (found,) = factories.fields_of(refused)
    assert found.startswith(field), refused.json()
    assert not Job.objects.exists()


def test_the_job_shows_it_and_a_replay_keeps_it() -> None:
    channel = {**LOBBY, "type": "chat", "data": {"a": 1}, "template": "{{ result }}"}
    job = posted(channel)
    api = factories.api()
    assert api.get(f"/services/agent-jobs/{job.pk}").json()["data"]["outcome_channel"] == channel
    replayed = api.post(f"/services/agent-jobs/{job.pk}/replay").json()["data"]
    assert replayed["outcome_channel"] == channel


# --- Its delivery ----------------------------------------------------------------------------------------------
@pytest.fixture
def crm(receiver: FakeReceiver) -> dict[str, str]:
    directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address)
    return {"platform": "webhook", "code": "crm"}


def outcome_of(job: Job) -> Activity:
    return Activity.objects.get(job=job, code="outcome.out")


def test_its_delivery_is_recorded_and_changes_nothing_of_the_job(crm: dict[str, str], receiver: FakeReceiver) -> None:
    job = end(posted(crm), Event.COMPLETE, result="42")
    expand()
    before = Job.objects.filter(pk=job.pk).values().get()
    assert outcome_of(job).status == "submitted"
    deliver_all()
    assert outcome_of(job).status == "completed"
    assert Job.objects.filter(pk=job.pk).values().get() == before
    assert f"Job greet ({job.pk}) completed: 42".encode() in receiver.received[0].body


def test_a_delivery_that_is_refused_does_not_fail_the_job(crm: dict[str, str], receiver: FakeReceiver) -> None:
    job = end(posted(crm), Event.COMPLETE, result="42")
    expand()
    receiver.replies = [Reply(400)]
    deliver_now()
    assert outcome_of(job).status == "canceled"
    assert Job.objects.get(pk=job.pk).status == JobStatus.COMPLETED
    assert OutboundMessage.objects.get(code="crm").error_code == "http_400"


def test_a_channel_that_is_gone_by_then_does_not_harm_the_job(crm: dict[str, str], receiver: FakeReceiver) -> None:
    job = posted(crm)
    directory.unregister_channel("acme", "webhook", "crm")
    end(job, Event.COMPLETE, result="42")
    expand()
    deliver_now()
    assert outcome_of(job).status == "canceled"
    assert Job.objects.get(pk=job.pk).status == JobStatus.COMPLETED


def test_each_life_of_a_retried_job_tells_its_own_end(crm: dict[str, str], receiver: FakeReceiver) -> None:
    job = end(posted(crm), Event.FAIL, error_message="first")
    expand()
    deliver_all()
    repeats.retry("acme", job.pk, actor=rows.TESTER)
    end(Job.objects.get(pk=job.pk), Event.COMPLETE, result="second")
    expand()
    deliver_all()
    assert [text.rpartition(": ")[2] for text in told()] == ["first", "second"]
    assert [activity.life for activity in Activity.objects.filter(job=job, code="outcome.out").order_by("number")] == [
        0,
        1,
    ]


@pytest.mark.parametrize("is_written", [True, False])
def test_a_retry_before_the_outcome_is_sent_leaves_only_the_new_one(
    crm: dict[str, str], receiver: FakeReceiver, is_written: bool
) -> None:
    job = end(posted(crm), Event.FAIL, error_message="first")
    if is_written:
        expand()
    repeats.retry("acme", job.pk, actor=rows.TESTER)
    expand()
    end(Job.objects.get(pk=job.pk), Event.COMPLETE, result="second")
    expand()
    deliver_all()
    assert len(receiver.received) == 1
    assert b"second" in receiver.received[0].body


def test_in_the_jobs_own_channel_it_continues_the_jobs_thread() -> None:
    job = end(posted({"platform": "web", "code": "lobby"}), Event.CANCEL)
    elsewhere = end(posted(), Event.CANCEL)
    expand()
    keys = dict(OutboundMessage.objects.values_list("owner_key", "thread_key"))
    assert keys[str(job.pk)] == job.thread_key
    assert keys[str(elsewhere.pk)] != elsewhere.thread_key


def test_the_same_outcome_is_written_once_even_if_the_expansion_runs_twice() -> None:
    job = end(posted(), Event.CANCEL)
    announcement = Announcement.objects.get()
    expand()
    Announcement.objects.bulk_create([announcement])
    with pytest.raises(Exception, match="duplicate key"):
        outcome_messages.send(Job.objects.get(pk=job.pk), "again", message_id=announcement.pk)
    assert len(told()) == 1


def test_endpoints_and_the_channel_both_get_the_end(receiver: FakeReceiver) -> None:
    make_endpoint(factories.api("acme", "SERVICES:ADMIN"), receiver, event_types=["job.canceled"])
    end(posted(), Event.CANCEL)
    expand()
    assert (len(told()), WebhookDelivery.objects.count()) == (1, 1)


def test_one_organisations_flood_does_not_delay_anothers_announcement() -> None:
    for _ in range(10):
        end(rows.job(outcome_channel=LOBBY), Event.CANCEL)
    ours: Callable[[], int] = lambda: OutboundMessage.objects.filter(org_id="rival").count()  # noqa: E731
    end(rows.job(org_id="rival", outcome_channel=LOBBY), Event.CANCEL)
    expansion.expand_some(batch=2)
    assert ours() == 1
