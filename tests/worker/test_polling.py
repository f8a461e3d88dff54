"""Polling: while nobody rings, a worker process looks by itself; while somebody does, it leaves that alone."""

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now

from agent_jobs import duty_rounds
from agent_jobs.duty_rounds import Duty
from agent_jobs.models import DutyRun
from agent_jobs.worker.polling import Poller
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


class Work:
    def __init__(self, fails: bool = False) -> None:
        self.done = threading.Semaphore(0)
        self.fails = fails

    def __call__(self) -> None:
        self.done.release()
        if self.fails:
            raise OperationalError("gone")
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def is_done(self) -> bool:
        return self.done.acquire(timeout=PATIENCE)


def rung(seconds_ago: float) -> None:
    """A bell of the future is one that is still heard, however long a busy machine takes until it is asked for."""
    DutyRun.objects.update_or_create(duty=DutyRun.BELL, defaults={"done_at": Now() - timedelta(seconds=seconds_ago)})


def test_nothing_is_done_while_bells_are_heard() -> None:
    rung(-600)
    assert Poller([Work()], stopping=threading.Event()).tick() == 0


@pytest.mark.parametrize("last", [3, None])
def test_everything_is_done_while_no_bell_is_heard(last: float | None) -> None:
    if last is not None:
        rung(last)
    works = [Work(), Work(fails=True), Work()]
    poller = Poller(works, stopping=threading.Event())
    assert poller.tick() == 3
    assert all(work.is_done() for work in works)
    assert poller.tick() == 3  # what broke once is tried again
    rung(-600)
    assert poller.tick() == 0
    poller.close()


def test_a_process_that_starts_before_the_first_bell_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    poller = Poller([], stopping=threading.Event())
    poller.tick()
    rung(0)
    poller.tick()
    assert caplog.messages == []


def test_a_process_that_hears_no_bell_from_its_start_says_so_once_its_time_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    poller = Poller([], stopping=threading.Event(), first_bell_seconds=0)
    poller.tick()
    poller.tick()
    assert caplog.messages == ["no Celery messages arrive: polling the database every second"]
    rung(0)
    poller.tick()
    poller.tick()
    assert caplog.messages[1:] == ["Celery messages arrive again: polling stops"]


def test_only_the_bell_itself_counts_not_the_duty_that_polling_does() -> None:
    duty_rounds.serve("polling-test", [Duty("none", lambda: 1, bell="polling-test")])
    assert not DutyRun.objects.filter(duty=DutyRun.BELL).exists()
    duty_rounds.serve("polling-test-rung", [Duty("none", lambda: 1, bell="polling-test-rung")], is_rung=True)
    assert DutyRun.objects.filter(duty=DutyRun.BELL).exists()


def test_it_looks_every_second_until_the_process_stops() -> None:
    work, stopping = Work(), threading.Event()
    poller = Poller([work], stopping=stopping)
    poller.start()
    assert work.is_done()
    assert work.is_done()
    poller.close()
    assert not any(thread.is_alive() for thread in poller._threads)


def test_closing_waits_for_work_that_a_look_begins_in_the_meantime() -> None:
    is_looking, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    class SlowToLook(Poller):
        def tick(self) -> int:
            is_looking.set()
            self._stopping.wait(PATIENCE)
            threading.Timer(0.1, go_on.set).start()
            return super().tick()

    poller = SlowToLook([lambda: go_on.wait(PATIENCE) and ended.set()], stopping=threading.Event())
    poller.start()
    assert is_looking.wait(PATIENCE)
    poller.close()
    assert ended.is_set()
