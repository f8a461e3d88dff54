"""Celery entries. Each calls one service and decides nothing: it may run twice, at once, or never."""

import time

from celery import shared_task

from channels_integration import inbound, outbox
from channels_integration.gate import Gate

# A bell is answered for this long, then others get the thread.
_SLICE_SECONDS = 10.0
_deliverers = Gate(3)
_routers = Gate(1)


@shared_task(name=outbox.TASK, ignore_result=True)
def deliver() -> int:
    return _deliverers.answer(lambda: outbox.deliver_due(until=time.monotonic() + _SLICE_SECONDS))


@shared_task(name=inbound.TASK, ignore_result=True)
def route() -> int:
    return _routers.answer(lambda: inbound.route_due(until=time.monotonic() + _SLICE_SECONDS))
