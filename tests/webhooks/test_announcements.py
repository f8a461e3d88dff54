"""Each event of a job is announced in the transaction of its cause, and only if somebody wants to know it."""

from collections.abc import Callable

import pytest
from django.db import transaction

from agent_jobs import lifecycle, webhooks
from agent_jobs.conversation import agent_messages
from agent_jobs.duties import recovery
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.lifecycle import Note, OrgRotation, Settlement
from agent_jobs.models import Announcement, Job, WebhookEndpoint
from agent_jobs.states import JobStatus, TaskStatus
from agent_jobs.webhooks import endpoints
from agent_jobs.webhooks.event_types import EVENT_TYPES, JOB_EVENTS
from tests import factories, rows

pytestmark = pytest.mark.django_db
# What each move of a job announces; a move that is not here is a promotion, a take-back or a retry.
TOLD = {
    Event.START: "job.started",
    Event.COMPLETE: "job.completed",
    Event.FAIL: "job.failed",
    Event.CANCEL: "job.canceled",
}


@pytest.fixture
def endpoint() -> WebhookEndpoint:
    rows.org("acme")
    return endpoints.create("acme", url="http://127.0.0.1:9/in", actor=rows.TESTER)[0]


def announced() -> list[tuple[str, str]]:
    return list(Announcement.objects.order_by("id").values_list("event", "subject_id"))


@pytest.mark.parametrize("event", Event)
def test_a_move_is_announced(endpoint: WebhookEndpoint, event: Event) -> None:
    for source in MOVES[event].sources:
        Announcement.objects.all().delete()
        job = rows.job(source)
        columns = {"retry_count": 1, "finished_at": None} if event == Event.RETRY else {"queue_at": None}
        if MOVES[event].target == JobStatus.WAITING:
            columns["queue_at"] = job.created_at
        lifecycle.move_one(event, job, actor=rows.TESTER, **columns)
        assert announced() == ([(TOLD[event], str(job.pk))] if event in TOLD else [])


def _claim(settlements: list[Settlement]) -> lifecycle.ClaimResult:
    return lifecycle.settle_and_claim(settlements, lane="messages", turn=OrgRotation(), worker_id=7)


def _settled(status: JobStatus) -> Job:
    job = rows.job()
    (claimed,) = _claim([]).claimed
    note = Note("message.out", "completed", "said: Hi", output={"text": "Hi"})
    ended = {"status": status, "task_status": TaskStatus(status), "notes": [note]}
    _claim([Settlement(id=claimed.id, token=claimed.token, task_id=claimed.task_id, **ended)])
    return job


def _created_over_http() -> Job:
    rows.job_type()
    response = factories.api().post("/services/agent-jobs", factories.job_request())
    return Job.objects.get(pk=response.json()["data"]["id"])


def _canceled_over_http() -> Job:
    job = rows.job()
    assert factories.api().delete(f"/services/agent-jobs/{job.pk}").status_code == 200
    return job


def _overdue() -> Job:
    job = rows.job()
    Job.objects.filter(pk=job.pk).update(deadline_at=job.created_at)
    recovery.fail_overdue()
    return job


def _said() -> Job:
    job = rows.job(JobStatus.RUNNING)
    agent_messages.say(job, "Hi")
    return job


@pytest.mark.parametrize(
    ("act", "events"),
    [
        (_created_over_http, ["job.created"]),
        (_canceled_over_http, ["job.canceled"]),
        (_overdue, ["job.failed"]),
        (_said, ["job.message"]),
        (lambda: _settled(JobStatus.COMPLETED), ["job.started", "job.message", "job.completed"]),
        (lambda: _settled(JobStatus.FAILED), ["job.started", "job.message", "job.failed"]),
    ],
)
def test_every_door_and_every_statement_announces(
    endpoint: WebhookEndpoint, act: Callable[[], Job], events: list[str]
) -> None:
    job = act()
    assert announced() == [(event, str(job.pk)) for event in events]


def test_what_is_rolled_back_is_not_announced(endpoint: WebhookEndpoint) -> None:
    with transaction.atomic():
        factories.activity(rows.job(), "job.created")
        transaction.set_rollback(True)
    assert announced() == []


@pytest.mark.parametrize("event", JOB_EVENTS)
def test_only_what_an_enabled_endpoint_asks_for_is_announced(endpoint: WebhookEndpoint, event: str) -> None:
    code = "message.out" if event == "job.message" else event
    for wanted, is_enabled, is_announced in (
        ([event], True, True),
        ([event], False, False),
        ([other for other in EVENT_TYPES if other != event], True, False),
    ):
        Announcement.objects.all().delete()
        WebhookEndpoint.objects.filter(pk=endpoint.pk).update(event_types=wanted, enabled=is_enabled)
        factories.activity(rows.job(), code)
        assert bool(announced()) is is_announced


def test_nothing_of_another_organisation_is_announced(endpoint: WebhookEndpoint) -> None:
    factories.activity(rows.job(org_id="rival"), "job.created")
    assert announced() == []


def test_other_activities_are_not_announced(endpoint: WebhookEndpoint) -> None:
    factories.activity(rows.job(), "message.in")
    assert announced() == []


def test_a_schedule_announces_by_hand_if_somebody_wants_to_know(endpoint: WebhookEndpoint) -> None:
    rows.org("rival")
    payload = {"schedule_id": "s1", "reason": "overlap"}
    assert webhooks.announce("acme", "schedule.skipped", "s1", payload) is True
    assert webhooks.announce("rival", "schedule.skipped", "s1", payload) is False
    assert list(Announcement.objects.values_list("org_id", "event", "payload")) == [
        ("acme", "schedule.skipped", payload)
    ]
