"""Rings for workers: puts a Celery message that says "there is work" into a queue. The rows say what the work is.

A ring may be lost, and nobody waits for one: with Redis down it costs a fraction of a second, and then nothing for a
second, since the sweeps ring again. A few bells in a queue are enough, because whoever answers works until there is
nothing left.

A ring stands between every commit and the start of its job, so it is one round trip: the message is made once by Celery
itself, on kombu's in-memory transport, and pushed with ids of its own to where kombu's Redis transport would push it
(0.3 ms against 1.2 ms for publishing anew). The live tests fail if a kombu to come keeps its messages in another form.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import redis
from celery import current_app
from django.conf import settings
from kombu import Connection
from kombu.utils.json import dumps
from kombu.utils.uuid import uuid
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)
ENOUGH_BELLS = 4
_TIMEOUT_SECONDS = 0.2
_PATIENT_TIMEOUT_SECONDS = 2.0
_SILENCE_SECONDS = 1.0
_FAILURES = (redis.RedisError, OSError)
_making = threading.Lock()


# One round trip: as many bells as are wanted, and no more than make enough.
_RING = """
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
for i = 2, math.min(#ARGV, room + 1) do redis.call('LPUSH', KEYS[1], ARGV[i]) end
return room
"""


class _Line:
    """One process's connection to Redis. Made anew after a fork, which must not share a socket with its parent."""

    def __init__(self, timeout_seconds: float) -> None:
        self.pid = os.getpid()
        self.url: str = settings.REDIS_URL
        self.silent_until = 0.0
        self.is_down = False
        self.looking = threading.Lock()
        self.client = redis.Redis.from_url(
            self.url,
            socket_connect_timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        self.ring = self.client.register_script(_RING)


_line: _Line | None = None
_patient_line: _Line | None = None
_here = threading.local()


@contextmanager
def patience() -> Iterator[None]:
    """Within it this thread's rings wait for 2 s, not 0.2: for sweeps, whom nobody waits for.

    Over a bad line to Redis every other ring may come to nothing; then work goes on by the sweeps' alone.
    """
    _here.is_patient = True
    try:
        yield
    finally:
        _here.is_patient = False


def ring(queue: str, task_name: str, *, times: int = 1) -> None:
    """Ask `times` workers to run `task_name`, or fewer if bells wait there already. Never raises, never waits long."""
    line = _connected()
    if time.monotonic() < line.silent_until:
        return
    if not line.is_down:
        _push(line, queue, task_name, times)
    elif line.looking.acquire(blocking=False):  # one looks whether it is back, and nobody else waits meanwhile
        try:
            _push(line, queue, task_name, times)
        finally:
            line.looking.release()


def _push(line: _Line, queue: str, task_name: str, times: int) -> None:
    try:
        line.ring(keys=[queue], args=[ENOUGH_BELLS, *(_message(queue, task_name) for _ in range(times))])
        line.is_down = False
    except _FAILURES as error:
        line.is_down, line.silent_until = True, time.monotonic() + _SILENCE_SECONDS
        log.warning("could not ring %s: %s", queue, error)


def waiting(queue: str) -> int | None:
    """How many bells wait in a queue; None where Redis does not answer."""
    try:
        return int(_connected().client.llen(queue))
    except _FAILURES:
        return None


def _connected() -> _Line:
    global _line, _patient_line
    is_patient = getattr(_here, "is_patient", False)
    line = _patient_line if is_patient else _line
    if line is not None and line.pid == os.getpid() and line.url == settings.REDIS_URL:
        return line
    if is_patient:
        _patient_line = line = _Line(_PATIENT_TIMEOUT_SECONDS)
    else:
        _line = line = _Line(_TIMEOUT_SECONDS)
    return line


def _message(queue: str, task_name: str) -> str:
    # The in-memory transport is shared by all threads, and one could take the other's message out of it.
    with _making:
        template, task_id, delivery_tag = _template(queue, task_name)
    return template.replace(task_id, uuid()).replace(delivery_tag, uuid())


@lru_cache(maxsize=64)
def _template(queue: str, task_name: str) -> tuple[str, str, str]:
    """A message as it stands in Redis, and the two ids in it of which every message needs its own."""
    task_id = uuid()
    with Connection("memory://") as connection:
        current_app.send_task(task_name, queue=queue, task_id=task_id, connection=connection, ignore_result=True)
        channel: Any = connection.default_channel
        message = channel._get(queue)
    return dumps(message), task_id, message["properties"]["delivery_tag"]
