"""A worker's loop over real rows: turns are taken, said, waited for, followed up, retried and ended."""

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from agent_jobs import lifecycle, runners
from agent_jobs.conversation import replies
from agent_jobs.duties import recovery
from agent_jobs.errors import PermanentError, RetryableError
from agent_jobs.legal_moves import Event
from agent_jobs.models import Activity, Job, Message, Task, WorkerProcess
from agent_jobs.runners.base import AwaitReply, Done, Outcome, Run
from agent_jobs.states import JobStatus
from agent_jobs.worker.lease_keeper import Keeper
from agent_jobs.worker.loop import Worker
from channels_integration.messages import Delivery, Incoming, Receipt
from channels_integration.models import Channel, OutboundMessage
from tests import rows
from tests.chaos.poison import PoisonRunner
from tests.conversations import QuietKeeper, again, answer, ask, broken, let_time_pass, texts
from tests.races import in_threads
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker() -> Worker:
    return Worker(QuietKeeper())


@pytest.fixture
def nowhere() -> Channel:
    return Channel.objects.create(org_id="acme", platform="null", code="nowhere")


def test_a_message_is_rendered_said_and_done(worker: Worker, nowhere: Channel) -> None:
    job = rows.job(platform="null", channel_code="nowhere", prompt="Hello {{ name }}", params={"name": "Ann"})
    assert worker.serve("messages") == 1
    job = again(job)
    assert (job.status, job.result, job.attempt) == (JobStatus.COMPLETED, "Hello Ann", 1)
    sent = OutboundMessage.objects.get()
    assert (sent.text, sent.status, sent.owner_key) == ("Hello Ann", "sent", str(job.pk))
    assert [a.code for a in Activity.objects.filter(job=job).order_by("created_at", "id")] == [
        "job.started",
        "message.out",
        "job.completed",
    ]
    assert Task.objects.get(job=job).result == "Hello Ann"


def test_many_messages_are_taken_in_batches(worker: Worker, nowhere: Channel) -> None:
    for _ in range(25):
        rows.job(platform="null", channel_code="nowhere")
    assert worker.serve("messages") == 25
    assert Job.objects.filter(status=JobStatus.COMPLETED).count() == 25
    assert OutboundMessage.objects.filter(status="sent").count() == 25


def test_a_message_that_has_to_be_sent_ends_the_job_when_it_is_delivered(worker: Worker) -> None:
    job = rows.job()
    worker.serve("messages")
    assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "delivery")
    message = OutboundMessage.objects.get()
    assert message.status == "pending"
    replies.settle_delivery(Delivery(message.pk, str(job.pk), datetime.now(UTC), receipt=Receipt("1", "thread-1")))
    job = again(job)
    assert (job.status, job.result, job.thread) == (JobStatus.COMPLETED, "Hello", "thread-1")


def test_a_message_that_cannot_be_delivered_fails_the_job(worker: Worker) -> None:
    job = rows.job()
    worker.serve("messages")
    given_up = Delivery(
        OutboundMessage.objects.get().pk, str(job.pk), datetime.now(UTC), error_code="gone", error_message="no channel"
    )
    replies.settle_delivery(given_up)
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "delivery_failed")


def test_a_conversation_asks_waits_and_ends_with_the_answer(worker: Worker, nowhere: Channel) -> None:
    job = ask()
    worker.serve("agents")
    waiting = again(job)
    assert (waiting.status, waiting.waiting_for, waiting.lease_until) == (JobStatus.RUNNING, "reply", None)
    assert waiting.wake_at is not None
    assert answer(job) is True
    worker.serve("agents")
    job = again(job)
    assert (job.status, job.result) == (JobStatus.COMPLETED, "Ann answered: Fine")
    assert job.result_data == {"author": "Ann", "answer": "Fine"}
    assert job.first_reply_at is not None
    assert texts(job) == ["How are you?", "Fine", "Thank you, Ann. I have noted your answer."]
    assert Activity.objects.filter(job=job, code="model.call").count() == 2


