"""Rings for workers: puts a Celery message that says "there is work" into a queue. The rows say what the work is.

A ring may be lost, and nobody waits for one: with Redis down it costs a fraction of a second, and then nothing for a
second, since the sweeps ring again. A few bells in a queue are enough, because whoever answers works until there is
nothing left.
"""

from __future__ import annotations

import logging
import os
import threading
import time

import redis
from celery import current_app
from django.conf import settings
from kombu import Connection
from kombu.exceptions import KombuError
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)
ENOUGH_BELLS = 4
_TIMEOUT_SECONDS = 0.2
_SILENCE_SECONDS = 1.0
_FAILURES = (redis.RedisError, KombuError, OSError)


class _Line:
    """One process's connection to Redis. Made anew after a fork, which must not share a socket with its parent."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.url: str = settings.REDIS_URL
        self.lock = threading.Lock()
        self.silent_until = 0.0
        self.client = redis.Redis.from_url(
            self.url,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self.broker = self._new_broker()

    def publish(self, queue: str, task_name: str, times: int) -> None:
        # One producer for all threads: kombu's channels are not made for two at once.
        with self.lock:
            try:
                with self.broker.Producer() as producer:
                    for _ in range(times):
                        current_app.send_task(
                            task_name, queue=queue, producer=producer, retry=False, ignore_result=True
                        )
            except _FAILURES:
                self.broker.release()
                self.broker = self._new_broker()
                raise

    def _new_broker(self) -> Connection:
        timeouts = {"socket_connect_timeout": _TIMEOUT_SECONDS, "socket_timeout": _TIMEOUT_SECONDS}
        return Connection(self.url, transport_options={**timeouts, "max_retries": 0})


_line: _Line | None = None


def ring(queue: str, task_name: str, *, times: int = 1) -> None:
    """Ask `times` workers to run `task_name`, or fewer if bells wait there already. Never raises, never waits long."""
    line = _connected()
    if time.monotonic() < line.silent_until:
        return
    try:
        waiting_now = int(line.client.llen(queue))
        if (wanted := min(times, ENOUGH_BELLS - waiting_now)) > 0:
            line.publish(queue, task_name, wanted)
    except _FAILURES as error:
        line.silent_until = time.monotonic() + _SILENCE_SECONDS
        log.warning("could not ring %s: %s", queue, error)


def waiting(queue: str) -> int | None:
    """How many bells wait in a queue; None where Redis does not answer."""
    try:
        return int(_connected().client.llen(queue))
    except _FAILURES:
        return None


def _connected() -> _Line:
    global _line
    line = _line
    if line is None or line.pid != os.getpid() or line.url != settings.REDIS_URL:
        line = _line = _Line()
    return line
