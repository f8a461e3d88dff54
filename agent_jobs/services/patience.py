"""A database that blinks is waited for, as long as a lease lasts."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from agent_jobs.errors import LeaseLost

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
        except (OperationalError, InterfaceError) as error:
            if connection.in_atomic_block or time.monotonic() > until:
                raise LeaseLost("the database is away") from error
            connection.close()
            threading.Event().wait(_CHANCE.uniform(0.1, 0.5))