def test_silence_is_followed_up_after_one_two_and_four_intervals_and_then_ends(
    worker: Worker, nowhere: Channel
) -> None:
    job = ask()
    waits = []
    for _ in range(3):
        worker.serve("agents")
        row = again(job)
        assert row.wake_at is not None
        waits.append(round((row.wake_at - row.updated_at).total_seconds() / 60))
        let_time_pass(job)
    worker.serve("agents")
    job = again(job)
    assert waits == [10, 20, 40]
    assert job.status == JobStatus.COMPLETED
    assert job.result == "no_response: nobody answered, after 2 follow-ups"
    assert [text[:14] for text in texts(job)] == ["How are you?", "Still hoping f", "Still hoping f"]


def test_no_response_fails_the_job_where_its_type_says_so(worker: Worker, nowhere: Channel) -> None:
    job = ask(config={"max_follow_ups": 0, "on_no_response": "fail"})
    worker.serve("agents")
    let_time_pass(job)
    worker.serve("agents")
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "no_response")
    assert texts(job) == ["How are you?"]


def test_the_timer_starts_when_the_question_is_delivered(worker: Worker) -> None:
    job = ask(platform="web", channel_code="lobby")
    worker.serve("agents")
    asked = again(job)
    assert (asked.waiting_for, asked.wake_at) == ("reply", None)
    message = OutboundMessage.objects.get()
    replies.settle_delivery(Delivery(message.pk, str(job.pk), datetime.now(UTC), receipt=Receipt("1")))
    armed = again(job)
    assert armed.wake_at is not None
    assert round((armed.wake_at - armed.updated_at).total_seconds()) == 600


def test_a_reply_disarms_the_timer(worker: Worker, nowhere: Channel) -> None:
    job = ask()
    worker.serve("agents")
    answer(job)
    assert (again(job).wake_at, again(job).queue_at is not None) == (None, True)


def test_a_reply_sets_the_count_of_follow_ups_back_but_not_their_sum(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, lambda run: AwaitReply(say=("And?",)))
    job = ask()
    worker.serve("agents")
    let_time_pass(job)
    worker.serve("agents")
    assert (again(job).follow_ups_sent, again(job).follow_ups_total) == (1, 1)
    answer(job)
    worker.serve("agents")
    assert (again(job).follow_ups_sent, again(job).follow_ups_total) == (0, 1)


def test_follow_ups_in_all_are_at_most_three_times_the_limit(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, lambda run: AwaitReply(say=("And?",)))
    job = ask(follow_ups_total=6, config={"max_follow_ups": 2})
    worker.serve("agents")
    let_time_pass(job)
    worker.serve("agents")
    assert again(job).status == JobStatus.COMPLETED


def test_a_retryable_failure_is_tried_again_and_says_nothing_twice(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Any] = [RetryableError("busy", code="model_busy"), Done("ok", say=("Done",))]

    def run(given: Run) -> Outcome:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    broken(monkeypatch, run)
    job = ask(config={"max_task_retries": 1, "task_retry_interval": 2})
    worker.serve("agents")
    failed = again(job)
    assert (failed.status, failed.waiting_for, failed.failed_attempts) == (JobStatus.RUNNING, "retry", 1)
    assert failed.wake_at is not None
    assert round((failed.wake_at - failed.updated_at).total_seconds()) == 120
    let_time_pass(job)
    worker.serve("agents")
    assert again(job).status == JobStatus.COMPLETED
    assert texts(job) == ["Done"]
    assert list(Task.objects.filter(job=job).order_by("number").values_list("status", flat=True)) == [
        "FAILED",
        "COMPLETED",
    ]


