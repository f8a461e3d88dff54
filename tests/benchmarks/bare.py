"""Bare Celery for comparison: no database, a task that does nothing but note when it began."""

import os
import time

from celery import Celery

app = Celery("bare", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    task_default_queue="bare",
    worker_prefetch_multiplier=4,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
_starts = os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task(name="bare.noop", ignore_result=True)
def noop(number: int) -> None:
    os.write(_starts, f"{number} {time.monotonic()}\n".encode())
