"""Ended rows are deleted after their organisation's retention, with all that belongs to them; nothing else is."""

import io
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection

from agent_jobs.budgets.limits import ALL_DAYS
from agent_jobs.duties import pruning
from agent_jobs.lifecycle import queues
from agent_jobs.models import (
    Activity,
    Budget,
    DutyRun,
    IdempotencyKey,
    Job,
    Message,
    Org,
    Reservation,
    Task,
    UsageDay,
    WorkerProcess,
)
from agent_jobs.models.budgets import Scope
from agent_jobs.states import TERMINAL, JobStatus
from channels_integration.models import Channel, InboundEvent, Lane, OutboundMessage, WebMessage
from tests import rows
from tests.races import in_threads
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)
_SETTLED = ("sent", "dead", "withdrawn")


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def old_id(days: float, number: int = 0) -> UUID:
    """An id as UUIDv7 gave it then."""
    return UUID(int=(int(ago(days).timestamp() * 1000) << 80) | number)


def job(status: JobStatus = JobStatus.COMPLETED, *, ended: float = 100, **columns: Any) -> Job:
    defaults: dict[str, Any] = {"created_at": ago(ended + 1)}
    if status in TERMINAL:
        defaults["finished_at"] = ago(ended)
    return rows.job(status, **defaults | columns)


_numbers = iter(range(1, 10**9))


def message(owner: Job | None = None, *, days: float = 100, status: str = "sent", org_id: str = "acme") -> Any:
    columns: dict[str, Any] = {"id": old_id(days, next(_numbers)), "created_at": ago(days), "status": status}
    if status == "sent":
        columns["sent_at"] = ago(days)
    if status == "dead":
        columns["error_code"] = "gone"
    if status == "sending":
        columns |= {"claim_token": old_id(days), "claimed_at": ago(days)}
    owner_key = str(owner.pk) if owner else ""
    return OutboundMessage.objects.create(
        org_id=org_id, platform="web", code="lobby", text="x", lane="acme/web/lobby", owner_key=owner_key, **columns
    )


def event(*, days: float = 100, status: str = "routed", org_id: str = "acme") -> Any:
    row = InboundEvent.objects.create(
        org_id=org_id,
        platform="web",
        event_id=str(next(_numbers)),
        code="lobby",
        text="x",
        sent_at=ago(days),
        lane="l",
        status=status,
    )
    InboundEvent.objects.filter(pk=row.pk).update(received_at=ago(days))
    return row


def line(channel: Channel, *, days: float = 100) -> Any:
    number = next(_numbers)
    row = WebMessage.objects.create(
        id=old_id(days, number), channel=channel, position=number, direction="out", text="x"
    )
    WebMessage.objects.filter(pk=row.pk).update(created_at=ago(days))
    return row


@pytest.fixture(autouse=True)
def _acme() -> None:
    rows.org()


