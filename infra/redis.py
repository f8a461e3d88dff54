"""The only Redis client: for the doorbell, the counters and the rate limits.

Redis holds only data that may be lost, so nothing waits long for it. A call costs at most one time-out, and is not
retried. After a failure every call fails at once for a second. Then one call tries again, and the others still fail at
once. So an outage neither piles up waiting threads nor causes a storm of reconnects.

    with redis.quick.client() as client:      # raises redis.Unavailable
        client.llen("agents")

`REDIS_URL` may be `redis://`, `rediss://` (TLS) or `unix://`, with a password and a database number.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["Client", "RedisConnections", "Unavailable", "background", "quick"]

Client = redis.Redis
log = logging.getLogger(__name__)
REST_SECONDS = 1.0


class Unavailable(Exception):
    """Redis is down, unreachable, too slow, full or read-only."""


class RedisConnections:
    """The connections of this process to Redis that share a time-out, and whether Redis answers over them."""

    def __init__(self, name: str, timeout_seconds: float) -> None:
        self.name = name
        self.timeout_seconds = timeout_seconds
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the connections and Redis' state. A fork needs it, because the parent may hold the lock."""
        self._client: redis.Redis | None = None
        self._address: tuple[str, float] | None = None
        self._is_down = False
        self._rests_until = 0.0
        self._trying = threading.Lock()

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client for a few commands. Raises Unavailable if Redis does not answer, or failed less than REST_SECONDS
        ago.
        """
        client, trying = self._connected(), self._trying
        is_trial = self._is_down
        if is_trial and (time.monotonic() < self._rests_until or not trying.acquire(blocking=False)):
            raise Unavailable(f"Redis is not asked again yet: it failed less than {REST_SECONDS:g} s ago")
        try:
            yield client
            self._note_answer()
        except (redis.RedisError, OSError) as error:
            self._note_failure(error)
            raise Unavailable(str(error)) from error
        finally:
            if is_trial:
                trying.release()

    def _connected(self) -> redis.Redis:
        address = (settings.REDIS_URL, self.timeout_seconds)
        if self._client is None or self._address != address:
            self.begin_anew()
            self._address = address
            self._client = redis.Redis.from_url(
                settings.REDIS_URL,
                socket_connect_timeout=self.timeout_seconds,
                socket_timeout=self.timeout_seconds,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    def _note_answer(self) -> None:
        if self._is_down:
            self._is_down = False
            log.warning("Redis answers again (%s)", self.name)

    def _note_failure(self, error: Exception) -> None:
        self._rests_until = time.monotonic() + REST_SECONDS
        if not self._is_down:
            self._is_down = True
            log.warning("Redis does not answer (%s), trying again every %g s: %s", self.name, REST_SECONDS, error)


# For requests and turns. A POST makes two calls and must answer within 500 ms while Redis is down; only one call in a
# second waits for Redis then.
quick = RedisConnections("quick", 0.2)
# For background threads. Over a slow network they reach Redis where the quick calls do not.
background = RedisConnections("background", 2.0)

for _line in (quick, background):
    os.register_at_fork(after_in_child=_line.begin_anew)