@pytest.mark.parametrize(
    ("error", "config", "deadline_minutes"),
    [
        (PermanentError("no", code="refused"), {"max_task_retries": 5}, 60),
        (RetryableError("busy", code="refused"), {"max_task_retries": 0}, 60),
        (RetryableError("busy", code="refused"), {"max_task_retries": 5, "task_retry_interval": 90}, 60),
        (RetryableError("busy", code="refused", retry_after=7200), {"max_task_retries": 5}, 60),
    ],
    ids=["permanent", "no retries left", "past the deadline", "Retry-After past the deadline"],
)
def test_a_failure_that_cannot_be_tried_again_fails_the_job_now(
    worker: Worker,
    nowhere: Channel,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    config: dict[str, Any],
    deadline_minutes: float,
) -> None:
    def run(given: Run) -> Outcome:
        raise error

    broken(monkeypatch, run)
    job = ask(config=config, deadline_minutes=deadline_minutes)
    worker.serve("agents")
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "refused")


def test_a_runner_that_breaks_fails_its_job_alone(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(given: Run) -> Outcome:
        if given.prompt == "break":
            raise ZeroDivisionError
        return Done("fine")

    broken(monkeypatch, run)
    bad, good = ask(prompt="break"), ask()
    worker.serve("agents")
    assert (again(bad).status, again(bad).error_code) == (JobStatus.FAILED, "runner_error")
    assert again(good).status == JobStatus.COMPLETED


def test_what_no_database_takes_is_left_out_of_what_is_said(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, lambda run: Done("half \ud83d of \x00it", say=("lone \ud800 surrogate",)))
    job = ask()
    worker.serve("agents")
    assert (again(job).result, texts(job)) == ("half ? of it", ["lone ? surrogate"])


@pytest.mark.django_db(transaction=True)
def test_an_outcome_that_cannot_be_stored_fails_the_job(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, lambda run: Done("fine", result_data={"a": "lone \ud800 surrogate"}))
    job = ask()
    worker.serve("agents")
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "invalid_result")


