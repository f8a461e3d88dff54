"""The work of a worker process beside its turns."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from agent_jobs import tasks
from agent_jobs.catalog import model_keys
from tests.waiting import PATIENCE


def _worker(stopping: Callable[[float], bool]) -> SimpleNamespace:
    """As far as it is asked here; `stopping` waits so long, and says whether it is to stop."""
    return SimpleNamespace(keeper=SimpleNamespace(stopping=SimpleNamespace(wait=stopping), note_work=lambda: None))


def test_model_packages_are_imported_once_when_only_the_clock_has_rung_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, may_go_on, done = threading.Semaphore(0), threading.Semaphore(0), []

    def passes(seconds: float) -> bool:
        looked.release()
        assert may_go_on.acquire(timeout=PATIENCE)
        return False

    monkeypatch.setattr(tasks, "worker", _worker(passes))
    monkeypatch.setattr(model_keys, "preload", lambda: done.append("packages"))
    preloading = tasks.preload_when_idle()
    for bell in ("serve_messages", "promote"):
        assert looked.acquire(timeout=PATIENCE)
        assert done == []
        tasks._note(SimpleNamespace(name=f"agent_jobs.{bell}"))
        may_go_on.release()
    preloading.join(PATIENCE)
    assert not preloading.is_alive()
    assert done == ["packages"]


def test_a_process_that_stops_imports_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "worker", _worker(lambda seconds: True))
    monkeypatch.setattr(model_keys, "preload", pytest.fail)
    preloading = tasks.preload_when_idle()
    preloading.join(PATIENCE)
    assert not preloading.is_alive()