class TestJobs:
    @pytest.mark.parametrize("status", sorted(TERMINAL))
    def test_one_that_ended_too_long_ago_goes_with_all_that_hangs_on_it(self, status: JobStatus) -> None:
        ended = job(status)
        Task.objects.create(job=ended, number=1, lease_token=1)
        Message.objects.create(job=ended, is_human=False, author="agent", text="?")
        Activity.objects.create(org_id="acme", job=ended, code="job.created")
        message(ended)
        gone, is_done = pruning.prune()
        assert is_done
        assert not any(model.objects.exists() for model in (Job, Task, Message, Activity, OutboundMessage))
        assert +gone == {"jobs": 1, "tasks": 1, "messages": 1, "activities": 1, "outbound_messages": 1}

    @pytest.mark.parametrize(
        ("ended", "days", "is_kept"), [(89.9, None, True), (90.1, None, False), (2.9, 3, True), (3.1, 3, False)]
    )
    def test_the_days_count_from_the_end_as_the_organisation_says(
        self, ended: float, days: int | None, is_kept: bool
    ) -> None:
        Org.objects.update(retention_days=days)
        job(ended=ended)
        pruning.prune()
        assert Job.objects.exists() is is_kept

    def test_one_that_was_made_long_ago_and_ended_lately_stays(self) -> None:
        kept = job(ended=1, created_at=ago(900))
        message(kept, days=800)
        pruning.prune()
        assert Job.objects.exists()
        assert OutboundMessage.objects.exists()

    @pytest.mark.parametrize("status", [JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING])
    def test_one_that_has_not_ended_stays_with_its_messages(self, status: JobStatus) -> None:
        alive = job(status, created_at=ago(1_000))
        Activity.objects.create(org_id="acme", job=alive, code="job.created", created_at=ago(1_000))
        message(alive, days=1_000)
        pruning.prune()
        assert Job.objects.get() == alive
        assert Activity.objects.exists()
        assert OutboundMessage.objects.exists()

    def test_more_than_a_batch_goes_in_one_run(self) -> None:
        template = job()
        fields = {field.attname: getattr(template, field.attname) for field in Job._meta.fields if field.name != "id"}
        Job.objects.bulk_create(Job(**fields) for _ in range(2 * pruning.BATCH + 7))
        gone, is_done = pruning.prune()
        assert (gone["jobs"], is_done) == (2 * pruning.BATCH + 8, True)
        assert not Job.objects.exists()

    def test_another_organisations_policy_is_its_own(self) -> None:
        rows.org("rival", retention_days=3)
        ours, theirs = job(ended=10), job(ended=10, org_id="rival")
        message(ours, days=10)
        message(theirs, days=10, org_id="rival")
        pruning.prune()
        assert Job.objects.get() == ours
        assert OutboundMessage.objects.get().org_id == "acme"

    def test_its_budget_goes_with_it_and_others_budgets_stay(self) -> None:
        ended, alive = job(), job(JobStatus.RUNNING)
        for owner in (ended, alive):
            Budget.objects.create(org_id="acme", scope=Scope.JOB, key=str(owner.pk), day=ALL_DAYS)
        gone, _ = pruning.prune()
        assert gone["budgets"] == 1
        assert Budget.objects.get().key == str(alive.pk)

    def test_the_audit_stays(self) -> None:
        from agent_jobs.models import AuditEntry

        ended = job()
        Activity.objects.create(org_id="acme", job=ended, code="job.completed", moved_to="COMPLETED")
        before = AuditEntry.objects.count()
        assert before
        pruning.prune()
        assert AuditEntry.objects.count() == before


def test_activities_of_the_organisation_itself_go_by_their_own_age() -> None:
    for days in (89, 91):
        Activity.objects.create(org_id="acme", code="type.created", note=str(days), created_at=ago(days))
    pruning.prune()
    assert Activity.objects.get().note == "89"


def test_days_of_the_ledger_go_as_the_organisation_says() -> None:
    rows.org("rival", retention_days=3)
    for org_id, days in (("acme", 89), ("acme", 92), ("rival", 2), ("rival", 5)):
        UsageDay.objects.create(org_id=org_id, day=ago(days).date(), job_type_key="greet", model="m", part=0)
    said = pruning.count()
    gone, _ = pruning.prune()
    assert said["usage_days"] == gone["usage_days"] == 2
    assert set(UsageDay.objects.values_list("org_id", "day")) == {
        ("acme", ago(89).date()),
        ("rival", ago(2).date()),
    }


def test_counters_of_days_and_single_calls_go_when_nothing_of_them_can_change() -> None:
    for days in (0, 6, 9):
        Budget.objects.create(org_id="acme", scope=Scope.ORG, key="", day=ago(days).date())
    for status, closed in (("open", None), ("settled", ago(0.9)), ("settled", ago(1.1)), ("expired", ago(1.1))):
        Reservation.objects.create(
            org_id="acme",
            job_id=job(JobStatus.RUNNING).pk,
            job_type_key="greet",
            model="m",
            day=ago(0).date(),
            status=status,
            closed_at=closed,
            created_at=ago(5),
            reserved_input_tokens=1,
            reserved_output_tokens=1,
            reserved_cost=1,
        )
    said = pruning.count()
    gone, _ = pruning.prune()
    assert (said["budgets"], said["reservations"]) == (gone["budgets"], gone["reservations"]) == (1, 2)
    assert sorted(Reservation.objects.values_list("status", flat=True)) == ["open", "settled"]
    assert not Budget.objects.filter(day__lt=ago(7).date()).exists()


