"""Retries: the same job in another life. Replays: a new job from an old one's input."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction
from django.db.models import F

from agent_jobs import jobs, lifecycle, runners
from agent_jobs.conversation import agent_messages, replies
from agent_jobs.duties import recovery
from agent_jobs.errors import Conflict, Forbidden, IllegalMove, Invalid, NotFound, QuotaReached
from agent_jobs.jobs import admission
from agent_jobs.jobs.repeats import Changes
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.models import Activity, Job, JobType, Message, Profile, Task
from agent_jobs.runners.base import Done, Failed, Outcome, Run
from agent_jobs.specs import ChannelSpec
from agent_jobs.states import JobStatus, TaskStatus, WaitingFor
from agent_jobs.worker.loop import Worker
from channels_integration import directory
from channels_integration.messages import Delivery, Receipt
from channels_integration.models import Channel, OutboundMessage
from infra import doorbell
from tests import rows
from tests.conversations import QuietKeeper, answer, ask
from tests.races import at_once

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def worker() -> Worker:
    return Worker(QuietKeeper())


@pytest.fixture
def nowhere() -> Channel:
    """A platform that delivers at once."""
    return Channel.objects.create(org_id="acme", platform="null", code="nowhere")


def retry(job: Job, **options: Any) -> Job:
    return jobs.retry("acme", job.pk, actor=rows.TESTER, **options)


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def does(monkeypatch: pytest.MonkeyPatch, runner: str, run: Callable[[Run], Outcome]) -> None:
    monkeypatch.setattr(type(runners.get(runner)), "run", lambda self, given: run(given))


def slack(**columns: Any) -> Job:
    """A job in a channel where messages take their time."""
    directory.install_slack("acme", team_id="T1", bot_token="xoxb-1", signing_secret="12345678")
    place = {"platform": "slack", "channel_code": "C123456", "channel_data": {"team_id": "T1"}}
    return rows.job(**{**place, **columns})


class TestRetry:
    @pytest.mark.parametrize("status", JobStatus)
    def test_only_what_failed_or_was_canceled_can_be_retried(self, status: JobStatus) -> None:
        job = rows.job(status)
        if status in MOVES[Event.RETRY].sources:
            assert retry(job).status == JobStatus.WAITING
            return
        with pytest.raises(IllegalMove, match=status) as refusal:
            retry(job)
        assert refusal.value.context["status"] == status
        assert fresh(job).retry_count == 0
        assert not Activity.objects.exists()

    def test_the_new_life_begins_as_a_new_jobs_does(self) -> None:
        now = datetime.now(UTC)
        job = rows.job(
            JobStatus.FAILED,
            attempt=4,
            lease_token=9,
            started_at=now - HOUR,
            deadline_at=now - HOUR / 2,
            scheduled_at=now - HOUR,
            result="worker_lost: …",
            result_data={"a": 1},
            error_code="worker_lost",
            error_message="its worker died 3 times",
            failed_attempts=2,
            crash_count=3,
            follow_ups_sent=2,
            follow_ups_total=5,
            inbox_count=2,
            inbox_seen=1,
            priority=7,
            thread="17.4",
        )
        retry(job, reason="the provider is back")
        job = fresh(job)
        assert (job.status, job.retry_count, job.lease_token) == (JobStatus.WAITING, 1, 10)
        assert [job.finished_at, job.started_at, job.deadline_at, job.result, job.result_data] == [None] * 5
        assert (job.error_code, job.error_message, job.waiting_for, job.resume) == ("", "", "", "")
        assert (job.failed_attempts, job.crash_count, job.follow_ups_sent, job.follow_ups_total) == (0, 0, 0, 0)
        assert (job.attempt, job.inbox_seen, job.thread) == (4, 2, "17.4")
        assert job.scheduled_at >= now
        assert job.queue_at == job.scheduled_at - timedelta(minutes=2)  # the head start of its priority
        (told,) = Activity.objects.all()
        assert (told.code, told.moved_from, told.moved_to, told.life) == ("job.retried", "FAILED", "WAITING", 1)
        assert told.note == "WAITING: retried: the provider is back"

    def test_the_deadline_counts_from_the_first_start_of_the_new_life(self, worker: Worker, nowhere: Channel) -> None:
        before = datetime.now(UTC)
        job = ask(status=JobStatus.FAILED, finished_at=before, deadline_minutes=5, deadline_at=before - HOUR)
        retry(job)
        assert recovery.fail_overdue() == 0
        worker.serve("agents")
        job = fresh(job)
        assert job.started_at is not None
        assert job.started_at >= before
        assert job.deadline_at == job.started_at + timedelta(minutes=5)

    def test_each_life_has_an_end_of_its_own(
        self, worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = rows.job(platform="null", channel_code="nowhere")
        outcomes = iter([Failed("broken", "not yet"), Failed("broken", "still not"), Done("at last")])
        does(monkeypatch, "message", lambda run: next(outcomes))
        for _ in range(2):
            worker.serve("messages")
            assert fresh(job).status == JobStatus.FAILED
            retry(job)
        worker.serve("messages")
        ends = Activity.objects.filter(job=job, moved_to__in=["FAILED", "COMPLETED"]).order_by("life")
        assert list(ends.values_list("life", "moved_to")) == [(0, "FAILED"), (1, "FAILED"), (2, "COMPLETED")]
        assert (fresh(job).result, fresh(job).error_code) == ("at last", "")
        assert list(Task.objects.order_by("number").values_list("number", flat=True)) == [1, 2, 3]

    def test_the_database_lets_a_job_out_of_its_end_only_by_a_retry(self) -> None:
        failed, completed = rows.job(JobStatus.FAILED), rows.job(JobStatus.COMPLETED)
        now = datetime.now(UTC)
        opened = {"status": JobStatus.WAITING, "queue_at": now, "finished_at": None}
        for job, columns in [
            (failed, opened),
            (failed, {**opened, "retry_count": F("retry_count") + 2}),
            (failed, {**opened, "retry_count": F("retry_count") + 1, "status": JobStatus.RUNNING}),
            (failed, {**opened, "retry_count": F("retry_count") + 1, "status": JobStatus.SCHEDULED, "queue_at": None}),
            (failed, {"retry_count": F("retry_count") + 1}),
            (completed, {**opened, "retry_count": F("retry_count") + 1}),
        ]:
            with pytest.raises(DatabaseError, match="final"), transaction.atomic():
                Job.objects.filter(pk=job.pk).update(**columns)

    def test_what_the_old_life_had_still_to_say_is_not_said(self) -> None:
        job = slack(status=JobStatus.RUNNING, lease_until=None, waiting_for="reply")
        agent_messages.say(job, "a question that is not out")
        Job.objects.filter(pk=job.pk).update(deadline_at=datetime.now(UTC) - HOUR)
        Message.objects.filter(job=job).update(delivered_at=datetime.now(UTC))
        recovery.fail_overdue()  # says goodbye, which is not out either
        assert OutboundMessage.objects.filter(status="pending").count() == 1
        retry(job)
        assert set(OutboundMessage.objects.values_list("status", flat=True)) == {"withdrawn"}
        assert not Activity.objects.filter(code="message.out", status="submitted").exists()

    def test_what_nobody_heard_leaves_the_transcript_and_what_was_heard_stays(self) -> None:
        job = rows.job(JobStatus.CANCELED)
        heard = datetime.now(UTC)
        Message.objects.create(job=job, is_human=False, author="agent", text="heard", delivered_at=heard)
        Message.objects.create(job=job, is_human=True, author="Ann", text="answered", delivered_at=heard)
        Message.objects.create(job=job, is_human=False, author="agent", text="unheard")
        retry(job)
        assert list(Message.objects.order_by("id").values_list("text", flat=True)) == ["heard", "answered"]

    @pytest.mark.parametrize("is_posted", [True, False])
    def test_a_message_that_was_being_sent_neither_fails_nor_ends_the_new_life(self, is_posted: bool) -> None:
        job = slack(status=JobStatus.RUNNING)
        agent_messages.say(job, "being sent")
        OutboundMessage.objects.update(status="sending", claim_token=uuid4(), claimed_at=datetime.now(UTC))
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
        retry(job)
        old = OutboundMessage.objects.get()
        assert old.is_recalled
        agent_messages.say(fresh(job), "of the new life")
        Job.objects.filter(pk=job.pk).update(status=JobStatus.RUNNING, queue_at=None, waiting_for=WaitingFor.DELIVERY)
        receipt = Receipt("17.5", "17.5") if is_posted else None
        replies.settle_delivery(
            Delivery(old.pk, str(job.pk), datetime.now(UTC), receipt=receipt, error_code="" if is_posted else "gone")
        )
        assert fresh(job).status == JobStatus.RUNNING
        assert Message.objects.filter(key=old.pk).exists() == is_posted
        new = OutboundMessage.objects.exclude(pk=old.pk).get()
        replies.settle_delivery(Delivery(new.pk, str(job.pk), datetime.now(UTC), receipt=Receipt("17.6", "17.5")))
        assert fresh(job).status == JobStatus.COMPLETED

    def test_a_late_worker_of_the_old_life_changes_nothing(
        self, worker: Worker, nowhere: Channel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = ask()

        def run(given: Run) -> Outcome:
            jobs.cancel("acme", job.pk, actor=rows.TESTER)
            retry(job)
            worker.keeper.stop_claims()  # nobody takes the new life up meanwhile
            return Done("too late", say=("too late",))

        does(monkeypatch, "conversation", run)
        worker.serve("agents")
        job = fresh(job)
        assert (job.status, job.retry_count, job.result) == (JobStatus.WAITING, 1, None)
        assert not OutboundMessage.objects.exists()
        assert not Message.objects.exists()
        assert Task.objects.get().status == TaskStatus.CANCELED

    def test_a_late_worker_changes_nothing_while_the_new_life_is_under_way(self) -> None:
        job = rows.job()
        turn = lifecycle.OrgRotation()
        (old,) = lifecycle.settle_and_claim([], lane="messages", turn=turn, worker_id=7).claimed
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
        retry(job)
        (new,) = lifecycle.settle_and_claim([], lane="messages", turn=turn, worker_id=8).claimed
        for claim, is_taken in [(old, False), (new, True)]:
            ended = lifecycle.Settlement(
                id=claim.id,
                token=claim.token,
                task_id=claim.task_id,
                status=JobStatus.COMPLETED,
                task_status=TaskStatus.COMPLETED,
                result=f"token {claim.token}",
            )
            assert (lifecycle.settle_and_claim([ended]).settled == {job.pk}) == is_taken
        assert fresh(job).result == f"token {new.token}"

    def test_the_agent_goes_on_with_what_was_said_before(self, worker: Worker, nowhere: Channel) -> None:
        job = ask()
        worker.serve("agents")
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
        assert not answer(job)  # nobody listens to an ended job
        retry(job)
        worker.serve("agents")
        assert fresh(job).waiting_for == WaitingFor.REPLY
        assert list(Message.objects.values_list("text", flat=True)) == ["How are you?"]  # not asked a second time
        assert answer(job, "Better", "e2")
        worker.serve("agents")
        assert (fresh(job).status, fresh(job).result) == (JobStatus.COMPLETED, "Ann answered: Better")

    def test_it_needs_a_place_among_the_waiting_jobs(self) -> None:
        job = rows.job(JobStatus.FAILED)
        job.org.max_waiting_jobs = 0
        job.org.save()
        admission._counts.clear()
        with pytest.raises(QuotaReached):
            retry(job)
        assert fresh(job).status == JobStatus.FAILED

    def test_a_channel_that_is_gone_is_a_conflict(self) -> None:
        job = rows.job(JobStatus.FAILED, platform="slack", channel_code="C123456", channel_data={"team_id": "T1"})
        with pytest.raises(Conflict) as refusal:
            retry(job)
        words = "target_channel.data.team_id names the team 'T1', for which Slack is not installed"
        assert refusal.value.message == f"the job's channel cannot be reached: {words}"
        assert refusal.value.code == "channel_unreachable"
        assert fresh(job).status == JobStatus.FAILED

    def test_a_cooldown_holds_new_jobs_and_no_retry(self) -> None:
        job = rows.job(JobStatus.FAILED, config={"failure_cooldown_minutes": 60})
        assert retry(job).status == JobStatus.WAITING

    def test_it_rings_for_its_lane(
        self, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
    ) -> None:
        job = rows.job(JobStatus.FAILED, lane="agents")
        rung: list[str] = []
        monkeypatch.setattr(doorbell, "ring", lambda queue, *_, **__: rung.append(queue))
        with django_capture_on_commit_callbacks(execute=True):
            retry(job)
        assert rung == ["agents"]

    def test_another_organisations_job_is_forbidden_and_a_missing_one_not_found(self) -> None:
        theirs = rows.job(JobStatus.FAILED, org_id="rival")
        with pytest.raises(Forbidden):
            retry(theirs)
        with pytest.raises(NotFound):
            jobs.retry("acme", uuid4(), actor=rows.TESTER)
        assert fresh(theirs).status == JobStatus.FAILED


@pytest.mark.django_db(transaction=True)
def test_of_20_parallel_retries_one_opens_the_job() -> None:
    job = rows.job(JobStatus.FAILED)
    outcomes = at_once(*[lambda: retry(job)] * 20)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, IllegalMove)]
    assert [refusal.context["status"] for refusal in refusals] == ["WAITING"] * 19
    assert fresh(job).retry_count == 1
    assert Activity.objects.filter(job=job, code="job.retried").count() == 1


class TestReplay:
    @pytest.fixture
    def source(self) -> Job:
        """An ended job of `greet`, with everything that a client can say."""
        rows.job_type()
        spec = rows.spec(
            params={"name": "Ann", "n": 1},
            config={"max_follow_ups": 1},
            tags=("a", "b"),
            priority=7,
            channel=ChannelSpec("web", "lobby", "channel", {"x": 1}),
            scheduled_at=datetime.now(UTC) - HOUR,
        )
        job = jobs.create("acme", spec, actor=rows.TESTER)
        return lifecycle.move_one(Event.FAIL, job, actor=rows.TESTER, error_code="x", result="x")

    def replay(self, job: Job, **changes: Any) -> Job:
        return jobs.replay("acme", job.pk, Changes(**changes), actor=rows.TESTER)

    def test_it_is_a_new_job_from_the_same_input(self, source: Job) -> None:
        job = self.replay(source)
        same = ("job_type_key", "runner", "lane", "platform", "channel_code", "channel_type", "channel_data")
        same += ("prompt", "params", "config", "tags", "priority", "deadline_minutes")
        assert {name: getattr(job, name) for name in same} == {name: getattr(source, name) for name in same}
        assert job.pk != source.pk
        assert (job.status, job.replay_of, job.requested_at) == (JobStatus.WAITING, source.pk, None)
        assert (job.result, job.error_code, job.retry_count) == (None, "", 0)
        assert Activity.objects.get(job=job).note == f"WAITING: created as a replay of {source.pk}"
        assert fresh(source).status == JobStatus.FAILED

    @pytest.mark.parametrize("status", JobStatus)
    def test_every_job_can_be_replayed_whatever_became_of_it(self, status: JobStatus) -> None:
        rows.job_type()
        assert self.replay(rows.job(status)).status == JobStatus.WAITING

    def test_params_and_config_are_changed_key_by_key(self, source: Job) -> None:
        job = self.replay(source, params={"n": 2, "m": None}, config={"max_task_retries": 3, "max_follow_ups": None})
        assert job.params == {"name": "Ann", "n": 2}
        assert job.config == {"start_prompt": "Hello {{ name }}", "max_task_retries": 3}

    def test_a_key_that_is_taken_out_of_the_config_is_the_job_types_default(self, source: Job) -> None:
        JobType.objects.update(default_config={"start_prompt": "Bye {{ name }}", "max_follow_ups": 9})
        kept = self.replay(source)
        assert (kept.prompt, kept.config["max_follow_ups"]) == ("Hello {{ name }}", 1)
        todays = self.replay(source, config={"start_prompt": None, "max_follow_ups": None})
        assert (todays.prompt, todays.config["max_follow_ups"]) == ("Bye {{ name }}", 9)

    def test_the_prompt_is_the_old_one_also_where_it_was_the_types_description(self) -> None:
        rows.job_type(default_config={}, description="Say hello")
        source = jobs.create("acme", rows.spec(), actor=rows.TESTER)
        JobType.objects.update(description="Say goodbye")
        assert self.replay(source).prompt == "Say hello"

    def test_the_rest_is_replaced(self, source: Job) -> None:
        later = datetime.now(UTC) + HOUR
        place = ChannelSpec("web", "attic")
        job = self.replay(source, channel=place, scheduled_at=later, tags=(), priority=2)
        assert (job.channel_code, job.channel_type, job.channel_data) == ("attic", "", {})
        assert (job.status, job.scheduled_at, job.tags, job.priority) == (JobStatus.SCHEDULED, later, [], 2)

    def test_a_delay_is_drawn_for_the_new_job(self, source: Job) -> None:
        job = self.replay(source, delay_minutes=10)
        assert (job.status, job.delay_minutes) == (JobStatus.SCHEDULED, 10)

    def test_what_would_not_hold_for_a_new_job_does_not_hold_for_a_replay(self, source: Job) -> None:
        JobType.objects.update(
            params_schema={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        )
        for changes, field in [
            ({"params": {"name": 7}}, "params.name"),
            ({"params": {"name": None}}, "params.name"),
            ({"config": {"max_follow_ups": -1}}, "config.max_follow_ups"),
            ({"config": {"start_prompt": "{{ nobody }}"}}, "config.start_prompt"),
            ({"channel": ChannelSpec("pigeon", "x")}, "target_channel.platform"),
            ({"scheduled_at": datetime.now(UTC) + 24 * HOUR * 4000}, "scheduled_at"),
        ]:
            with pytest.raises(Invalid) as refusal:
                self.replay(source, **changes)
            assert [error.field for error in refusal.value.errors] == [field]
        with pytest.raises(NotFound) as missing:
            self.replay(source, config={"profile_id": "nobody"})
        assert missing.value.code == "profile_not_found"
        JobType.objects.update(active=False)
        with pytest.raises(NotFound) as gone:
            self.replay(source)
        assert gone.value.code == "job_type_not_found"
        assert Job.objects.count() == 1

    def test_another_organisations_job_is_forbidden_and_a_missing_one_not_found(self) -> None:
        rows.job_type()
        theirs = rows.job(JobStatus.FAILED, org_id="rival")
        with pytest.raises(Forbidden):
            self.replay(theirs)
        with pytest.raises(NotFound):
            jobs.replay("acme", uuid4(), Changes(), actor=rows.TESTER)
        assert Job.objects.count() == 1

    def test_a_replay_of_a_replay_names_the_one_that_it_was_made_from(self, source: Job) -> None:
        first = self.replay(source)
        assert self.replay(first).replay_of == first.pk


def test_a_profile_is_asked_for_as_for_a_new_job() -> None:
    rows.job_type()
    Profile.objects.create(org=rows.org(), key="p", name="P")
    job = jobs.create("acme", rows.spec(config={"profile_id": "p"}), actor=rows.TESTER)
    assert jobs.replay("acme", job.pk, Changes(), actor=rows.TESTER).config["profile_id"] == "p"
