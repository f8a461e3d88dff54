"""Fixtures of all tests. `services_plugin.py` starts the servers of the run."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

from tests import emptying, migrated_template, replay, unordered
from tests.fakes.webhook import FakeReceiver
from tests.waiting import PATIENCE
from tests.web_processes import WebProcess

# A machine that is slow for a moment says nothing about an example.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

# Each test client makes a handler of its own, and WhiteNoise would look through all apps for files each time.
settings.WHITENOISE_AUTOREFRESH = True
TransactionTestCase._fixture_teardown = lambda self: emptying.empty()
# A new session has to look up every table again; `empty` leaves this one as if it were new.
TransactionTestCase._should_reload_connections = lambda self: False
unordered.reverse()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, django_db_blocker: Any) -> None:
    """A test may have one transaction open for as long as it lasts, and its threads wait for each other's: the
    service's limits of 5 s and 30 s would end that on a busy machine. Processes of live tests keep them."""
    options = connection.settings_dict["OPTIONS"]
    limits, patience = r"(statement|lock|idle_in_transaction_session)_timeout=\w+", rf"\1_timeout={PATIENCE:g}s"
    options["options"], found = re.subn(limits, patience, options["options"])
    assert found == 3
    if {"PYTEST_XDIST_WORKER", migrated_template.VARIABLE} <= set(os.environ):
        with django_db_blocker.unblock():
            migrated_template.share()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Tests that commit leave the database empty by TRUNCATE, which the audit's tables refuse."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE agent_jobs_auditentry DISABLE TRIGGER audit_entries_are_not_truncated")
        cursor.execute("ALTER TABLE agent_jobs_auditseal DISABLE TRIGGER audit_seals_are_not_truncated")


@pytest.fixture(scope="session")
def make_home() -> Iterator[Callable[[], Path]]:
    """Makes folders for servers of a test's own, which PostgreSQL's account can reach also as root.

    Folders of pytest's (`tmp_path`) cannot be used so: every other run on the machine closes them to other accounts
    again, and what then goes to /var/tmp instead stays there.
    """
    made: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="aj-home-", dir="/tmp"))
        folder.chmod(0o711)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(make_home: Callable[[], Path]) -> Path:
    """One such folder."""
    return make_home()


@pytest.fixture(scope="session")
def web_process(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """One for all tests of the group "web process"."""
    process = WebProcess(tmp_path_factory.mktemp("web"))
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    """A server that takes webhooks, on loopback."""
    with FakeReceiver() as server:
        yield server


@pytest.fixture(autouse=True)
def patient_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis counts as away after a fraction of a second, and a busy machine is as slow as that now and then: tests that
    count bells or requests would fail. Those about a Redis that keeps quiet state the service's own time-outs."""
    from infra import redis

    for line in (redis.quick, redis.background):
        monkeypatch.setattr(line, "timeout_seconds", PATIENCE)


@pytest.fixture(autouse=True)
def replayed_by_a_stranger(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[replay.Request]]:
    """Repeats the test's requests with a stranger's token after it, before anything is rolled back."""
    for database in {"db", "transactional_db"} & set(request.fixturenames):
        request.getfixturevalue(database)  # what is set up first is undone last
    with replay.recording() as asked:
        yield asked
    monkeypatch.undo()
    assert not (breaches := replay.replay(asked)), breaches
