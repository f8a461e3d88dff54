"""The lease keeper outlives outages of the database under one id, and ends its process on anything else."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from agent_jobs.models import WorkerProcess
from agent_jobs.states import JobStatus
from agent_jobs.worker.lease_keeper import Keeper
from infra import threads
from tests import rows
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@contextmanager
def read_only() -> Iterator[None]:
    """For every session but this thread's; theirs are terminated at the beginning and at the end."""
    quoted = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {quoted} SET default_transaction_read_only = on")
        cursor.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}")
        try:
            yield
        finally:
            cursor.execute(f"ALTER DATABASE {quoted} RESET default_transaction_read_only")
            cursor.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}")


def holds_its_lock(worker_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s",
            [WorkerProcess.LOCK_SPACE, worker_id],
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_after_a_read_only_spell_a_keeper_has_its_lock_again_and_renews(caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper("test")
    keeper.start()
    worker_id = keeper.worker_id
    assert worker_id is not None
    with read_only():
        wait_for(lambda: "read-only transaction" in caplog.text, what="the keeper has met the read-only database")
        WorkerProcess.objects.filter(pk=worker_id).update(lost_at="2026-01-01T00:00Z")
    wait_for(lambda: WorkerProcess.objects.filter(pk=worker_id, lost_at=None).exists(), what="it is registered again")
    wait_for(lambda: holds_its_lock(worker_id), what="it has its lock again")
    assert keeper.worker_id == worker_id
    job = rows.job(JobStatus.RUNNING, worker_id=worker_id, lease_token=3)
    keeper.hold(job.pk, 3)
    assert keeper.renew() == 1
    keeper.close()


def test_a_keeper_that_meets_anything_else_ends_its_process() -> None:
    program = """
        import logging, threading
        import django
        logging.basicConfig()
        django.setup()
        from agent_jobs.worker.lease_keeper import Keeper
        class Broken(Keeper):
            def _register(self):
                raise KeyError("unexpected")
        Broken("test").start()
        threading.Event().wait()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={"DJANGO_SETTINGS_MODULE": "config.settings", "AGENT_JOBS_DATA_DIR": "/dev/null/none"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == threads.EXIT_CODE, ended.stderr
    assert "lease-keeper failed" in ended.stderr
