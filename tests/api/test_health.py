"""Ready means that database, migrations, Redis, workers and beat are well, and says which is not."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from agent_jobs.api import health
from agent_jobs.models import DutyRun, WorkerProcess

pytestmark = pytest.mark.django_db


@pytest.fixture
def bells(monkeypatch):
    """Sets how many bells of duties wait; None: Redis does not answer."""

    def set_waiting(count):
        monkeypatch.setattr(health.doorbell, "waiting", lambda queue: count)

    set_waiting(0)
    return set_waiting


def at_work(*, worked=1, done=1, rung=None):
    WorkerProcess.objects.create(name="w", worked_at=Now() - timedelta(seconds=worked))
    DutyRun.objects.create(duty="promote", done_at=Now() - timedelta(seconds=done))
    DutyRun.objects.create(duty=DutyRun.BELL, done_at=Now() - timedelta(seconds=done if rung is None else rung))


def asked(client):
    response = client.get("/health/ready")
    body = response.json()
    assert set(body) == {"status", "checks"}
    assert set(body["checks"]) == {"database", "migrations", "redis", "workers", "beat"}
    assert all(set(check) == {"ok", "detail"} for check in body["checks"].values())
    unwell = {name for name, check in body["checks"].items() if not check["ok"]}
    assert (response.status_code, body["status"]) == ((503, "unavailable") if unwell else (200, "ok"))
    return unwell


def test_live_needs_nothing(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        response = client.get("/health/live")

    assert (response.status_code, response.json()["status"]) == (200, "ok")


def test_all_is_well(client, bells):
    at_work()

    assert asked(client) == set()


def test_nobody_ever_worked(client, bells):
    assert asked(client) == {"workers", "beat"}


def test_a_beat_that_does_not_ring_is_named(client, bells):
    at_work(done=20)

    assert asked(client) == {"beat"}


def test_a_beat_that_does_not_ring_is_named_though_workers_do_its_duties(client, bells):
    at_work(done=1, rung=20)

    assert asked(client) == {"beat"}


def test_workers_that_leave_the_bells_lying_are_named(client, bells):
    at_work(worked=20, done=20)
    bells(7)

    assert asked(client) == {"workers"}


def test_workers_that_take_bells_but_do_no_duty_are_named(client, bells):
    at_work(worked=1, done=20)
    bells(7)

    assert asked(client) == {"workers"}


def test_a_redis_that_does_not_answer_is_named(client, bells):
    at_work()
    bells(None)

    assert asked(client) == {"redis"}


def test_a_database_that_does_not_answer_is_named(client, bells, monkeypatch):
    def fail(**kwargs):
        raise OperationalError("could not connect to db.internal as admin")

    monkeypatch.setattr("agent_jobs.reads.service_state.work_lately", fail)

    assert asked(client) >= {"database"}
    assert "db.internal" not in client.get("/health/ready").content.decode()


def test_migrations_that_are_missing_are_named(client, bells, monkeypatch):
    monkeypatch.setattr("agent_jobs.reads.service_state.is_migrated", lambda: False)

    assert "migrations" in asked(client)


def test_being_migrated_is_found_out_once(client, bells, django_assert_num_queries):
    at_work()
    client.get("/health/ready")

    with django_assert_num_queries(2):
        client.get("/health/ready")
