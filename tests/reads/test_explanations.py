"""Why a job is not running, or what it waits for: a rule for everything that a job can be in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs import lifecycle
from agent_jobs.conversation import agent_messages
from agent_jobs.errors import NotFound
from agent_jobs.lifecycle import OrgRotation
from agent_jobs.lifecycle.queue_order import place
from agent_jobs.models import DutyRun, Job, WorkerProcess
from agent_jobs.reads import explanations
from agent_jobs.reads.explanations import Explanation
from agent_jobs.states import JobStatus, WaitingFor
from channels_integration import directory, send_results
from channels_integration.models import OutboundMessage
from tests import factories, rows

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AHEAD = datetime(2100, 1, 1, tzinfo=UTC)
AT = "2100-01-01T00:00:00Z"
ASKED = "01930000-0000-7000-8000-000000000001"
WAITS: dict[str, Any] = {"lease_until": None, "wake_at": AHEAD}


@pytest.fixture
def at_work() -> WorkerProcess:
    """A worker process that has just answered a bell."""
    worker = WorkerProcess.objects.create(name="w")
    WorkerProcess.objects.update(worked_at=Now())
    return worker


def explained(job: Job) -> Explanation:
    return explanations.of("acme", job.pk)


def test_every_status_and_everything_that_a_job_can_wait_for_has_a_rule() -> None:
    assert set(explanations.BY_STATUS) == set(JobStatus)
    assert set(explanations.BY_WAIT) == {"", *WaitingFor}
    told = {(status, columns.get("waiting_for", "")) for status, columns, *_ in CASES}
    assert {status for status, _ in told} | {JobStatus.WAITING} == set(JobStatus)
    assert {waiting_for for _, waiting_for in told} == {"", *WaitingFor}


# (status, columns) → (rule, words of the state, estimated start, what unblocks)
CASES: list[tuple[JobStatus, dict[str, Any], str, str, datetime | None, tuple[str, ...]]] = [
    (JobStatus.SCHEDULED, {"scheduled_at": AHEAD}, "scheduled", f"scheduled for {AT}", AHEAD, (AT,)),
    (
        JobStatus.SCHEDULED,
        {"scheduled_at": AHEAD, "waiting_for": "cooldown"},
        "cooldown",
        f"held until {AT}",
        AHEAD,
        (AT,),
    ),
    (JobStatus.RUNNING, {"attempt": 2}, "running", "attempt 2", None, ("the end of its turn",)),
    (
        JobStatus.RUNNING,
        {"lease_until": NOW},
        "lease_lapsed",
        "not heard of any more",
        None,
        ("the next sweep, within seconds",),
    ),
    (
        JobStatus.RUNNING,
        {**WAITS, "waiting_for": "reply"},
        "waiting_for_reply",
        f"without one it goes on at {AT}",
        None,
        ("a reply in web:lobby", AT),
    ),
    (
        JobStatus.RUNNING,
        {"lease_until": None, "waiting_for": "reply", "timer_message_id": ASKED, "timer_seconds": 60},
        "waiting_for_reply",
        "not delivered yet",
        None,
        ("a reply in web:lobby", "the delivery of its message"),
    ),
    (JobStatus.RUNNING, {**WAITS, "waiting_for": "retry"}, "retry", "last attempt failed; it waits", AHEAD, (AT,)),
    (
        JobStatus.RUNNING,
        {**WAITS, "waiting_for": "approval"},
        "approval",
        f"somebody's approval, until {AT}",
        AHEAD,
        ("an approval or a denial", AT),
    ),
    (JobStatus.RUNNING, {**WAITS, "waiting_for": "quiet_hours"}, "quiet_hours", "end of quiet hours", AHEAD, (AT,)),
    (
        JobStatus.RUNNING,
        {"lease_until": None, "waiting_for": "delivery"},
        "delivery",
        "ends when what it said is delivered",
        None,
        ("the delivery of its messages",),
    ),
    (JobStatus.COMPLETED, {}, "ended", "ended: COMPLETED, at", None, ("a replay of it, as a new job",)),
    (
        JobStatus.FAILED,
        {"error_code": "worker_lost"},
        "ended",
        "ended: FAILED (worker_lost), at",
        None,
        ("a retry of it", "a replay of it, as a new job"),
    ),
    (
        JobStatus.CANCELED,
        {},
        "ended",
        "ended: CANCELED, at",
        None,
        ("a retry of it", "a replay of it, as a new job"),
    ),
]


@pytest.mark.parametrize(("status", "columns", "rule", "state", "start", "unblocks"), CASES)
def test_each_state_is_told_by_its_rule(
    at_work: WorkerProcess,
    status: JobStatus,
    columns: dict[str, Any],
    rule: str,
    state: str,
    start: datetime | None,
    unblocks: tuple[str, ...],
) -> None:
    told = explained(rows.job(status, **columns))
    assert (told.rule, told.estimated_start, told.unblocks) == (rule, start, unblocks)
    assert state in told.state
    assert told.state.endswith(".")
    assert (told.blocked_by, told.place_in_queue) == ((), None)


@pytest.mark.parametrize("waiting_for", WaitingFor)
@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("wake_at", [None, NOW, AHEAD])
def test_no_combination_is_without_an_answer(status: JobStatus, waiting_for: str, wake_at: datetime | None) -> None:
    columns = {"lease_until": None} if status == JobStatus.RUNNING else {}
    told = explained(rows.job(status, waiting_for=waiting_for, wake_at=wake_at, **columns))
    assert told.state
    assert told.rule


class TestTheQueue:
    def test_a_job_that_is_next_starts_now(self, at_work: WorkerProcess) -> None:
        told = explained(rows.job())
        assert (told.rule, told.place_in_queue, told.unblocks) == ("queue", 1, ("a worker that is free",))
        assert told.estimated_start is not None
        assert abs(told.estimated_start - datetime.now(UTC)) < timedelta(seconds=15)

    def test_places_are_those_that_claims_go_by(self, at_work: WorkerProcess) -> None:
        now = datetime.now(UTC)
        same = now - timedelta(minutes=9)
        ready = [rows.job(queue_at=place(now - timedelta(seconds=number), number % 10)) for number in range(12)]
        ready += [rows.job(queue_at=same) for _ in range(3)]
        ready.append(rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", queue_at=same))
        rows.job(lane="agents", queue_at=same)
        rows.job(org_id="rival", queue_at=same)
        places = {str(job.pk): explained(job).place_in_queue for job in ready}
        turn = OrgRotation(org_id="zzz")
        claimed: list[str] = []
        while len(claimed) < len(ready):
            answer = lifecycle.settle_and_claim([], lane="messages", turn=turn, worker_id=7)
            claimed += [str(entry.id) for entry in answer.claimed if entry.org_id == "acme"]
        assert [places[job_id] for job_id in claimed] == list(range(1, len(ready) + 1))

    def test_the_start_is_estimated_from_those_since_the_queue_began(self, at_work: WorkerProcess) -> None:
        now = datetime.now(UTC)
        head = rows.job(queue_at=now - timedelta(seconds=60))
        last = rows.job(queue_at=now - timedelta(seconds=50))
        for number in range(6):
            for job, code in [(head, "job.started"), (head, "job.created"), (rows.job(lane="agents"), "job.started")]:
                factories.activity(job, code, created_at=now - timedelta(seconds=number))
        # Before the head came, the queue was empty: what started then tells nothing.
        factories.activity(head, "job.started", created_at=now - timedelta(seconds=100))
        factories.activity(rows.job(org_id="rival"), "job.started", created_at=now)
        told = explained(last)
        assert told.place_in_queue == 2
        assert told.estimated_start is not None
        assert abs(told.estimated_start - now - timedelta(seconds=20)) < timedelta(seconds=15)  # 6 a minute

    def test_nobody_knows_when_nothing_has_started_for_long(self, at_work: WorkerProcess) -> None:
        assert explained(rows.job(queue_at=datetime.now(UTC) - timedelta(minutes=1))).estimated_start is None

    def test_a_place_far_down_is_not_counted(self, at_work: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(explanations, "MOST_COUNTED", 3)
        ready = [rows.job() for _ in range(5)]
        assert [explained(job).place_in_queue for job in ready] == [1, 2, 3, "3+", "3+"]
        assert explained(ready[-1]).estimated_start is None

    def test_a_job_that_goes_on_is_in_the_queue_too(self, at_work: WorkerProcess) -> None:
        rows.org("acme", max_running_jobs=1)
        job = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", queue_at=datetime.now(UTC))
        told = explained(job)
        assert (told.rule, told.place_in_queue, told.estimated_start) == ("queue", 1, None)

    @pytest.mark.parametrize(
        ("status", "columns"),
        [
            (JobStatus.WAITING, {}),
            (JobStatus.SCHEDULED, {"scheduled_at": NOW}),
            (JobStatus.RUNNING, {"lease_until": None, "waiting_for": "retry", "wake_at": NOW}),
            (JobStatus.RUNNING, {"lease_until": None, "waiting_for": "reply", "wake_at": NOW}),
            (JobStatus.RUNNING, {"lease_until": NOW}),
        ],
    )
    def test_what_is_due_while_nobody_works_waits_for_a_worker(
        self, status: JobStatus, columns: dict[str, Any]
    ) -> None:
        job = rows.job(status, **columns)
        WorkerProcess.objects.create(name="stuck")  # is there, and takes nothing
        told = explained(job)
        assert (told.rule, told.unblocks, told.estimated_start) == ("no_workers", ("a worker process",), None)

    def test_workers_that_look_by_themselves_count(self) -> None:
        job = rows.job()
        DutyRun.objects.create(duty="promote")
        told = explained(job)
        assert told.rule == "queue"
        assert "once a second" in told.state

    def test_what_is_not_due_waits_for_its_time_also_without_workers(self) -> None:
        assert explained(rows.job(JobStatus.SCHEDULED)).rule == "scheduled"


class TestCaps:
    @pytest.fixture
    def waiting(self, at_work: WorkerProcess) -> Job:
        """A job that waits behind three of its kind in its channel, one of them elsewhere, one of another type."""
        rows.job_type()
        for columns in [{}, {}, {"channel_code": "attic"}, {"job_type_key": "other"}]:
            rows.job(JobStatus.RUNNING, **columns)
        rows.job(JobStatus.RUNNING, org_id="rival")
        return rows.job()

    def cap(self, waiting: Job, rule: str, cap: int) -> None:
        if rule == "org_cap":
            type(waiting.org).objects.filter(pk="acme").update(max_running_jobs=cap)
        else:
            column = "max_running" if rule == "job_type_cap" else "max_running_per_channel"
            type(rows.job_type()).objects.filter(org_id="acme").update(**{column: cap})

    @pytest.mark.parametrize(("rule", "holders"), [("org_cap", 4), ("job_type_cap", 3), ("channel_cap", 2)])
    def test_a_cap_that_is_reached_names_those_who_hold_the_places(self, waiting: Job, rule: str, holders: int) -> None:
        self.cap(waiting, rule, holders)
        told = explained(waiting)
        assert (told.rule, told.place_in_queue, told.unblocks) == (rule, 1, ("one of these jobs ending",))
        assert f"Only {holders} jobs" in told.state
        running = Job.objects.filter(org_id="acme", status=JobStatus.RUNNING).order_by("created_at", "id")
        expected = {
            "org_cap": running,
            "job_type_cap": running.filter(job_type_key="greet"),
            "channel_cap": running.filter(job_type_key="greet", channel_code="lobby"),
        }[rule]
        assert [(holder.id, holder.state) for holder in told.blocked_by] == [
            (str(job.pk), "RUNNING") for job in expected
        ]
        assert lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), worker_id=7).claimed == ()

    @pytest.mark.parametrize(("rule", "holders"), [("org_cap", 4), ("job_type_cap", 3), ("channel_cap", 2)])
    def test_a_cap_with_room_does_not_hold_a_job(self, waiting: Job, rule: str, holders: int) -> None:
        self.cap(waiting, rule, holders + 1)
        assert explained(waiting).rule == "queue"
        assert lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), worker_id=7).claimed != ()

    def test_the_only_one_is_named(self, at_work: WorkerProcess) -> None:
        rows.job_type(max_running_per_channel=1)
        holder = rows.job(JobStatus.RUNNING)
        told = explained(rows.job())
        assert told.unblocks == (f"job {holder.pk} ending",)
        assert "Only one of the jobs of type 'greet' in web:lobby" in told.state

    def test_at_most_20_holders_are_named(self, at_work: WorkerProcess) -> None:
        rows.org("acme", max_running_jobs=25)
        for _ in range(25):
            rows.job(JobStatus.RUNNING)
        assert len(explained(rows.job()).blocked_by) == 20

    def test_what_has_begun_meets_no_cap_again(self, waiting: Job) -> None:
        self.cap(waiting, "org_cap", 1)
        begun = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", queue_at=datetime.now(UTC))
        assert explained(begun).rule == "queue"


def test_a_delivery_tells_of_the_message_and_its_next_try(at_work: WorkerProcess) -> None:
    rows.org()
    directory.install_slack("acme", team_id="T1", bot_token="xoxb-1", signing_secret="12345678")
    place = {"platform": "slack", "channel_code": "C123456", "channel_data": {"team_id": "T1"}}
    job = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="delivery", **place)
    agent_messages.say(job, "on its way")
    agent_messages.say(job, "recalled")
    first, second = OutboundMessage.objects.order_by("position")
    OutboundMessage.objects.filter(pk=first.pk).update(due_at=AHEAD)
    OutboundMessage.objects.filter(pk=second.pk).update(is_recalled=True)
    told = explained(job)
    (message,) = told.blocked_by
    assert message.error_code == ""
    OutboundMessage.objects.filter(pk=first.pk).update(error_code="receiver_slow")
    assert explained(job).blocked_by[0].error_code == "receiver_slow"
    OutboundMessage.objects.filter(pk=first.pk).update(error_code=send_results.HELD)
    assert explained(job).blocked_by[0].state == "held"
    assert (message.kind, message.id, message.state, message.next_try_at) == (
        "message",
        str(first.pk),
        "pending",
        AHEAD,
    )
    assert AT in told.state


def test_another_organisations_job_is_not_there() -> None:
    with pytest.raises(NotFound):
        explained(rows.job(org_id="rival"))


def test_it_is_quick_whatever_waits(at_work: WorkerProcess) -> None:
    """Bounded looks along indexes: by what PostgreSQL reads, for a clock would tell of the machine."""
    with connection.cursor() as cursor:
        # Earlier tests leave holes in the table, and rows that lie in no order make PostgreSQL prefer reading it whole.
        cursor.execute("TRUNCATE agent_jobs_job CASCADE")
    rows.org("acme", max_running_jobs=100_000)
    rows.job_type(max_running=100_000, max_running_per_channel=100_000)
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO agent_jobs_job (id, org_id, status, job_type_key, runner, lane, platform, channel_code,
                channel_type, channel_data, prompt, params, config, tags, priority, is_new_channel, ignore_cooldown,
                delay_minutes, delay_seconds, scheduled_at, deadline_minutes, queue_at, waiting_for, resume,
                lease_token, attempt, failed_attempts, crash_count, retry_count, thread, inbox_count, inbox_seen,
                follow_ups_sent, follow_ups_total, error_code, error_message)
            SELECT uuidv7(), 'acme', 'WAITING', 'greet', 'message', 'messages', 'web', 'lobby', '', '{}', '', '{}',
                '{}', '{}', 5, false, false, 0, 0, now(), 60, now() - make_interval(secs => n), '', '', 0, 0, 0, 0, 0,
                '', 0, 0, 0, 0, '', ''
            FROM generate_series(1, 15000) n"""
        )
        cursor.execute("ANALYZE agent_jobs_job")
    last = rows.job()
    plans: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip().startswith(("SELECT", "WITH")):
            with connection.cursor() as cursor:
                # Beside the wrapper: this statement is not one of those that are looked at.
                inner = cursor.cursor
                inner.execute(f"EXPLAIN (FORMAT TEXT) {sql}", params)
                plans.append("\n".join(row[0] for row in inner.fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        assert explained(last).place_in_queue == "10000+"
    assert plans
    assert not [plan for plan in plans if "Seq Scan on agent_jobs_job" in plan]
