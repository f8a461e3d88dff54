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
    """Call `work`, again and again while the database is unavailable, and return its result.

    `work` must be idempotent: its commit may have succeeded without an acknowledgement. Raises LeaseLost after
    LEASE_SECONDS, when another worker may have the job, and at once inside a transaction.
    """
    until = time.monotonic() + settings.LEASE_SECONDS
    while True:
        try:
            return work()
        except database.Error as error:
            if not database.is_unavailable(error):
                raise
            if connection.in_atomic_block or time.monotonic() > until:
                raise LeaseLost("the database is unavailable") from error
            database.drop_session()
            threading.Event().wait(_CHANCE.uniform(0.1, 0.5))
