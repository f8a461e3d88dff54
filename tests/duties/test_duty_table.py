"""Duties run each for itself, and a row that raises does not keep the others of its batch waiting."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection

from agent_jobs import duty_rounds
from agent_jobs.budgets import reservations
from agent_jobs.duties import duty_table, promotion, recovery
from agent_jobs.duty_rounds import Duty
from agent_jobs.models import DutyRun, Job, Reservation, WorkerProcess
from agent_jobs.states import JobStatus
from config.celery import app
from infra import meters
from infra.quarantine import Quarantine
from tests import rows

PAST = datetime.now(UTC) - timedelta(minutes=10)


def counted(name: str, duty: str) -> float:
    return (meters.totals() or {}).get((name, (("duty", duty),)), 0)


@pytest.mark.django_db(transaction=True)
def test_a_duty_that_raises_is_logged_and_counted_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> int:
        raise KeyError("an odd row")

    before = counted("duty_failures", "broken")
    table = [Duty("broken", broken, bell="b"), Duty("sound", lambda: 3, bell="b")]
    assert duty_rounds.each(table) == 3
    assert counted("duty_failures", "broken") == before + 1
    assert "duty broken failed" in caplog.text
    assert "an odd row" in caplog.text
    assert set(DutyRun.objects.values_list("duty", flat=True)) == {"sound"}


def test_an_outage_of_the_database_ends_the_round() -> None:
    def away() -> int:
        raise OperationalError("gone")

    with pytest.raises(OperationalError):
        duty_rounds.each([Duty("away", away, bell="b"), Duty("next", pytest.fail, bell="b")])  # type: ignore[arg-type]


def test_beat_rings_for_every_bell_of_the_table() -> None:
    app.finalize()
    rung = {name: (entry["task"], entry["schedule"]) for name, entry in app.conf.beat_schedule.items()}
    assert rung == {bell: (f"agent_jobs.{bell}", duty_table.every(bell)) for bell in duty_table.BELLS}
    assert all(entry["options"]["queue"] == "duties" for entry in app.conf.beat_schedule.values())
    assert set(rung) >= {"promote", "sweep", "audit", "prune"}


def test_every_lock_is_a_duty_of_the_table() -> None:
    assert set(duty_rounds.LOCKS) <= {duty.name for duty in duty_table.DUTIES}


@pytest.fixture
def odd_rows() -> Iterator[None]:
    """Jobs whose prompt is `odd` cannot be written, nor can reservations with the model `odd`."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE FUNCTION refuse_odd() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'an odd row'; END $$;
            CREATE TRIGGER odd BEFORE UPDATE ON agent_jobs_job FOR EACH ROW WHEN (OLD.prompt = 'odd')
                EXECUTE FUNCTION refuse_odd();
            CREATE TRIGGER odd BEFORE UPDATE ON agent_jobs_reservation FOR EACH ROW WHEN (OLD.model = 'odd')
                EXECUTE FUNCTION refuse_odd();
            """
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION refuse_odd() CASCADE")


def _due(prompt: str) -> Job:
    return rows.job(JobStatus.SCHEDULED, prompt=prompt, scheduled_at=PAST)


def _to_be_woken(prompt: str) -> Job:
    return rows.job(JobStatus.RUNNING, prompt=prompt, lease_until=None, waiting_for="retry", wake_at=PAST)


def _lapsed(prompt: str) -> Job:
    return rows.job(JobStatus.RUNNING, prompt=prompt, lease_until=PAST)


def _overdue(prompt: str) -> Job:
    return rows.job(JobStatus.WAITING, prompt=prompt, deadline_at=PAST)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("make", "work", "duty", "is_done"),
    [
        (_due, promotion.promote_and_wake, "promote", lambda job: job.status == JobStatus.WAITING),
        (_to_be_woken, promotion.promote_and_wake, "promote", lambda job: job.queue_at is not None),
        (_lapsed, recovery.take_back_lost, "take_back", lambda job: job.status == JobStatus.WAITING),
        (_overdue, recovery.fail_overdue, "deadlines", lambda job: job.status == JobStatus.FAILED),
    ],
)
def test_a_job_that_raises_is_set_aside_and_the_others_of_its_batch_go_on(
    odd_rows: None,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[str], Job],
    work: Callable[[], int],
    duty: str,
    is_done: Callable[[Job], bool],
) -> None:
    before = counted("rows_set_aside", duty)
    jobs = [make(prompt) for prompt in ("Say hello", "odd", "Say hello")]
    assert work() == 2
    assert [is_done(Job.objects.get(pk=job.pk)) for job in jobs] == [True, False, True]
    assert counted("rows_set_aside", duty) == before + 1
    assert f"duty {duty}: {jobs[1].pk} failed" in caplog.text
    caplog.clear()
    assert work() == 0
    assert caplog.text == "", "it is not looked at again"


@pytest.mark.django_db(transaction=True)
def test_a_reservation_that_raises_is_set_aside(odd_rows: None) -> None:
    for model in ("scripted", "odd", "scripted"):
        reserve(rows.job(JobStatus.COMPLETED), model=model)
    assert reservations.expire_lost() == 2
    assert set(Reservation.objects.values_list("model", "status")) == {("scripted", "expired"), ("odd", "open")}


def reserve(job: Job, *, model: str) -> None:
    Reservation.objects.create(
        job_id=job.pk,
        org_id=job.org_id,
        model=model,
        created_at=PAST,
        day=PAST.date(),
        reserved_input_tokens=1,
        reserved_output_tokens=1,
        reserved_cost=0,
    )


def test_a_row_is_looked_at_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: Quarantine[Any] = Quarantine("test")
    with failed.row(1):
        raise KeyError
    assert failed.rows() == [1]
    monkeypatch.setattr("infra.quarantine.SECONDS", -1)
    with failed.row(2):
        raise KeyError
    assert failed.rows() == [1]


def test_an_outage_is_no_fault_of_the_row() -> None:
    failed: Quarantine[Any] = Quarantine("test")
    with pytest.raises(OperationalError), failed.row(1):
        raise OperationalError("gone")
    assert failed.rows() == []


@pytest.mark.django_db
def test_leases_that_lapsed_during_an_outage_are_not_taken_back_before_their_workers_could_renew_them() -> None:
    _lapsed("Say hello")
    dead = WorkerProcess.objects.create(name="dead", lost_at=PAST)
    lost = rows.job(JobStatus.RUNNING, lease_until=PAST, worker_id=dead.pk)
    DutyRun.objects.create(duty="take_back", done_at=PAST)
    assert recovery.take_back_lost() == 1, "only from the worker whose lock is free"
    assert Job.objects.get(pk=lost.pk).status == JobStatus.WAITING
    assert recovery.take_back_lost() == 0, "a second look does not count as the end of the outage"
    DutyRun.objects.filter(duty=DutyRun.RESUMED).update(done_at=PAST)
    assert recovery.take_back_lost() == 1
