"""How a worker process answers the bells of periodic duties: one thread a duty, and not twice in half a second.

After an hour without workers some thousand bells wait; all but the first few are then answered with nothing.
"""

import logging
import time
from collections.abc import Callable

from django.db import InterfaceError, OperationalError, connection

from agent_jobs.models import DutyRun
from channels_integration.gate import Gate

log = logging.getLogger(__name__)
_SHORTEST_INTERVAL = 0.5
_gates: dict[str, Gate] = {}
_begun_at: dict[str, float] = {}


def serve_duty(name: str, duty: Callable[[], int], *, is_rung: bool = False) -> int:
    """Do `duty` unless this process began it less than half a second ago. A database that is away is only logged.

    `is_rung`: a bell was heard, which is noted (`services.standby`).
    """

    def once() -> int:
        now = time.monotonic()
        if now - _begun_at.get(name, float("-inf")) < _SHORTEST_INTERVAL:
            return 0
        _begun_at[name] = now
        try:
            if is_rung:
                note_done(DutyRun.BELL)
            return duty()
        except (OperationalError, InterfaceError) as error:
            log.warning("duty %s: the database does not answer: %s", name, str(error).strip())
            connection.close()
            return 0

    return _gates.setdefault(name, Gate(1)).answer(once)


def note_done(duty: str) -> None:
    """When it was done last: what `/health/ready`, the metrics and the standby go by."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {DutyRun._meta.db_table} (duty) VALUES (%s) ON CONFLICT (duty) DO UPDATE SET done_at = now()",  # noqa: S608
            [duty],
        )
