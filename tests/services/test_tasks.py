"""What a worker process does beside its turns."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from agent_jobs import tasks
from agent_jobs.services import model_access
from tests.waiting import PATIENCE


def _worker(stopping: Callable[[float], bool]) -> SimpleNamespace:
    """As far as it is asked here; `stopping` waits so long, and says whether it is to stop."""
    return SimpleNamespace(keeper=SimpleNamespace(stopping=SimpleNamespace(wait=stopping), note_work=lambda: None))


def test_what_models_need_is_read_when_nothing_but_the_clock_has_rung_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, may_go_on, is_read = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def passes(seconds: float) -> bool:
        looked.release()
        assert may_go_on.acquire(timeout=PATIENCE)
        return False

    monkeypatch.setattr(tasks, "worker", _worker(passes))
    monkeypatch.setattr(model_access, "preload", is_read.set)
    reading = tasks.read_models()
    for name in ("agent_jobs.serve_messages", "agent_jobs.promote"):
        assert looked.acquire(timeout=PATIENCE)
        assert not is_read.is_set()
        tasks._note(SimpleNamespace(name=name))
        may_go_on.release()
    assert is_read.wait(PATIENCE)
    reading.join(PATIENCE)


def test_a_process_that_is_to_stop_reads_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "worker", _worker(lambda seconds: True))
    monkeypatch.setattr(model_access, "preload", pytest.fail)
    reading = tasks.read_models()
    reading.join(PATIENCE)
    assert not reading.is_alive()
