"""Measures the CPU that a call takes, in this thread and in the sandbox's children."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent_jobs.sandbox import child, pool

# Starting a child costs CPU, too; the machine that runs the tests may be slow.
START_SECONDS = 0.5
MOST_SECONDS = child.CPU_SECONDS + START_SECONDS


@dataclass(frozen=True)
class Spent:
    answer: Any
    here: float
    in_children: float


def spent_on(call: Callable[[], Any]) -> Spent:
    pool.close()  # an ended child is counted with all that it has ever used
    before, began = _children(), time.thread_time()
    answer = call()
    here = time.thread_time() - began
    pool.close()
    return Spent(answer, here, _children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