class TestChannels:
    @pytest.mark.parametrize("status", ["pending", "sending", "unknown"])
    def test_what_is_not_settled_stays_even_without_its_owner(self, status: str) -> None:
        message(status=status)
        pruning.prune()
        assert OutboundMessage.objects.exists()

    @pytest.mark.parametrize("status", _SETTLED)
    def test_settled_messages_and_dead_letters_go(self, status: str) -> None:
        message(status=status, days=91)
        message(status=status, days=89)
        pruning.prune()
        assert OutboundMessage.objects.get().created_at > ago(90)

    def test_events_that_were_routed_or_parked_go_and_waiting_ones_stay(self) -> None:
        for status in ("routed", "parked", "waiting"):
            event(status=status)
            event(status=status, days=89)
        pruning.prune()
        kept = InboundEvent.objects.filter(received_at__lt=ago(90))
        assert [row.status for row in kept] == ["waiting"]
        assert InboundEvent.objects.count() == 4

    def test_lines_of_a_transcript_go_and_positions_go_on(self) -> None:
        channel = Channel.objects.create(org_id="acme", platform="web", code="lobby", last_position=9)
        line(channel)
        line(channel, days=89)
        pruning.prune()
        assert WebMessage.objects.count() == 1
        channel.refresh_from_db()
        assert channel.last_position == 9

    def test_only_lanes_that_nobody_uses_go(self) -> None:
        Lane.objects.create(lane="idle", org_id="acme", opens_at=ago(3))
        Lane.objects.create(lane="waiting", org_id="acme", opens_at=ago(3), look_at=ago(3))
        Lane.objects.create(lane="lately", org_id="acme", opens_at=ago(1))
        pruning.prune()
        assert set(Lane.objects.values_list("lane", flat=True)) == {"waiting", "lately"}

    def test_rows_of_a_longer_policy_do_not_hide_those_behind_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows.org("rival", retention_days=3)
        Org.objects.filter(pk="acme").update(retention_days=1_000)
        for _ in range(1_050):
            event(days=100)
        theirs = event(org_id="rival", days=50)
        pruning.prune()
        assert not InboundEvent.objects.filter(pk=theirs.pk).exists()
        assert InboundEvent.objects.count() == 1_050


def test_keys_workers_and_sessions_that_are_over_go() -> None:
    for hours in (47, 49):
        IdempotencyKey.objects.create(
            org_id="acme", key=str(hours), status_code=201, answer={}, created_at=NOW - timedelta(hours=hours)
        )
    for days in (6, 8):
        WorkerProcess.objects.create(name=str(days), seen_at=ago(days))
    for name, at in (("over", ago(1)), ("valid", ago(-1))):
        Session.objects.create(session_key=name, session_data="", expire_date=at)
    pruning.prune()
    assert IdempotencyKey.objects.get().key == "47"
    assert WorkerProcess.objects.get().name == "6"
    assert Session.objects.get().session_key == "valid"


class TestTheDuty:
    def test_it_rings_again_while_work_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rung: list[str] = []
        monkeypatch.setattr(queues, "ring_duty", rung.append)
        job()
        pruning.serve_slice(seconds=-1)
        assert rung == ["prune"]
        pruning.serve_slice(seconds=60)
        assert rung == ["prune"]
        assert not Job.objects.exists()

    def test_it_is_done_once_an_hour_however_often_it_is_rung_for(self) -> None:
        pruning.serve_slice()
        job()
        assert pruning.serve_slice() == 0
        DutyRun.objects.update(done_at=NOW - timedelta(minutes=61))
        assert pruning.serve_slice() == 1

    def test_a_worker_that_stops_does_not_go_on(self) -> None:
        stop = threading.Event()
        stop.set()
        for _ in range(3):
            job()
        assert pruning.prune(stop=stop)[1] is False

    def test_a_bell_reaches_it(self) -> None:
        from infra import doorbell

        before = doorbell.waiting(queues.DUTIES_QUEUE)
        assert before is not None
        queues.ring_duty("prune")
        after = doorbell.waiting(queues.DUTIES_QUEUE)
        assert after == min(before + 1, doorbell.ENOUGH_BELLS)


