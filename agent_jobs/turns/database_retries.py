"""Retries database work during short outages, for at most LEASE_SECONDS."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import connection

from agent_jobs.errors import LeaseLost
from infra import database

_CHANCE = random.SystemRandom()
_T = TypeVar("_T")


def patiently(work: Callable[[], _T]) -> _T:
    """What `work` returns, tried again while the database is away: it has to bear being done twice, for its commit may
    have come through unheard. Raises LeaseLost when that lasts as long as a lease: somebody else has the job by then,
    or will."""
    until = time.monotonic() + settings.LEASE_SECONDS
    while True:
        try:
            return work()
        except database.Error as error:
            if not database.is_unavailable(error):
                raise
            if connection.in_atomic_block or time.monotonic() > until:
                raise LeaseLost("the database is away") from error
            database.drop_session()
            threading.Event().wait(_CHANCE.uniform(0.1, 0.5))
