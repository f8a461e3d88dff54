"""A turn of nobody's, for connections to the database that are new: what one has done once, it does in half the time.

PostgreSQL plans a prepared statement once for each connection, and reads what it knows of the tables: 33 ms in all (a
turn of 19 ms took 52), which the first turns of a connection would pay, and first turns come together. So a worker
process that has nothing to do goes through the statements of a turn, on half of its pool's connections at once, with an
organisation, a job and a lane that do not exist, and removes what that has written.
"""

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from agent_jobs.errors import LeaseLost, PermanentError
from agent_jobs.llm import Usage
from agent_jobs.models import Profile, Reservation, Step, UsageDay
from agent_jobs.runners.base import AwaitReply
from agent_jobs.services import budgets, model_access, outcomes, transitions, turns
from agent_jobs.services.journal import update
from agent_jobs.services.transitions import Turn

log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 10.0
# No organisation, job type or profile can have it for an id, and no lane is called so.
_NOWHERE = "(nowhere)"
_NOBODY = UUID(int=0)
_CLAIM: dict[str, Any] = {
    "id": str(_NOBODY),
    "org_id": _NOWHERE,
    "token": 0,
    "task_id": str(_NOBODY),
    "job_type_key": _NOWHERE,
    "prompt": "",
    "params": {},
    "config": {"profile_id": _NOWHERE},
    "agent": {},
    "platform": "null",
    "channel_code": _NOWHERE,
    "channel_type": "",
    "channel_data": {},
    "waiting_for": "",
    "resume": "",
    "inbox_count": 0,
    "inbox_seen": 0,
    "follow_ups_sent": 0,
    "follow_ups_total": 0,
    "failed_attempts": 0,
    "attempt": 1,
    "result": None,
    "life": 0,
    "turn": 0,
    "is_replay": False,
    "trace": "",
}


def rehearse() -> int:
    """Returns on how many connections: 0 where there is no pool. A database that is away is only logged."""
    pool = settings.DATABASES["default"].get("OPTIONS", {}).get("pool")
    count = pool["max_size"] // 2 if pool else 0
    if not count:
        return 0
    # Each in a thread that has got its own before any of them gives one back.
    all_are_there = threading.Barrier(count)

    def on_one() -> int:
        try:
            connection.ensure_connection()
            all_are_there.wait(_PATIENCE_SECONDS)
            take_back_a_turn()
        except (OperationalError, InterfaceError) as error:
            all_are_there.abort()
            log.warning("the statements of a turn are not planned yet: %s", str(error).strip())
            return 0
        except threading.BrokenBarrierError:
            return 0
        finally:
            connection.close()
        return 1

    with ThreadPoolExecutor(count) as threads:
        return sum(threads.map(lambda _: on_one(), range(count)))


def take_back_a_turn() -> None:
    """On this thread's connection. Raises what the database raises."""
    with transaction.atomic():
        transitions.settle_and_claim([], lane=_NOWHERE, turn=Turn())
        run = turns.prepare(_CLAIM)
        _, journal = turns.with_journal(_CLAIM, run)
        step = Step(id=_NOBODY, life=0, number=0, turn=0, kind=Step.Kind.MODEL, input={})
        with suppress(LeaseLost):
            journal.insert(step)
        update(step, {})
        with suppress(PermanentError):
            model_access.resolve(_NOWHERE, Profile(org_id=_NOWHERE, key=_NOWHERE, model="openai:none"))
        held = budgets.set_aside(
            org_id=_NOWHERE,
            job_id=_NOBODY,
            job_type_key=_NOWHERE,
            config={},
            model="scripted",
            request_bytes=1,
            max_output_tokens=1,
        )
        held.settle(Usage())
        settlement = outcomes.settlement(
            _CLAIM,
            run,
            AwaitReply(say=("Nothing.",)),
            seconds_left=0,
            rng=random.Random(0),  # noqa: S311
        )
        transitions.settle_and_claim([settlement], lane=_NOWHERE, turn=Turn())
        # Not by a ROLLBACK, with which psycopg forgets what is planned.
        Reservation.objects.filter(pk=held.id).delete()
        UsageDay.objects.filter(org_id=_NOWHERE).delete()