class TestTheCommand:
    def run(self, *arguments: str) -> dict[str, int]:
        out = io.StringIO()
        call_command("prune", *arguments, stdout=out)
        lines = [line.split(": ") for line in out.getvalue().splitlines()]
        return {name: int(number) for name, number in lines if int(number)}

    def world(self) -> None:
        rows.org("rival")
        for org_id in ("acme", "rival"):
            for days in (5, 50, 500):
                ended = job(ended=days, org_id=org_id)
                Task.objects.create(job=ended, number=1, lease_token=1)
                Activity.objects.create(org_id=org_id, job=ended, code="job.created")
                Activity.objects.create(org_id=org_id, code="type.created", created_at=ago(days))
                message(ended, days=days, org_id=org_id)
                event(days=days, org_id=org_id)
            job(JobStatus.WAITING, created_at=ago(500), org_id=org_id)

    @pytest.mark.parametrize(
        ("arguments", "jobs"),
        [((), 2), (("--older-than", "10"), 4), (("--org", "acme"), 1), (("--older-than", "1", "--org", "acme"), 3)],
    )
    def test_a_dry_run_says_what_then_goes(self, arguments: tuple[str, ...], jobs: int) -> None:
        self.world()
        before = {model: model.objects.count() for model in (Job, Activity, OutboundMessage, InboundEvent)}
        said = self.run("--dry-run", *arguments)
        assert {model: model.objects.count() for model in before} == before
        per_job = ("jobs", "tasks", "outbound_messages", "inbound_events")
        assert said == dict.fromkeys(per_job, jobs) | {"activities": 2 * jobs}
        assert self.run(*arguments) == said
        assert Job.objects.count() == before[Job] - jobs

    def test_mistakes_are_told(self) -> None:
        with pytest.raises(CommandError, match="no such organization"):
            call_command("prune", "--org", "nobody")
        with pytest.raises(CommandError, match="from 1 to"):
            call_command("prune", "--older-than", "0")


@pytest.mark.django_db(transaction=True)
def test_two_prunes_and_a_claim_at_once_do_not_wait_for_each_other() -> None:
    rows.org()
    ended = [job(created_at=ago(200 + number)) for number in range(20)]
    held = threading.Event()
    let_go = threading.Event()

    def hold() -> None:
        """A session that has locked some of what is to go, as a prune in the middle of its batch has."""
        from django.db import transaction

        with transaction.atomic():
            list(Job.objects.select_for_update().filter(pk__in=[row.pk for row in ended[:5]]))
            held.set()
            let_go.wait(2 * PATIENCE)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    assert sum(in_threads(*[lambda: pruning.prune()[0]["jobs"]] * 2)) == 15
    let_go.set()
    holder.join(PATIENCE)
    assert pruning.prune()[0]["jobs"] == 5


@pytest.mark.django_db
def test_attempts_to_log_in_go_after_a_day_and_log_ins_after_ninety() -> None:
    for model, old, columns in ((AccessAttempt, 1, {"failures_since_start": 1}), (AccessLog, 90, {})):
        for days in (old - 0.5, old + 0.5):
            row = model.objects.create(username=f"ann-{days}", ip_address="203.0.113.1", **columns)
            model.objects.filter(pk=row.pk).update(attempt_time=datetime.now(UTC) - timedelta(days=days))
    assert pruning.count()["logins"] == 2
    assert pruning.prune()[0]["logins"] == 2
    assert (AccessAttempt.objects.count(), AccessLog.objects.count()) == (1, 1)
