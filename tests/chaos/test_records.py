"""The harness reads the rows and `verify_audit` at the end of a run, and finds faults that are planted there."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from agent_jobs import jobs, lifecycle
from agent_jobs.audit import audit_log
from agent_jobs.legal_moves import Event
from agent_jobs.specs import Actor
from tests import rows
from tests.chaos import records
from tests.chaos.checker import Breach, check
from tests.chaos.ledgers import Chain

pytestmark = pytest.mark.django_db
ANN = Actor("user", "ann")


@pytest.fixture(autouse=True)
def canceled_job():
    rows.job_type()
    job = jobs.create("acme", rows.spec(tags=["job-1"]), actor=ANN)
    return jobs.cancel("acme", job.pk, actor=ANN)


@contextmanager
def without_triggers() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield
        cursor.execute("SET LOCAL session_replication_role = origin")


def look():
    out = io.StringIO()
    with suppress(CommandError):
        call_command("verify_audit", stdout=out)
    chains = records.chains(out.getvalue(), records.unsealed(connection.connection))
    report = check([], [], records.recorded(connection.connection), chains)
    return chains, report.examples.get(Breach.AUDIT, [])


def test_an_audit_that_is_whole_is_no_breach():
    audit_log.seal()

    assert look() == ([Chain("acme", 2)], [])


def test_an_entry_that_is_not_sealed_is_seen_at_once():
    audit_log.seal()
    audit_log.record("acme", "thing.done", "x", actor=ANN)

    assert look()[1] == ["the chain of acme: 1 entries are in no seal"]


def test_an_entry_that_was_changed_is_seen():
    audit_log.seal()
    with without_triggers(), connection.cursor() as cursor:
        cursor.execute("UPDATE agent_jobs_auditentry SET actor = 'user:bob' WHERE action = 'job.canceled'")

    (chain,), found = look()
    assert "was altered" in chain.problem
    assert found == [f"the chain of acme: {chain.problem}"]


def test_a_move_past_the_audit_is_seen(canceled_job):
    with without_triggers():
        lifecycle.move_one(Event.RETRY, canceled_job, actor=ANN, retry_count=1, finished_at=None)
    audit_log.seal()

    assert look()[1] == [
        "job-1: went from CANCELED to WAITING, and no entry says so",
        "job-1: is WAITING, and by the audit CANCELED",
    ]


def test_a_command_that_says_nothing_of_the_audit_is_no_clean_audit():
    with pytest.raises(ValueError, match="not verified: Traceback"):
        records.chains("Traceback …", {})
