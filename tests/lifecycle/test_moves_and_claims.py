"""Moves: who may move from where to where, who is first, and whose turn it is."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.db.models import Func

from agent_jobs import lifecycle
from agent_jobs.errors import IllegalMove
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.lifecycle import Claim, OrgRotation, Settlement
from agent_jobs.models import Activity, Job, Message, Task
from agent_jobs.states import TERMINAL, JobStatus, TaskStatus
from channels_integration.models import OutboundMessage
from tests import rows
from tests.races import at_once, in_threads

pytestmark = pytest.mark.django_db


def claim(
    turn: OrgRotation | None = None, *, batch: int = 1, settlements: list[Settlement] | None = None
) -> lifecycle.ClaimResult:
    return lifecycle.settle_and_claim(
        settlements or [], lane="messages", turn=turn or OrgRotation(), worker_id=7, batch=batch
    )


def settlement(claimed: Claim, **fields: Any) -> Settlement:
    defaults = {"status": JobStatus.COMPLETED, "task_status": TaskStatus.COMPLETED, "result": "done"}
    return Settlement(id=claimed.id, token=claimed.token, task_id=claimed.task_id, **{**defaults, **fields})


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("status", JobStatus)
def test_an_event_moves_a_job_only_from_where_the_table_says(event: Event, status: JobStatus) -> None:
    job = rows.job(status)
    # A retry counts up, which is what the database lets it through by.
    columns = {"retry_count": 1, "finished_at": None} if event == Event.RETRY else {}
    if event == Event.PROMOTE:
        columns = {"queue_at": datetime.now(UTC)}
    if event == Event.START:
        columns = {"queue_at": None}
    if status in MOVES[event].sources:
        assert lifecycle.move_one(event, job, actor=rows.TESTER, **columns).status == MOVES[event].target
        assert Activity.objects.get(job=job).moved_to == MOVES[event].target
    else:
        with pytest.raises(IllegalMove) as refusal:
            lifecycle.move_one(event, job, actor=rows.TESTER, **columns)
        assert refusal.value.context["status"] == status
        assert Job.objects.get(pk=job.pk).status == status
        assert not Activity.objects.filter(job=job).exists()


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_the_database_refuses_any_change_of_an_ended_job(status: JobStatus) -> None:
    job = rows.job(status)
    with pytest.raises(DatabaseError, match="final"), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(result="something else")


def test_the_database_refuses_a_second_end_in_one_life() -> None:
    job = rows.job(JobStatus.RUNNING)
    lifecycle.move_one(Event.FAIL, job, actor=rows.TESTER)
    with pytest.raises(DatabaseError), transaction.atomic():
        Activity.objects.create(org_id="acme", job=job, code="job.completed", moved_to="COMPLETED")


def test_a_claim_that_began_before_its_job_was_there_does_not_start_it_in_the_past() -> None:
    # This transaction, whose now() a claim would see, is older than the job.
    job = rows.job(JobStatus.WAITING)
    Job.objects.filter(pk=job.pk).update(scheduled_at=Func(function="clock_timestamp"))
    claim()
    job.refresh_from_db()
    assert job.started_at is not None
    assert job.started_at >= job.scheduled_at


@pytest.mark.parametrize("status", JobStatus)
def test_only_a_waiting_job_is_claimed(status: JobStatus) -> None:
    job = rows.job(status)
    claimed = claim().claimed
    assert [entry.id for entry in claimed] == ([job.pk] if status == JobStatus.WAITING else [])
    assert Job.objects.get(pk=job.pk).status == (JobStatus.RUNNING if status == JobStatus.WAITING else status)


@pytest.mark.parametrize("status", JobStatus)
def test_only_a_scheduled_job_that_is_due_is_promoted(status: JobStatus) -> None:
    job = rows.job(status, scheduled_at=datetime.now(UTC) - timedelta(seconds=1))
    later = rows.job(JobStatus.SCHEDULED)
    lifecycle.promote_due()
    expected = JobStatus.WAITING if status == JobStatus.SCHEDULED else status
    assert Job.objects.get(pk=job.pk).status == expected
    assert Job.objects.get(pk=later.pk).status == JobStatus.SCHEDULED


@pytest.mark.parametrize("status", JobStatus)
def test_a_settlement_changes_only_a_running_job(status: JobStatus) -> None:
    job = rows.job(status, lease_token=1)
    task = Task.objects.create(job=job, number=1, lease_token=1)
    ended = Settlement(
        id=job.pk, token=1, task_id=str(task.pk), status=JobStatus.COMPLETED, task_status=TaskStatus.COMPLETED
    )
    answer = lifecycle.settle_and_claim([ended])
    assert (job.pk in answer.settled) == (status == JobStatus.RUNNING)
    expected = JobStatus.COMPLETED if status == JobStatus.RUNNING else status
    assert Job.objects.get(pk=job.pk).status == expected


def test_a_claim_gives_a_lease_a_token_and_a_deadline_from_the_first_start() -> None:
    rows.job(deadline_minutes=30)
    (claimed,) = claim().claimed
    job = Job.objects.get(pk=claimed.id)
    assert (job.lease_token, job.worker_id, job.attempt) == (1, 7, 1)
    assert job.started_at is not None
    assert job.deadline_at == job.started_at + timedelta(minutes=30)
    assert Task.objects.get(pk=claimed.task_id).status == TaskStatus.RUNNING
    assert list(Activity.objects.values_list("code", "moved_to")) == [("job.started", "RUNNING")]


def test_a_deadline_is_exactly_as_long_after_the_start_as_the_job_says() -> None:
    for _ in range(96):
        rows.job(deadline_minutes=30)
    for _ in range(3):
        assert len(claim(batch=32).claimed) == 32
    started = Job.objects.values_list("deadline_at", "started_at")
    assert {deadline_at - started_at for deadline_at, started_at in started} == {timedelta(minutes=30)}


def test_a_stale_token_writes_nothing_at_all() -> None:
    rows.job()
    (claimed,) = claim().claimed
    Job.objects.filter(pk=claimed.id).update(lease_token=99)
    before = (Activity.objects.count(), Message.objects.count(), OutboundMessage.objects.count())
    late = settlement(
        claimed,
        outgoing=[{"id": "00000000-0000-7000-8000-000000000001"}],
        lines=[lifecycle.SpokenLine("00000000-0000-7000-8000-000000000001", "late", False, 0)],
        notes=[lifecycle.Note("message.out", "submitted")],
    )
    assert lifecycle.settle_and_claim([late]).settled == frozenset()
    assert (Activity.objects.count(), Message.objects.count(), OutboundMessage.objects.count()) == before
    assert Job.objects.get(pk=claimed.id).status == JobStatus.RUNNING
    assert Task.objects.get(pk=claimed.task_id).status == TaskStatus.RUNNING


def test_ending_one_turn_and_claiming_the_next_is_one_statement(django_assert_num_queries: Any) -> None:
    first = rows.job()
    (claimed,) = claim().claimed
    second = rows.job()
    with django_assert_num_queries(1):
        answer = claim(settlements=[settlement(claimed)])
    assert answer.settled == {first.pk}
    assert [entry.id for entry in answer.claimed] == [second.pk]


def test_a_reply_that_came_during_the_turn_puts_the_job_back_into_the_queue() -> None:
    rows.job()
    (claimed,) = claim().claimed
    Job.objects.filter(pk=claimed.id).update(inbox_count=1)
    lifecycle.settle_and_claim(
        [settlement(claimed, status=JobStatus.RUNNING, waiting_for="reply", wake_seconds=60.0, result=None)]
    )
    assert Job.objects.get(pk=claimed.id).queue_at is not None


def test_organisations_take_turns_whatever_their_queues() -> None:
    for _ in range(6):
        rows.job(org_id="acme")
    for _ in range(2):
        rows.job(org_id="rival")
    turn = OrgRotation()
    order = [claim(turn).claimed[0].org_id for _ in range(8)]
    assert order == ["acme", "rival", "acme", "rival", "acme", "acme", "acme", "acme"]


def test_a_weight_of_two_gives_two_turns_in_a_round() -> None:
    rows.org("acme", weight=2)
    for org_id in ["acme", "rival"] * 6:
        rows.job(org_id=org_id)
    turn = OrgRotation()
    order = [claim(turn).claimed[0].org_id for _ in range(6)]
    assert order == ["acme", "acme", "rival", "acme", "acme", "rival"]


def test_a_batch_is_of_one_organisation() -> None:
    for org_id in ["acme", "rival"] * 3:
        rows.job(org_id=org_id)
    answer = claim(batch=10)
    assert [entry.org_id for entry in answer.claimed] == ["acme"] * 3
    assert answer.has_more is True
    assert claim(OrgRotation("acme")).claimed[0].org_id == "rival"


def test_jobs_of_another_lane_are_left_alone() -> None:
    rows.job(lane="agents")
    assert claim().org_id is None


def test_an_ended_turn_keeps_what_was_said_and_done() -> None:
    rows.job()
    (claimed,) = claim().claimed
    key = "00000000-0000-7000-8000-000000000002"
    lifecycle.settle_and_claim(
        [
            settlement(
                claimed,
                result_data={"n": 1},
                lines=[lifecycle.SpokenLine(key, "Hello", True, 0)],
                notes=[lifecycle.Note("message.out", "completed", "said: Hello", id=key, output={"text": "Hello"})],
            )
        ]
    )
    job = Job.objects.get(pk=claimed.id)
    assert (job.status, job.result, job.result_data) == (JobStatus.COMPLETED, "done", {"n": 1})
    assert Message.objects.get(job=job).text == "Hello"
    assert Activity.objects.get(pk=key).output == {"text": "Hello"}
    assert Activity.objects.filter(job=job, moved_to="COMPLETED").count() == 1
    assert Task.objects.get(job=job).status == TaskStatus.COMPLETED


def test_a_wait_that_is_over_puts_the_job_into_the_queue() -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    due = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", wake_at=past)
    later = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", wake_at=past + timedelta(hours=1))
    assert lifecycle.wake_due() == {"messages": 1}
    assert Job.objects.get(pk=due.pk).queue_at is not None
    assert Job.objects.get(pk=later.pk).queue_at is None


@pytest.mark.django_db(transaction=True)
def test_many_workers_at_once_never_claim_a_job_twice() -> None:
    for number in range(60):
        rows.job(org_id=["acme", "rival", "third"][number % 3])

    def drain() -> list[str]:
        turn, claimed, misses = OrgRotation(), [], 0
        while misses < 20:
            answer = claim(turn, batch=2)
            claimed += [str(entry.id) for entry in answer.claimed]
            misses = 0 if answer.claimed else misses + 1
        return claimed

    everything = [job_id for claimed in in_threads(*[drain] * 6) for job_id in claimed]
    assert Counter(everything) == Counter(str(pk) for pk in Job.objects.values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)
def test_of_many_parallel_cancels_one_wins() -> None:
    job = rows.job()

    def cancel() -> Job:
        return lifecycle.move_one(Event.CANCEL, Job.objects.get(pk=job.pk), actor=rows.TESTER)

    outcomes = at_once(*[cancel] * 8)
    assert Counter(map(type, outcomes)) == {Job: 1, IllegalMove: 7}
    assert Activity.objects.filter(job=job, moved_to="CANCELED").count() == 1


@pytest.mark.parametrize(
    ("priorities", "expected"),
    [([5, 9], [9, 5]), ([0, 5], [5, 0]), ([5, 5], [5, 5])],
)
def test_a_higher_priority_goes_first(priorities: list[int], expected: list[int]) -> None:
    from agent_jobs.lifecycle.queue_order import place

    now = datetime.now(UTC)
    for number, priority in enumerate(priorities):
        since = now + timedelta(seconds=number)
        rows.job(priority=priority, queue_at=place(since, priority))
    order = [Job.objects.get(pk=claim().claimed[0].id).priority for _ in priorities]
    assert order == expected


@pytest.mark.parametrize(
    ("event", "status", "columns"),
    [
        (Event.TAKE_BACK, JobStatus.RUNNING, {}),
        (Event.RETRY, JobStatus.FAILED, {"retry_count": 1, "finished_at": None}),
    ],
)
def test_a_job_that_comes_back_into_the_queue_keeps_the_head_start_of_its_priority(
    event: Event, status: JobStatus, columns: dict[str, Any]
) -> None:
    """Its worker died, or it is retried: an urgent one still goes before those that have waited a little longer."""
    waited_for_a_minute = rows.job(queue_at=datetime.now(UTC) - timedelta(minutes=1))
    high, low = rows.job(status, priority=8), rows.job(status, priority=2)
    for job in (low, high):
        lifecycle.move_one(event, job, actor=rows.TESTER, **columns)
    order = [claim().claimed[0].id for _ in range(3)]
    assert order == [high.pk, waited_for_a_minute.pk, low.pk]


def test_waiting_outweighs_any_priority_in_the_end() -> None:
    from agent_jobs.lifecycle.queue_order import place

    now = datetime.now(UTC)
    low = rows.job(priority=0, queue_at=place(now - timedelta(minutes=10), 0))
    rows.job(priority=9, queue_at=place(now, 9))
    assert claim().claimed[0].id == low.pk
