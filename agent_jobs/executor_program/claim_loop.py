"""Claims jobs while slots are free, and runs each in a thread. A stop lets running jobs end, or gives them back."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from agent_jobs.executor_program.binary_run import BinaryRun, Equipment
from agent_jobs.executor_program.progress_lines import say
from agent_jobs.executor_program.service_calls import Pauses, Service, ServiceAway

# A stop waits for the claim that is under way: a claim that is broken off could leave a job with nobody.
WAIT_SECONDS = 8
_EARLY_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.2
REFUSED_EXIT = 2


class ClaimLoop:
    def __init__(self, service: Service, equipment: Equipment, asks: Mapping[str, Any], *, slots: int) -> None:
        self._service, self._equipment, self._asks, self._slots = service, equipment, asks, slots
        self._running: dict[BinaryRun, threading.Thread] = {}
        self._changed = threading.Event()  # a job has ended, or the program stops
        self._stop = threading.Event()
        self._stop_at_once = threading.Event()

    def stop(self) -> None:
        """Claim no more jobs and let the running ones end. The second call gives them back at once."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()
        self._changed.set()

    def run(self, *, grace_seconds: float) -> int:
        """Work until `stop`. Returns the exit code: 0, or REFUSED_EXIT if the service refuses the executor."""
        # A thread says so, because a signal handler must take no lock.
        threading.Thread(target=self._say_stopping, name="stopping", daemon=True).start()
        pauses, was_away = Pauses(), False
        exit_code = 0
        while not self._stop.is_set():
            self._drop_ended()
            free = self._slots - len(self._running)
            if not free:
                self._changed.wait(_LOOK_SECONDS)
                self._changed.clear()
                continue
            try:
                began = time.monotonic()
                answer = self._service.call(
                    "POST",
                    "/claim",
                    {**self._asks, "max_jobs": free, "wait": WAIT_SECONDS},
                    seconds=WAIT_SECONDS + 30.0,
                )
            except ServiceAway as error:
                if not was_away:
                    say("waiting", text=f"no claims: {error}")
                was_away = True
                pauses.wait(self._stop)
                continue
            if was_away:
                say("back", text="the service answers again")
            was_away = False
            pauses.reset()
            if answer.status == 200:
                for job in answer.body["data"]:
                    self._start(job)
            elif answer.status == 204:
                if time.monotonic() - began < _EARLY_PAUSE_SECONDS:
                    self._stop.wait(_EARLY_PAUSE_SECONDS)
            else:
                say("refused", text=answer.message)
                exit_code = REFUSED_EXIT
                break
        self._finish(grace_seconds)
        return exit_code

    def _start(self, job: Mapping[str, Any]) -> None:
        attempt = BinaryRun(job, self._equipment)
        thread = threading.Thread(target=self._work, args=[attempt], name=attempt.job_id, daemon=True)
        self._running[attempt] = thread
        if self._stop.is_set():
            attempt.stop()
        thread.start()

    def _work(self, attempt: BinaryRun) -> None:
        try:
            attempt.run()
        finally:
            self._changed.set()

    def _say_stopping(self) -> None:
        self._stop.wait()
        say("stopping", text="no more claims; again to give running jobs back at once")

    def _drop_ended(self) -> None:
        for attempt, thread in list(self._running.items()):
            if not thread.is_alive():
                del self._running[attempt]

    def _finish(self, grace_seconds: float) -> None:
        until = time.monotonic() + grace_seconds
        self._drop_ended()
        if self._running:
            say("stopping", text=f"running jobs have {grace_seconds:g} s to end: {len(self._running)}")
        while self._running and time.monotonic() < until and not self._stop_at_once.wait(_LOOK_SECONDS):
            self._drop_ended()
        for attempt in list(self._running):
            attempt.stop()
        for thread in list(self._running.values()):
            thread.join()
        say("stopped")
