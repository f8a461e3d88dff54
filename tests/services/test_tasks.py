"""What a worker process does beside its turns."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from agent_jobs import tasks
from agent_jobs.services import model_access, rehearsal
from tests.waiting import PATIENCE


def _worker(stopping: Callable[[float], bool]) -> SimpleNamespace:
    """As far as it is asked here; `stopping` waits so long, and says whether it is to stop."""
    return SimpleNamespace(keeper=SimpleNamespace(stopping=SimpleNamespace(wait=stopping), note_work=lambda: None))


def test_what_turns_need_is_gone_through_when_nothing_but_the_clock_has_rung_for_a_while_and_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, may_go_on, done = threading.Semaphore(0), threading.Semaphore(0), []
    stops = False

    def passes(seconds: float) -> bool:
        looked.release()
        assert may_go_on.acquire(timeout=PATIENCE)
        return stops

    monkeypatch.setattr(tasks, "worker", _worker(passes))
    monkeypatch.setattr(model_access, "preload", lambda: done.append("packages"))
    monkeypatch.setattr(rehearsal, "rehearse", lambda: done.append("plans"))
    rehearsing = tasks.rehearse_when_idle()
    once = ["packages", "plans"]
    for bell, done_before in (("serve_messages", []), ("promote", []), ("promote", once), ("promote", once)):
        assert looked.acquire(timeout=PATIENCE)
        assert done == done_before
        tasks._note(SimpleNamespace(name=f"agent_jobs.{bell}"))
        may_go_on.release()
    assert looked.acquire(timeout=PATIENCE)
    assert done == 2 * once
    stops = True
    may_go_on.release()
    rehearsing.join(PATIENCE)
    assert not rehearsing.is_alive()


def test_a_process_that_is_to_stop_goes_through_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "worker", _worker(lambda seconds: True))
    monkeypatch.setattr(model_access, "preload", pytest.fail)
    rehearsing = tasks.rehearse_when_idle()
    rehearsing.join(PATIENCE)
    assert not rehearsing.is_alive()
