"""Rows by statements that are planned once: what Django would have made of them."""

import pytest
from django.db import connection, transaction
from uuid_utils.compat import uuid7

from agent_jobs.models import Activity, Job
from infra import prepared_sql
from tests import rows

pytestmark = pytest.mark.django_db


def test_an_instance_is_what_django_would_have_read() -> None:
    job = rows.job(params={"a": [1, None, "ü"]}, tags=["x", "y"])
    Job.objects.filter(pk=job.pk).update(channel_data={"team_id": "T0"}, priority=3)
    found = prepared_sql.instance(Job, "id = %(id)s", {"id": job.pk})
    expected = Job.objects.get(pk=job.pk)
    assert found is not None
    for field in Job._meta.concrete_fields:
        assert getattr(found, field.attname) == getattr(expected, field.attname), field.attname
    found.result = "changed"
    found.save(update_fields=["result"])
    assert Job.objects.get(pk=job.pk).result == "changed"


def test_there_is_no_instance_where_there_is_no_row() -> None:
    assert prepared_sql.instance(Job, "id = %(id)s", {"id": uuid7()}) is None


def test_the_first_by_an_order_is_locked() -> None:
    jobs = [rows.job() for _ in range(3)]
    with transaction.atomic():
        where = {"ids": [job.pk for job in jobs]}
        found = prepared_sql.instance(Job, "id = ANY(%(ids)s) ORDER BY id DESC", where, and_then="FOR UPDATE")
        assert found == max(jobs, key=lambda job: job.pk)
        with connection.cursor() as cursor:
            cursor.execute("SELECT xmax <> '0' FROM agent_jobs_job WHERE id = %s", [found.pk])
            assert cursor.fetchone() == (True,)


def test_numbers_and_moments_of_other_models_come_as_django_reads_them() -> None:
    job = rows.job()
    Activity.objects.create(org_id=job.org_id, job_id=job.pk, code="x", consumed_credits="1.25", input={"a": 1})
    found = prepared_sql.instance(Activity, "job_id = %(job)s AND code = 'x'", {"job": job.pk})
    assert found is not None
    expected = Activity.objects.get(pk=found.pk)
    assert (found.consumed_credits, found.created_at, found.input) == (
        expected.consumed_credits,
        expected.created_at,
        {"a": 1},
    )
