"""How many turns are begun at once: who waits outside, or is done, makes room, and nobody takes two places."""

import threading
import time
from typing import Any

import pytest

from agent_jobs import llm
from agent_jobs.models import Job
from agent_jobs.runners.base import Run
from agent_jobs.services import turns
from agent_jobs.services.execution import Worker
from agent_jobs.services.pace import PACE, Pace
from tests.agents import parts
from tests.agents.parts import Actor
from tests.races import in_threads
from tests.waiting import PATIENCE


def test_a_thread_has_one_place_however_often_it_asks_and_gives_it_back_once() -> None:
    pace = Pace(PATIENCE)
    assert [pace.enter(waits=False), pace.enter(waits=True)] == [True, True]
    assert in_threads(lambda: pace.enter(waits=False)) == [False]
    pace.leave()
    pace.leave()
    assert in_threads(lambda: pace.enter(waits=False)) == [True]


def test_whoever_waits_comes_in_when_another_leaves() -> None:
    pace = Pace(2 * PATIENCE)
    pace.enter(waits=False)
    is_asking, came_in = threading.Event(), threading.Event()

    def wait_outside() -> None:
        is_asking.set()
        pace.enter(waits=True)
        came_in.set()

    waiting = threading.Thread(target=wait_outside)
    waiting.start()
    assert is_asking.wait(PATIENCE)
    assert not came_in.is_set()
    pace.leave()
    assert came_in.wait(PATIENCE)
    waiting.join(PATIENCE)


def test_whoever_is_slow_is_not_waited_for_for_long() -> None:
    pace = Pace(0.2)
    pace.enter(waits=False)
    began = time.monotonic()
    assert in_threads(*[lambda: pace.enter(waits=True)] * 3) == [True] * 3
    assert time.monotonic() - began > 3 * 0.2 - 0.01, "they come in one after the other all the same"


@pytest.mark.django_db(transaction=True)
def test_a_process_claims_no_more_turns_than_it_can_begin_and_they_wait_for_their_models_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for_a_place, begun, go_on = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    together = threading.Barrier(4)
    enter, with_journal = PACE.enter, turns.with_journal

    def enters(*, waits: bool) -> bool:
        asked_for_a_place.release()
        return enter(waits=waits)

    def begins(claim: Any, run: Run) -> Any:
        begun.release()
        assert go_on.wait(PATIENCE)
        return with_journal(claim, run)

    def thinks(turn: llm.Turn) -> llm.Reply:
        together.wait(PATIENCE)
        return llm.Reply(text="How are you?")

    monkeypatch.setattr(PACE, "_slow_seconds", 2 * PATIENCE)
    monkeypatch.setattr(PACE, "enter", enters)
    monkeypatch.setattr(turns, "with_journal", begins)
    for _ in range(4):
        parts.job()
    worker = Worker(parts.QuietKeeper())
    claimed = []

    def look() -> None:
        for semaphore, count in ((asked_for_a_place, 4), (begun, 1)):
            for _ in range(count):
                assert semaphore.acquire(timeout=PATIENCE)
        claimed.append(Job.objects.filter(lease_until__isnull=False).count())
        go_on.set()

    with parts.playing(Actor(*[thinks] * 4)):
        in_threads(look, *[lambda: worker.serve("agents")] * 4)
    assert claimed == [1]
    assert Job.objects.filter(waiting_for="reply").count() == 4
