"""Turns announced events into deliveries, and sends those that are due to webhook endpoints."""

import threading
import time

from agent_jobs import duty_rounds
from agent_jobs.lifecycle import queues
from agent_jobs.webhooks import expansion, sending

_SLICE_SECONDS = 10.0
_senders: list[sending.DeliverySender] = []


def serve_slice(*, stop: threading.Event = duty_rounds.STOPPING, seconds: float = _SLICE_SECONDS) -> int:
    """The duty: expand and send for `seconds`, and ring again if work is left. Returns how much was done.

    Two threads of a process never call it at once: `duty_rounds.serve` runs one thread per doorbell.
    """
    if not _senders:
        _senders.append(sending.DeliverySender())
    done, is_left = sending.deliver(
        _senders[0], expand=expansion.expand_some, until=time.monotonic() + seconds, stop=stop
    )
    if is_left and not stop.is_set():
        queues.ring_duty("webhooks")
    return done
