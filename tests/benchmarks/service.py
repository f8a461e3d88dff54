"""The service's own Celery application, with the beginning of each message turn noted and the statements counted."""

import atexit
import os
import time

import psycopg

from agent_jobs.runners.base import Done, Run
from agent_jobs.runners.message import MessageRunner
from config import celery

_starts = os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_statements = 0
_run = MessageRunner.run
_execute = psycopg.Cursor.execute


def _noting_run(self: MessageRunner, run: Run) -> Done:
    os.write(_starts, f"{run.job_id} {time.monotonic()}\n".encode())
    return _run(self, run)


def _counting_execute(self, *args, **kwargs):  # type: ignore[no-untyped-def]
    global _statements
    _statements += 1
    return _execute(self, *args, **kwargs)


def _write_count() -> None:
    with open(os.environ["BENCH_STARTS"] + f".statements.{os.getpid()}", "w") as file:
        file.write(str(_statements))


MessageRunner.run = _noting_run  # type: ignore[method-assign]
psycopg.Cursor.execute = _counting_execute  # type: ignore[method-assign]
atexit.register(_write_count)

# Bare Celery's workers do not give way either.
celery.give_way = lambda: None
app = celery.app