@pytest.mark.django_db(transaction=True)
def test_an_outcome_that_cannot_be_stored_leaves_the_rest_of_its_batch_alone(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = rows.job(platform="null", channel_code="nowhere", prompt="bad")
    good = [rows.job(platform="null", channel_code="nowhere") for _ in range(3)]

    def run(self: object, given: Run) -> Outcome:
        return Done("fine", result_data="\ud800" if given.prompt == "bad" else None)

    monkeypatch.setattr(type(runners.get("message")), "run", run)
    worker.serve("messages")
    assert (again(bad).status, again(bad).error_code) == (JobStatus.FAILED, "invalid_result")
    assert [again(job).status for job in good] == [JobStatus.COMPLETED] * 3


def test_a_job_that_is_canceled_in_its_turn_says_nothing(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent_jobs import jobs

    job = ask()

    def run(given: Run) -> Outcome:
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
        return Done("too late", say=("too late",))

    broken(monkeypatch, run)
    worker.serve("agents")
    assert (again(job).status, again(job).result) == (JobStatus.CANCELED, None)
    assert not OutboundMessage.objects.exists()
    assert not worker.keeper.held


@pytest.mark.django_db(transaction=True)
def test_a_turn_that_was_overtaken_does_not_let_go_of_the_lease_of_the_next_one(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask()
    next_begun, may_end = threading.Event(), threading.Event()

    def serve() -> None:
        worker.serve("agents")
        connection.close()

    second = threading.Thread(target=serve)

    def run(given: Run) -> Outcome:
        if threading.current_thread() is second:
            next_begun.set()
            assert may_end.wait(PATIENCE)
            return Done("the second turn's")
        lifecycle.move_one(Event.TAKE_BACK, again(job), actor=rows.TESTER)
        second.start()
        assert next_begun.wait(PATIENCE)
        return Done("the first turn's")

    broken(monkeypatch, run)
    try:
        worker.serve("agents")
        held = worker.keeper.held
    finally:
        may_end.set()
        second.join(PATIENCE)
    assert held == {job.pk: again(job).lease_token}
    assert again(job).result == "the second turn's"
    assert not worker.keeper.held


def test_a_message_in_the_middle_of_a_turn_is_taken_up_after_it(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[str] = []

    def run(given: Run) -> Outcome:
        wakes.append(given.wake)
        if len(wakes) == 1:
            answer(job)
            return AwaitReply(say=("Question?",))
        return Done("ok")

    job = ask()
    broken(monkeypatch, run)
    worker.serve("agents")
    assert wakes == ["start", "reply"]
    assert again(job).status == JobStatus.COMPLETED


def test_a_stopping_worker_begins_nothing(worker: Worker, nowhere: Channel) -> None:
    job = ask()
    worker.keeper.stop_claims()
    assert worker.serve("agents") == 0
    assert again(job).status == JobStatus.WAITING


class TestReplies:
    def incoming(self, **fields: Any) -> Incoming:
        defaults = {
            "org_id": "acme",
            "platform": "slack",
            "code": "C1",
            "event_id": "e",
            "author": "Ann",
            "text": "Hi",
            "sent_at": datetime.now(UTC),
        }
        return Incoming(**{**defaults, **fields})

    def waiting(self, **columns: Any) -> Job:
        defaults = {"platform": "slack", "channel_code": "C1", "waiting_for": "reply", "lease_until": None}
        return rows.job(JobStatus.RUNNING, **{**defaults, **columns})

    def test_a_reply_in_a_thread_goes_to_the_job_of_the_thread(self) -> None:
        self.waiting(thread="1.0")
        ours = self.waiting(thread="2.0")
        assert replies.receive(self.incoming(thread="2.0")) is True
        assert Message.objects.get().job_id == ours.pk

    def test_a_thread_of_another_team_is_another_thread(self) -> None:
        self.waiting(thread="1.0", channel_data={"team_id": "T1"})
        assert replies.receive(self.incoming(thread="1.0", team="T2")) is False
        assert replies.receive(self.incoming(thread="1.0", team="T1")) is True

    def test_a_message_at_top_level_of_a_channel_is_for_nobody(self) -> None:
        self.waiting(thread="1.0")
        assert replies.receive(self.incoming()) is False

    def test_a_direct_message_goes_to_the_newest_job_that_waits_there(self) -> None:
        now = datetime.now(UTC)
        self.waiting(started_at=now - timedelta(hours=2))
        newest_waiting = self.waiting(started_at=now - timedelta(hours=1))
        self.waiting(started_at=now, waiting_for="delivery")
        assert replies.receive(self.incoming(is_direct=True)) is True
        assert Message.objects.get().job_id == newest_waiting.pk

    def test_a_reply_is_never_given_to_another_organisations_job(self) -> None:
        theirs = self.waiting(org_id="rival", thread="1.0")
        assert replies.receive(self.incoming(thread="1.0")) is False
        assert replies.receive(self.incoming(owner_key=str(theirs.pk))) is False

    @pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
    def test_a_reply_to_an_ended_job_changes_nothing(self, status: JobStatus) -> None:
        job = rows.job(status, platform="slack", channel_code="C1", thread="1.0", started_at=datetime.now(UTC))
        assert replies.receive(self.incoming(thread="1.0", owner_key=str(job.pk))) is False


class TestRecovery:
    def test_a_lapsed_lease_is_taken_back_and_its_holder_fenced_off(self) -> None:
        job = rows.job(JobStatus.RUNNING, lease_until=datetime.now(UTC) - timedelta(seconds=1))
        assert recovery.take_back_lost() == 1
        row = again(job)
        assert (row.status, row.crash_count, row.lease_token) == (JobStatus.WAITING, 1, job.lease_token + 1)

    def test_a_lease_that_holds_is_left_alone(self) -> None:
        rows.job(JobStatus.RUNNING)
        assert recovery.take_back_lost() == 0

    def test_the_third_lost_worker_fails_the_job(self) -> None:
        job = rows.job(JobStatus.RUNNING, lease_until=datetime.now(UTC) - timedelta(seconds=1), crash_count=2)
        recovery.take_back_lost()
        assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "worker_lost")

    def test_what_a_stopping_worker_gives_back_is_ready_at_once_and_counts_no_crash(self) -> None:
        job = rows.job(JobStatus.RUNNING, lease_token=4, attempt=1)
        assert recovery.give_back({job.pk: 4}) == 1
        row = again(job)
        assert (row.status, row.crash_count, row.lease_token) == (JobStatus.WAITING, 0, 5)
        assert row.queue_at is not None

    def test_a_lease_that_another_worker_has_by_now_is_not_given_back(self) -> None:
        job = rows.job(JobStatus.RUNNING, lease_token=4)
        assert recovery.give_back({job.pk: 3}) == 0
        assert again(job).status == JobStatus.RUNNING

    def test_an_overdue_job_fails_and_says_so_where_it_spoke(self) -> None:
        job = rows.job(
            JobStatus.RUNNING, lease_until=None, waiting_for="reply", deadline_at=datetime.now(UTC), result="so far"
        )
        Message.objects.create(job=job, is_human=False, author="agent", text="?", delivered_at=datetime.now(UTC))
        assert recovery.fail_overdue() == 1
        row = again(job)
        assert (row.status, row.error_code, row.result) == (JobStatus.FAILED, "deadline_exceeded", "so far")
        assert OutboundMessage.objects.get().status == "pending"

    def test_an_overdue_job_that_never_spoke_stays_silent(self) -> None:
        rows.job(JobStatus.RUNNING, deadline_at=datetime.now(UTC))
        recovery.fail_overdue()
        assert not OutboundMessage.objects.exists()

    def test_a_job_before_its_deadline_is_left_alone(self) -> None:
        rows.job(JobStatus.RUNNING, deadline_at=datetime.now(UTC) + timedelta(minutes=1))
        assert recovery.fail_overdue() == 0


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_known_to_live_by_its_lock_and_its_leases_are_renewed() -> None:
    keeper = Keeper("test")
    keeper.start()
    assert keeper.worker_id is not None
    job = rows.job(JobStatus.RUNNING, worker_id=keeper.worker_id, lease_token=3)
    keeper.hold(job.pk, 3)
    assert recovery.take_back_lost() == 0
    before = again(job).lease_until
    Job.objects.filter(pk=job.pk).update(lease_until=datetime.now(UTC) + timedelta(seconds=1))
    assert keeper.renew() == 1
    assert before is not None
    assert again(job).lease_until > datetime.now(UTC) + timedelta(seconds=20)  # type: ignore[operator]
    keeper.let_go(job.pk)
    keeper.close()
    assert not keeper._thread.is_alive()
    recovery.take_back_lost()  # notes that the lock is free
    WorkerProcess.objects.update(lost_at=datetime.now(UTC) - timedelta(seconds=5))
    assert recovery.take_back_lost() == 1
    assert again(job).status == JobStatus.WAITING


@pytest.mark.django_db(transaction=True)
def test_workers_in_parallel_say_everything_once() -> None:
    Channel.objects.create(org_id="acme", platform="null", code="nowhere")
    for _ in range(80):
        rows.job(platform="null", channel_code="nowhere")
    in_threads(*[lambda: Worker(QuietKeeper()).serve("messages")] * 4)
    assert Job.objects.filter(status=JobStatus.COMPLETED).count() == 80
    assert OutboundMessage.objects.count() == 80


def test_a_job_whose_workers_died_twice_has_its_last_attempt_in_a_process_of_its_own(
    worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_BY_NAME", {**runners._BY_NAME, "poison": PoisonRunner()})
    once, twice = (ask(runner="poison", params={"poison": "pid"}, crash_count=crashes) for crashes in (1, 2))
    killer = ask(runner="poison", params={"poison": "kill"}, crash_count=2)
    worker.serve("agents")
    assert again(once).result == str(os.getpid())
    assert again(twice).status == JobStatus.COMPLETED
    assert again(twice).result != str(os.getpid())
    assert (again(killer).status, again(killer).error_code) == (JobStatus.FAILED, "worker_lost")
