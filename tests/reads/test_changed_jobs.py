from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs.models import Job
from agent_jobs.reads import changed_jobs
from agent_jobs.reads.changed_jobs import ChangesReader
from tests import rows

pytestmark = pytest.mark.django_db


def ids(reader):
    news = changed_jobs.read([reader])[reader]
    return set(news.job_ids) if news else set()


def change(job, at=None):
    Job.objects.filter(pk=job.pk).update(updated_at=at or Now())


def clock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def test_only_what_changes_from_now_on_is_told_and_once():
    before = rows.job()
    reader = ChangesReader("acme", None)
    assert ids(reader) == set()

    new, theirs = rows.job(), rows.job(org_id="rival")
    change(before, clock())

    assert ids(reader) == {before.pk, new.pk}
    assert ids(reader) == set()
    change(new, clock())
    assert ids(reader) == {new.pk}
    assert theirs.pk not in ids(ChangesReader("acme", 0))


def test_a_change_that_becomes_visible_late_is_told():
    reader = ChangesReader("acme", None)
    ids(reader)
    rows.job(updated_at=clock())
    ids(reader)

    late = rows.job(updated_at=clock() - timedelta(seconds=3))  # its transaction began before the other's

    assert ids(reader) == {late.pk}


def test_a_client_goes_on_where_it_was():
    first = ChangesReader("acme", None)
    ids(first)
    known = rows.job(updated_at=clock() - timedelta(seconds=30))
    missed = rows.job(updated_at=clock())
    until = int((clock() - timedelta(seconds=10)).timestamp() * 1_000_000)

    assert ids(ChangesReader("acme", until)) == {missed.pk}
    assert ids(ChangesReader("acme", 0)) == {known.pk, missed.pk}


def test_a_time_that_python_cannot_hold_stops_nothing():
    reader = ChangesReader("acme", 0)
    odd, fine = rows.job(), rows.job()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE agent_jobs_job SET updated_at = 'infinity' WHERE id = %s", [odd.pk])

    assert ids(reader) == {fine.pk}


def test_readers_of_several_organisations_are_served_together(django_assert_num_queries):
    ours, theirs = rows.job(), rows.job(org_id="rival")
    readers = [ChangesReader("acme", 0), ChangesReader("rival", 0), ChangesReader("nobody", 0)]

    with django_assert_num_queries(2):
        found = changed_jobs.read(readers)

    assert [set(found[one].job_ids) if found[one] else set() for one in readers] == [{ours.pk}, {theirs.pk}, set()]
