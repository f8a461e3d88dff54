"""Starts vital threads: a process must not go on without them.

A process whose lease keeper or listener has died looks alive and does harm. So the process ends when such a thread
raises, and its supervisor (`manage.py up`, Compose, Kubernetes) starts a new one.
"""

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)
# EX_SOFTWARE of sysexits.h. Our processes use this exit code for nothing else.
EXIT_CODE = 70


def start_vital(name: str, work: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread. The process ends with EXIT_CODE if `work` raises anything."""
    thread = vital(name, work)
    thread.start()
    return thread


def vital(name: str, work: Callable[[], object]) -> threading.Thread:
    """A vital thread that is not started yet (`start_vital`)."""

    def run() -> None:
        try:
            work()
        except BaseException:
            log.critical("thread %s failed, so this process ends with exit code %s", name, EXIT_CODE, exc_info=True)
            logging.shutdown()
            os._exit(EXIT_CODE)

    return threading.Thread(target=run, name=name, daemon=True)
