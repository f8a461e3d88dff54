"""Celery entries. Each calls one service and decides nothing: it may run twice, at once, or never."""

import logging
import threading
import time
from collections.abc import Callable

from celery import shared_task
from celery.signals import worker_shutting_down

from channels_integration import inbound, outbox, send_loop
from infra import database
from infra.concurrency import ConcurrencyLimit

log = logging.getLogger(__name__)
# A worker entry works for this long, then others get the thread.
_SLICE_SECONDS = 10.0
_deliverers = ConcurrencyLimit(3)
_routers = ConcurrencyLimit(2)
_stopping = threading.Event()


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    _stopping.set()


@shared_task(name=outbox.TASK, ignore_result=True)
def deliver() -> int:
    return _serve(outbox.QUEUE, _deliverers, lambda: send_loop.deliver_due(until=_until(), stop=_stopping))


@shared_task(name=inbound.TASK, ignore_result=True)
def route() -> int:
    return _serve(inbound.QUEUE, _routers, lambda: inbound.route_due(until=_until(), stop=_stopping))


def _until() -> float:
    return time.monotonic() + _SLICE_SECONDS


def _serve(queue: str, limit: ConcurrencyLimit, work: Callable[[], int]) -> int:
    """After a database outage the next sweep rings again and opens a new session."""
    with database.outage_survived(log, f"queue {queue}"):
        return limit.answer(work)
    return 0
