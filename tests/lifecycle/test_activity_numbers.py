"""Each activity has a number within its job: 1, 2, 3 ... in the order of commits."""

import threading
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from uuid_utils.compat import uuid7

from agent_jobs import lifecycle
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import Settlement
from agent_jobs.models import Activity, Job
from agent_jobs.states import JobStatus, TaskStatus
from tests import factories, rows
from tests.races import in_threads, is_anybody_locked_out
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
_INSERT = "INSERT INTO agent_jobs_activity (org_id, job_id, code) VALUES ('acme', %s, %s)"


def numbers(job: Job) -> list[tuple[int | None, str]]:
    return list(Activity.objects.filter(job=job).order_by("number").values_list("number", "code"))


def test_numbers_begin_at_1_in_every_job() -> None:
    first, second = rows.job(), rows.job()
    for job, code in ((first, "a"), (second, "b"), (first, "c")):
        factories.activity(job, code)
    assert numbers(first) == [(1, "a"), (2, "c")]
    assert numbers(second) == [(1, "b")]


def test_an_activity_of_no_job_has_no_number() -> None:
    rows.org()
    assert [Activity.objects.create(org_id="acme", code="x").number for _ in range(2)] == [None, None]
    assert list(Activity.objects.values_list("number", flat=True)) == [None, None]


def test_a_transaction_that_is_rolled_back_leaves_no_gap() -> None:
    job = rows.job()
    with transaction.atomic():
        factories.activity(job, "undone")
        transaction.set_rollback(True)
    factories.activity(job, "done")
    assert numbers(job) == [(1, "done")]


def test_one_statement_numbers_all_its_activities() -> None:
    job = rows.job()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO agent_jobs_activity (org_id, job_id, code) SELECT 'acme', %s, n::text"
            " FROM generate_series(1, 5) n",
            [job.pk],
        )
    assert numbers(job) == [(number, str(number)) for number in range(1, 6)]


def test_a_number_is_given_once() -> None:
    job = rows.job()
    factories.activity(job)
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.activity(job, number=1)


def test_the_end_of_a_job_comes_after_everything_else_of_its_settlement() -> None:
    rows.job()
    (claimed,) = lifecycle.settle_and_claim(
        [], lane="messages", turn=lifecycle.OrgRotation(), worker_id=7, batch=1
    ).claimed
    note: dict[str, Any] = {"status": "completed", "note": ""}
    ended = Settlement(
        id=claimed.id,
        token=claimed.token,
        task_id=claimed.task_id,
        status=JobStatus.COMPLETED,
        task_status=TaskStatus.COMPLETED,
        # Ids that sort the other way round.
        notes=[{**note, "id": str(id_), "code": f"note.{place}"} for place, id_ in enumerate((uuid7(), UUID(int=1)))],
    )
    lifecycle.settle_and_claim([ended])
    assert numbers(Job.objects.get(pk=claimed.id)) == [
        (1, "job.started"),
        (2, "note.0"),
        (3, "note.1"),
        (4, "job.completed"),
    ]


def test_the_migration_numbers_what_is_there_already() -> None:
    migration = import_module("agent_jobs.migrations.0018_activity_numbers")
    first, second = rows.job(), rows.job()
    for job, code in ((first, "a"), (second, "x"), (first, "b"), (first, "c")):
        factories.activity(job, code)
    Activity.objects.create(org_id="acme", code="of no job")
    before = numbers(first), numbers(second)
    Activity.objects.update(number=None)
    with connection.cursor() as cursor:
        cursor.execute(migration.NUMBER_WHAT_IS_THERE)
    assert (numbers(first), numbers(second)) == before
    assert Activity.objects.get(code="of no job").number is None


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_a_later_writer_waits_for_the_commit_of_an_earlier_one(self) -> None:
        job = rows.job()
        is_written, may_commit = threading.Event(), threading.Event()

        def early() -> None:
            with transaction.atomic():
                factories.activity(job, "early")
                is_written.set()
                assert may_commit.wait(PATIENCE)

        def late() -> None:
            assert is_written.wait(PATIENCE)
            factories.activity(job, "late")

        def watch() -> None:
            assert is_written.wait(PATIENCE)
            wait_for(is_anybody_locked_out, what="the late writer waits for the lock")
            assert numbers(job) == []
            may_commit.set()

        in_threads(early, late, watch)
        assert numbers(job) == [(1, "early"), (2, "late")]

    def test_many_writers_leave_no_gap_and_no_error(self) -> None:
        job = rows.job()

        def write() -> None:
            for _ in range(20):
                factories.activity(job, "x")

        in_threads(*[write] * 8)
        assert [number for number, _ in numbers(job)] == list(range(1, 161))

    def test_a_move_and_a_bare_insert_do_not_meet(self) -> None:
        job = rows.job(JobStatus.RUNNING)

        def insert() -> None:
            with connection.cursor() as cursor:
                for number in range(20):
                    cursor.execute(_INSERT, [job.pk, f"n{number}"])

        in_threads(insert, insert, lambda: lifecycle.move_one(Event.CANCEL, job, actor=rows.TESTER))
        assert [number for number, _ in numbers(job)] == list(range(1, 42))
