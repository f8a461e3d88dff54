"""The duties: what falls due is made ready in its moment, by one process at a time, and bells cost nothing twice."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
from django.db import OperationalError, connection

from agent_jobs import duty_rounds, lifecycle
from agent_jobs.duties import duty_table, promotion
from agent_jobs.duty_rounds import Duty
from agent_jobs.models import DutyRun, Job, WorkerProcess
from agent_jobs.states import JobStatus
from infra.concurrency import ConcurrencyLimit
from tests import rows
from tests.waiting import PATIENCE, wait_for


@pytest.mark.django_db(transaction=True)
def test_a_job_that_falls_due_within_the_second_is_promoted_in_it() -> None:
    lags = []
    while not lags or (min(lags) > timedelta(seconds=0.3) and len(lags) < 9):  # a busy machine is late now and then
        job = rows.job(JobStatus.SCHEDULED, scheduled_at=datetime.now(UTC) + timedelta(seconds=0.3))
        assert promotion.serve_second(seconds=1.0) == 1
        job.refresh_from_db()
        assert job.status == JobStatus.WAITING
        assert job.updated_at >= job.scheduled_at
        lags.append(job.updated_at - job.scheduled_at)
    assert min(lags) <= timedelta(seconds=0.3)


@pytest.mark.django_db(transaction=True)
def test_more_than_a_batch_is_promoted_at_once() -> None:
    org = rows.org()
    past = datetime.now(UTC) - timedelta(seconds=1)
    Job.objects.bulk_create(
        Job(
            org=org,
            status=JobStatus.SCHEDULED,
            job_type_key="greet",
            runner="message",
            lane="messages",
            platform="web",
            channel_code="lobby",
            scheduled_at=past,
            deadline_minutes=1,
        )
        for _ in range(1_100)
    )
    assert promotion.promote_and_wake() == 1_100
    assert not Job.objects.filter(status=JobStatus.SCHEDULED).exists()


@pytest.mark.django_db(transaction=True)
def test_waits_of_many_that_end_together_hold_up_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    for _ in range(30):
        rows.job(JobStatus.RUNNING, waiting_for="reply", wake_at=past, lease_until=None)
    wake_due, steps = lifecycle.wake_due, []

    def wake_some(without: object = ()) -> dict[str, int]:
        if not steps:
            rows.job(JobStatus.SCHEDULED, scheduled_at=past)  # falls due while the first are woken
        steps.append("waiting" if Job.objects.filter(status=JobStatus.SCHEDULED).exists() else "promoted")
        return wake_due(batch=10)

    monkeypatch.setattr(lifecycle, "wake_due", wake_some)
    assert promotion.promote_and_wake() == 31
    assert steps == ["waiting", "promoted", "promoted", "promoted"]


@pytest.mark.django_db(transaction=True)
def test_a_second_process_leaves_the_second_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    is_serving, may_end = threading.Event(), threading.Event()
    served: list[float] = []

    def serve(_duty: str, _work: object, _due: object, until: float) -> int:
        served.append(until)
        is_serving.set()
        assert may_end.wait(PATIENCE)
        return 7

    monkeypatch.setattr(duty_rounds, "_serve", serve)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(lambda: (promotion.serve_second(seconds=1.0), connection.close()))
        assert is_serving.wait(PATIENCE)
        assert promotion.serve_second(seconds=2.0) == 0
        may_end.set()
        assert first.result()[0] == 7
    assert len(served) == 1
    assert promotion.serve_second(seconds=3.0) == 7, "the first has let go of it"


@pytest.mark.django_db(transaction=True)
def test_the_next_second_is_served_by_whoever_hears_its_bell_while_the_last_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duty_rounds, "_HANDOVER_SECONDS", PATIENCE)
    monkeypatch.setattr(duty_rounds, "_serve", lambda *_: 7)
    with _at_promotion() as last, ThreadPoolExecutor() as pool:
        next_one = pool.submit(lambda: (promotion.serve_second(), connection.close()))
        wait_for(_somebody_tried_promotions_lock, what="the next one tried the lock")
        assert not next_one.done()
        last.execute("SELECT pg_advisory_unlock_all()")
        assert next_one.result()[0] == 7


@pytest.mark.django_db(transaction=True)
def test_a_second_counts_from_its_bell_also_when_the_last_one_ends_late(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr(duty_rounds, "_HANDOVER_SECONDS", PATIENCE)

    def serve() -> None:
        duty_rounds.serve_second("promote", lambda: 0, lambda: looks.append(time.monotonic()) or 1.0, seconds=0.5)
        connection.close()

    with _at_promotion() as last, ThreadPoolExecutor() as pool:
        next_one = pool.submit(serve)
        wait_for(_somebody_tried_promotions_lock, what="the next one tried the lock")
        over_at = time.monotonic() + 0.5
        wait_for(lambda: time.monotonic() > over_at, what="its second is over")
        last.execute("SELECT pg_advisory_unlock_all()")
        next_one.result()
    assert len(looks) == 1, "it looks once, and leaves the next second to the next bell"


def _somebody_tried_promotions_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'"
            " AND query LIKE 'SELECT pg_try_advisory_lock(%'"
        )
        return bool(cursor.fetchone()[0])


# --- Who is frozen at a duty ------------------------------------------------------------------------------------
_SILENT = 0.3


@contextmanager
def _at_promotion() -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """The session of another process, which has the duty's lock."""
    parameters = connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", (WorkerProcess.LOCK_SPACE, duty_rounds.LOCKS["promote"]))
        yield other


