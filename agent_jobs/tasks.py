"""Celery entries. Each calls one service and decides nothing: it may run twice, at once, or never.

The signals of Celery start and stop this process's worker; `worker.lease_keeper` says what a stop does.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import shared_task
from celery.signals import task_postrun, task_prerun, worker_init, worker_shutdown, worker_shutting_down

from agent_jobs import duty_rounds
from agent_jobs.duties import duty_table
from agent_jobs.lifecycle import queues
from agent_jobs.turns import calls_in_flight
from agent_jobs.worker import command_readiness, loop, watchdog
from agent_jobs.worker.lease_keeper import Keeper
from agent_jobs.worker.polling import Poller
from channels_integration import tasks as channels
from infra import meters


def _end() -> None:
    """Exit without waiting: Python would wait for Celery's threads, which cannot be stopped in the middle of a call."""
    meters.flush()
    os._exit(0)


worker = loop.Worker(Keeper(on_overtime=_end))
# The functions that polling calls in place of doorbells. Queues and deliveries run several at once, up to a limit.
_ONE_EACH: tuple[Callable[[], int], ...] = (
    *(partial(duty_table.serve, bell) for bell in duty_table.BELLS if duty_table.is_polled(bell)),
    channels.route,
)
_SEVERAL: tuple[Callable[[], int], ...] = (channels.deliver, *(partial(worker.serve, lane) for lane in queues.LANES))
poller = Poller((*_ONE_EACH, *_SEVERAL * 3), stopping=worker.keeper.stopping)


@worker_init.connect
def _start(**_: object) -> None:
    command_readiness.require()
    watchdog.limit()
    worker.watchdog.start()
    worker.keeper.start()
    poller.start()


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    worker.keeper.stop_claims()
    duty_rounds.STOPPING.set()


@worker_shutdown.connect
def _close(**_: object) -> None:
    poller.close()
    worker.keeper.close()


@task_prerun.connect
def _note(**_: object) -> None:
    worker.keeper.note_work()


@task_postrun.connect
def _give_back(**_: object) -> None:
    calls_in_flight.give_back()


def _register_lane_entry(lane: str) -> None:
    @shared_task(name=queues.entry_of(lane), ignore_result=True)
    def serve_lane() -> int:
        return worker.serve(lane)


def _duty_entry(bell: str) -> Any:
    @shared_task(name=f"agent_jobs.{bell}", ignore_result=True)
    def serve_duties() -> int:
        return duty_table.serve(bell, is_rung=True)

    return serve_duties


for _lane in queues.LANES:
    _register_lane_entry(_lane)
DUTY_ENTRIES = {bell: _duty_entry(bell) for bell in duty_table.BELLS}
