"""When turns are begun: who waits outside, or is done, makes room; who comes back is waited for."""

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


def test_whoever_comes_back_waits_for_nobody_and_is_waited_for_until_the_turn_is_over() -> None:
    pace = Pace(PATIENCE)
    pace.enter(waits=False)
    is_back, may_leave = threading.Event(), threading.Event()
    has_next: list[bool] = []

    def go_on_with_a_turn() -> None:
        pace.come_back()
        is_back.set()
        assert may_leave.wait(PATIENCE)
        has_next.append(pace.enter(waits=False))
        pace.leave()

    going_on = threading.Thread(target=go_on_with_a_turn)
    going_on.start()
    assert is_back.wait(PATIENCE)
    pace.leave()
    assert not pace.enter(waits=False), "the other one is still at it"
    pace.come_back()
    may_leave.set()
    going_on.join(PATIENCE)
    assert has_next == [False], "whoever has come back waits for the next turn as anybody"
    assert in_threads(lambda: pace.enter(waits=False)) == [False]
    assert pace.enter(waits=False), "nobody else is at it"
    pace.leave()
    assert in_threads(lambda: pace.enter(waits=False)) == [True]


def test_a_beginning_makes_room_for_those_that_come_back_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_jobs.services.pace._PATIENCE_SECONDS", 0.2)
    pace = Pace(0.1)
    is_back, is_over = threading.Event(), threading.Event()

    def come_back_all_the_time() -> None:
        while not is_over.wait(0.01):
            pace.come_back()
            is_back.set()

    def begin() -> float:
        assert is_back.wait(PATIENCE)
        asked_at = time.monotonic()
        pace.enter(waits=True)
        is_over.set()
        return time.monotonic() - asked_at

    assert in_threads(come_back_all_the_time, begin)[1] > 0.2 - 0.01


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
