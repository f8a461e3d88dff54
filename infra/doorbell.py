"""Rings for workers: puts a Celery message that says "there is work" into a queue. The rows say what the work is.

A doorbell may be lost: the sweeps ring again every second. A few messages per queue are enough, because a worker that
takes one works until nothing is left.

Every job waits for a doorbell between its commit and its start. So Celery makes the message once, in memory, and each
ring pushes a copy in one round trip. Calling `send_task` for each ring took 420 µs of CPU instead of 85, and made the
start of a job (p50) 1.3 times as long. `tests/live` fails if a new kombu stores its messages in another form.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from celery import current_app
from kombu import Connection
from kombu.utils.json import dumps

from infra import redis

log = logging.getLogger(__name__)
ENOUGH_BELLS = 4
# Pushes a message ARGV[2] times, but never lets more than ARGV[1] wait.
_RING = """
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
for _ = 1, math.min(tonumber(ARGV[2]), room) do redis.call('LPUSH', KEYS[1], ARGV[3]) end
return room
"""
_here = threading.local()
_making = threading.Lock()


@contextmanager
def background_timeout() -> Iterator[None]:
    """This thread's rings wait up to 2 s instead of 0.2: for sweeps, which must reach Redis over a slow network too."""
    _here.line = redis.background
    try:
        yield
    finally:
        _here.line = redis.quick


def ring(queue: str, task_name: str, *, times: int = 1) -> None:
    """Ask `times` workers to run `task_name`, fewer if messages wait already. Never raises or waits long."""
    try:
        with _line().client() as client:
            client.eval(_RING, 1, queue, ENOUGH_BELLS, times, _message(queue, task_name))
    except redis.Unavailable as error:
        log.debug("could not ring %s: %s", queue, error)


def waiting(queue: str) -> int | None:
    """How many messages wait in a queue; None if Redis does not answer."""
    try:
        with _line().client() as client:
            return int(client.llen(queue))
    except redis.Unavailable:
        return None


def _line() -> redis.RedisConnections:
    return getattr(_here, "line", redis.quick)


@lru_cache(maxsize=64)
def _message(queue: str, task_name: str) -> str:
    """A message as Redis stores it. All messages of a process share one id, because nothing reads a doorbell's id."""
    # The process shares the queues in memory: another thread could take this message from one.
    with _making, Connection("memory://") as connection:
        current_app.send_task(task_name, queue=queue, connection=connection, ignore_result=True)
        channel: Any = connection.default_channel
        return dumps(channel._get(queue))
