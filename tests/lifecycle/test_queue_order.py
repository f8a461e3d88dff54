"""The place of a job in its queue: the same in Python, in the ORM and in SQL."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from agent_jobs.lifecycle import queue_order
from agent_jobs.models import Job
from tests import rows

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_step_of_priority_is_a_minute_in_the_queue() -> None:
    assert queue_order.place(NOW, 7) == NOW - timedelta(minutes=2)
    assert queue_order.place(NOW, 4) == NOW + timedelta(minutes=1)


@pytest.mark.django_db
@pytest.mark.parametrize("priority", [0, 4, 5, 9])
def test_the_orm_and_sql_agree_with_python(priority: int) -> None:
    job = rows.job(priority=priority)
    Job.objects.filter(pk=job.pk).update(queue_at=queue_order.ready_now())
    by_orm = Job.objects.values_list("queue_at", flat=True).get(pk=job.pk)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT statement_timestamp(), statement_timestamp() - {queue_order.HEAD_START}"
            " FROM agent_jobs_job j WHERE id = %s",
            [job.pk],
        )
        now, by_sql = cursor.fetchone()

    assert by_sql == queue_order.place(now, priority)
    assert by_orm is not None
    assert abs(by_orm - by_sql) < timedelta(seconds=50)  # another statement, so another time
