"""A stand-in for the messages' owner, for tests of the channels without the jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from agent_jobs.api.channel_callbacks import ChannelCallbacks
from channels_integration.messages import Delivery, Hold, Incoming, Outgoing

deliveries: list[Delivery] = []
heard: list[Incoming] = []
# What the owner does first; replaced by tests that want them to fail, wait or lock.
on_delivery: list[Callable[[Delivery], None]] = []
on_incoming: list[Callable[[Incoming], bool]] = []
# What holds a message; replaced by tests in which somebody keeps hours.
on_hours: list[Callable[[Outgoing, datetime], Hold | None]] = []
_lock = threading.Lock()


def take_delivery(delivery: Delivery) -> None:
    for effect in on_delivery:
        effect(delivery)
    with _lock:
        deliveries.append(delivery)


def hear(incoming: Incoming) -> bool:
    is_matched = all(effect(incoming) for effect in on_incoming)
    with _lock:
        heard.append(incoming)
    return is_matched


def hours_of(outgoing: Outgoing, written_at: datetime) -> Hold | None:
    return on_hours[0](outgoing, written_at) if on_hours else None


class Owner(ChannelCallbacks):
    """The jobs, but for what these tests look at."""

    def receive(self, incoming: Incoming) -> bool:
        return hear(incoming)

    def settle_delivery(self, delivery: Delivery) -> None:
        take_delivery(delivery)

    def hold(self, outgoing: Outgoing, written_at: datetime) -> Hold | None:
        return hours_of(outgoing, written_at)


def reset() -> None:
    for record in (deliveries, heard, on_delivery, on_incoming, on_hours):
        record.clear()  # type: ignore[attr-defined]
