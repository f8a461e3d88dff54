"""A runner that harms its process, and the settings under which the service knows it: no deployment does.

    DJANGO_SETTINGS_MODULE=tests.chaos.settings

What it does stands in the job's params: `{"poison": "segfault"}`.
"""

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from structlog.contextvars import get_contextvars

from agent_jobs.runners.base import AwaitReply, Done, Outcome, Run

GIGABYTE = 1024**3
MEGABYTE = 1024**2


def _kill() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def _leave() -> str:
    os._exit(0)


def _segfault() -> str:
    return str(ctypes.string_at(0))


def _memory() -> str:
    eaten = bytearray(2 * GIGABYTE)
    return f"had {len(eaten)} bytes"


def _loop() -> str:
    rounds = 0
    while True:
        rounds += 1


def _hold() -> str:
    """Never gives the interpreter back: the expression tries some 2^60 ways."""
    return str(re.match(r"(a+)+$", "a" * 60 + "b"))


def _exit() -> str:
    sys.exit(3)


def _print() -> str:
    print("what a runner prints")
    return "printed"


def _none() -> Any:
    return None


def _circle() -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return Done(result="round", result_data=circle)


POISONS: dict[str, Callable[[], Any]] = {
    "kill": _kill,
    "leave": _leave,
    "segfault": _segfault,
    "memory": _memory,
    "loop": _loop,
    "hold": _hold,
    "exit": _exit,
    "print": _print,
    "none": _none,
    "circle": _circle,
    "huge": lambda: "x" * (100 * MEGABYTE),
    "huge_data": lambda: Done(result="", result_data=["x" * (2 * MEGABYTE)]),
    "huge_say": lambda: AwaitReply(say=("x" * (2 * MEGABYTE),)),
    "facts": lambda: json.dumps(get_contextvars(), sort_keys=True),
    "pid": lambda: str(os.getpid()),
}


class PoisonRunner:
    name = "poison"
    lane = "agents"
    batch_size = 1
    has_conversation = False
    needs_channel = True
    work = None

    def run(self, run: Run) -> Outcome:
        answer = POISONS[run.params["poison"]]()
        return Done(result=answer) if isinstance(answer, str) else answer