def _is_ours(silent_seconds: float = _SILENT) -> bool:
    with duty_rounds.alone("promote", silent_seconds=silent_seconds) as is_alone:
        return is_alone


def _has_been(state: str, pid: int) -> bool:
    """For longer than anybody at a duty is silent."""
    with connection.cursor() as cursor:
        since = "SELECT state = %s AND clock_timestamp() - state_change > make_interval(secs => %s)"
        cursor.execute(f"{since} FROM pg_stat_activity WHERE pid = %s", [state, _SILENT, pid])
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_a_process_that_is_frozen_at_a_duty_loses_it(caplog: pytest.LogCaptureFixture) -> None:
    with _at_promotion() as frozen:
        wait_for(_is_ours, what="the duty is somebody else's")
        assert "terminated its database session" in caplog.text
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            frozen.execute("SELECT 'thawed'")
    assert _is_ours()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["was silent for a moment only", "did it a moment ago", "is in a long statement"])
def test_a_process_that_is_at_a_duty_keeps_it(what: str) -> None:
    with _at_promotion() as other, ThreadPoolExecutor() as pool:
        look: Callable[[], bool] = _is_ours
        if what == "was silent for a moment only":
            look = partial(_is_ours, 2 * PATIENCE)
        elif what == "did it a moment ago":
            wait_for(partial(_has_been, "idle", other.info.backend_pid), what="it is silent")
            duty_rounds.note_done("promote")
        else:
            pool.submit(other.execute, "SELECT pg_sleep(60)")
            wait_for(partial(_has_been, "active", other.info.backend_pid), what="its statement runs")
        assert not look()
        other.cancel_safe()
        pool.shutdown()
        assert other.execute("SELECT 'alive'").fetchone() == ("alive",)


@pytest.mark.django_db
def test_a_duty_that_was_done_is_on_record() -> None:
    promotion.serve_second(seconds=0.0)
    duty_rounds.each(duty_table.BELLS["sweep"])
    found = set(DutyRun.objects.values_list("duty", flat=True))
    assert found == {"promote"} | {duty.name for duty in duty_table.BELLS["sweep"]}


def test_a_thousand_bells_of_a_duty_are_one() -> None:
    done: list[int] = []
    for _ in range(1_000):
        duty_rounds.serve("test-many", [Duty("many", lambda: done.append(1) or 1, bell="test-many", notes_itself=True)])
    assert len(done) == 1


def test_a_duty_survives_a_database_that_is_away() -> None:
    def away() -> int:
        raise OperationalError("gone")

    assert duty_rounds.serve("test-away", [Duty("away", away, bell="test-away")]) == 0


class TestGate:
    def test_lets_only_so_many_in(self) -> None:
        gate, inside, most = ConcurrencyLimit(2), threading.Semaphore(0), []
        running = 0
        lock, leave = threading.Lock(), threading.Event()

        def work() -> int:
            nonlocal running
            with lock:
                running += 1
                most.append(running)
            inside.release()
            leave.wait(PATIENCE)
            with lock:
                running -= 1
            return 1

        threads = [threading.Thread(target=gate.answer, args=(work,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        inside.acquire()
        inside.acquire()
        leave.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert max(most) == 2

    def test_a_bell_during_the_work_makes_it_look_again(self) -> None:
        gate, seen = ConcurrencyLimit(1), []

        def work() -> int:
            seen.append(1)
            if len(seen) == 1:
                rings = threading.Thread(target=gate.answer, args=(work,))
                rings.start()
                rings.join(PATIENCE)
            return 1

        assert gate.answer(work) == 2
