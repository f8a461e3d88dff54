"""The watchdog replaces a process in which a turn will not end, and leaves all others alone."""

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_django.fixtures import Settings

from agent_jobs.worker import watchdog
from agent_jobs.worker.lease_keeper import Keeper
from agent_jobs.worker.watchdog import Watchdog
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "_COMPUTING_SECONDS", 0.05)


@contextmanager
def _turn(dog: Watchdog, *, seconds_left: float, is_computing: bool) -> Iterator[None]:
    """A turn of another thread, under way for as long as the block."""
    begun, stop = threading.Event(), threading.Event()

    def work() -> None:
        with dog.turn(uuid4(), seconds_left=seconds_left):
            begun.set()
            while is_computing and not stop.is_set():
                pass
            stop.wait()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _leaves(dog: Watchdog, left: list[bool], *, within: float) -> bool:
    until = time.monotonic() + within
    while not left and time.monotonic() < until:
        dog.look()
        threading.Event().wait(0.02)
    return bool(left)


@pytest.mark.parametrize(
    ("seconds_left", "is_computing", "turn_seconds", "leaves"),
    [
        (0.1, True, 900, True),  # computes on after its deadline: it takes the others' time
        (0.1, False, 900, False),  # waits on, for a slow model perhaps: it harms nobody
        (900, True, 900, False),  # computes, and may
        (900, False, 0.1, True),  # longer than any turn may take
    ],
)
def test_the_process_leaves_for_a_turn_that_will_not_end(
    settings: Settings, seconds_left: float, is_computing: bool, turn_seconds: float, leaves: bool
) -> None:
    settings.TURN_SECONDS = turn_seconds
    left: list[bool] = []
    dog = Watchdog(Keeper("test"), leave=lambda: left.append(True))
    with _turn(dog, seconds_left=seconds_left, is_computing=is_computing):
        assert _leaves(dog, left, within=PATIENCE if leaves else 0.6) == leaves


def test_a_job_whose_turn_will_not_end_is_not_given_back_as_if_it_had_been_interrupted(
    settings: Settings,
) -> None:
    settings.TURN_SECONDS = 0.01
    keeper = Keeper("test")
    dog = Watchdog(keeper, leave=lambda: None)
    stuck, other = uuid4(), uuid4()
    keeper.hold(stuck, 1)
    keeper.hold(other, 1)
    with dog.turn(stuck, seconds_left=9):
        threading.Event().wait(0.1)
        dog.look()
    assert set(keeper.held) == {other}


def test_it_leaves_once(settings: Settings) -> None:
    settings.TURN_SECONDS = 0.01
    left: list[bool] = []
    dog = Watchdog(Keeper("test"), leave=lambda: left.append(True))
    with _turn(dog, seconds_left=9, is_computing=False), _turn(dog, seconds_left=9, is_computing=False):
        assert _leaves(dog, left, within=PATIENCE)
        dog.look()
    assert left == [True]


def test_a_turn_that_has_ended_is_forgotten(settings: Settings) -> None:
    settings.TURN_SECONDS = 0.01
    left: list[bool] = []
    dog = Watchdog(Keeper("test"), leave=lambda: left.append(True))
    with _turn(dog, seconds_left=9, is_computing=False):
        pass
    assert not _leaves(dog, left, within=0.3)


def _ends(program: str, *, lease_seconds: int) -> tuple[int, str, float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={
            "DJANGO_SETTINGS_MODULE": "tests.quick_settings",
            "TEST_LEASE_SECONDS": str(lease_seconds),
            "AGENT_JOBS_DATA_DIR": "/dev/null/none",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stderr, time.monotonic() - began


def test_a_turn_that_holds_the_interpreter_ends_the_process_after_a_lease() -> None:
    code, told, seconds = _ends(
        """
        import django
        django.setup()
        from agent_jobs.worker.watchdog import Watchdog
        from agent_jobs.worker.lease_keeper import Keeper
        from tests.chaos.poison import POISONS
        Watchdog(Keeper("test")).start()
        POISONS["hold"]()               # before its first look
        """,
        lease_seconds=3,
    )
    assert code == 1
    assert "Timeout" in told
    assert "_hold" in told, "where it hung is not told"
    assert seconds > 3


def test_a_leaving_process_lets_other_turns_end_and_then_exits_though_a_thread_computes_on() -> None:
    code, told, _ = _ends(
        """
        import django, signal, sys, threading, time
        django.setup()
        from uuid import uuid4
        from agent_jobs.worker import watchdog
        from agent_jobs.worker.lease_keeper import Keeper
        from tests.chaos.poison import POISONS

        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append("asked to stop"))
        watchdog._GRACE_SECONDS, watchdog._DELIVERY_SECONDS = 0.1, 0.5
        keeper = Keeper("test")
        dog = watchdog.Watchdog(keeper)
        dog.start()
        stuck, other = uuid4(), uuid4()

        def loop():
            keeper.hold(stuck, 1)
            with dog.turn(stuck, seconds_left=0.1):
                POISONS["loop"]()

        threading.Thread(target=loop).start()
        keeper.hold(other, 1)
        while not keeper.is_stopping:
            threading.Event().wait(0.05)
        threading.Event().wait(1)       # the other turn takes longer than the process needs to leave
        print(*asked, "and the other turn ended", file=sys.stderr, flush=True)
        keeper.let_go(other)
        """,
        lease_seconds=30,
    )
    assert code == 1
    assert "asked to stop and the other turn ended" in told
