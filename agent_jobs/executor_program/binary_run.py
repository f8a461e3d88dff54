"""One attempt at a job: fetch the binary, run it, keep the lease, and report until the service has the result."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent_jobs.executor_program.binary_cache import BinaryCache
from agent_jobs.executor_program.progress_lines import say, size
from agent_jobs.executor_program.service_calls import Service, ServiceAway
from infra import commands
from infra.commands import work_folder as folders
from infra.egress.downloads import DownloadFailed

BINARY = "binary"
# How files begin that Linux can start: ELF programs, and scripts that name their interpreter.
_BEGINNINGS = (b"\x7fELF", b"#!")
_BEATS_A_LEASE = 3
_RETRY_BEAT_SECONDS = 1.0
# How long a stopping program tries to give a job back. The lease then lapses.
_RELEASE_SECONDS = 10.0
_PROGRESS_SECONDS = 5.0
CANCELED, LOST, STOPPED = "canceled", "lost", "stopped"


@dataclass(frozen=True, slots=True)
class Equipment:
    """The parts that all attempts of a program share."""

    service: Service
    executor_id: str
    cache: BinaryCache
    mode: commands.Mode
    allow_network: bool
    attempt_seconds: float


class BinaryRun:
    """`run` blocks until the attempt is reported, released or lost. `stop` may be called from any thread."""

    def __init__(self, job: Mapping[str, Any], equipment: Equipment) -> None:
        self._job, self._with = job, equipment
        self.job_id = str(job["job_id"])
        self._path = f"/jobs/{self.job_id}"
        self._ended = threading.Event()
        self._why = ""  # why it must stop: CANCELED, LOST or STOPPED
        self._told: dict[str, Any] = {}

    def stop(self) -> None:
        """End the command, and give the job back."""
        self._why = self._why or STOPPED

    def run(self) -> None:
        say("claimed", self.job_id, f"{self._job['type']}, attempt {self._job['attempt']}")
        beats = threading.Thread(target=self._beat, name=f"heartbeats of {self.job_id}", daemon=True)
        beats.start()
        try:
            verb, report = self._performed()
            self._report(verb, report)
        finally:
            self._ended.set()
            beats.join()

    # --- The work ---
    def _performed(self) -> tuple[str, dict[str, Any]]:
        """The call that reports the attempt, and its body."""
        folder = Path(tempfile.mkdtemp(prefix="agent-jobs-executor-"))
        try:
            self._fetch(folder / BINARY)
            if not _is_executable(folder / BINARY):
                said = "The binary cannot be executed: it is neither an ELF program nor a script that begins with #!."
                return "fail", _failure("not_executable", said, is_retryable=False)
            return self._executed(folder)
        except DownloadFailed as error:
            return "fail", _failure(error.code, f"{error}.", is_retryable=error.may_work_later)
        except commands.InvalidCommandError as error:
            return "fail", _failure("setup_error", str(error), is_retryable=False)
        except (commands.SandboxUnavailable, OSError) as error:
            return "fail", _failure("setup_error", str(error), is_retryable=True)
        except Exception as error:  # whatever happens here must be told to the service
            return "fail", _failure("executor_failed", f"{type(error).__name__}: {error}", is_retryable=True)
        finally:
            folders.remove(folder)

    def _fetch(self, target: Path) -> None:
        said_at = time.monotonic()

        def on_progress(done: int, total: int | None) -> None:
            nonlocal said_at
            if time.monotonic() - said_at >= _PROGRESS_SECONDS:
                said_at = time.monotonic()
                of = f" of {size(total)}" if total else ""
                self._tell(f"downloading: {size(done)}{of}")
                say("fetching", self.job_id, f"{size(done)}{of}")

        work = self._job["work"]
        self._tell("fetching the binary")
        self._with.cache.place(
            work["binary_sha256"],
            work["binary_url"],
            target,
            should_stop=lambda: self._why,
            on_progress=on_progress,
        )

    def _executed(self, folder: Path) -> tuple[str, dict[str, Any]]:
        work = self._job["work"]
        seconds = min(float(self._job.get("attempt_timeout_seconds") or self._with.attempt_seconds), 604_800.0)
        spec = commands.CommandSpec(
            argv=(f"./{BINARY}", *work.get("arguments", ())),
            environment={**self._own_variables(), **work.get("environment", {})},
            timeout=timedelta(seconds=seconds),
            allow_network=self._with.allow_network,
        )
        self._tell("running")
        say("running", self.job_id)
        result = commands.run(spec, mode=self._with.mode, work_folder=folder, should_stop=lambda: self._why or None)
        output: dict[str, Any] = {"stdout": result.stdout, "stderr": result.stderr}
        if result.exit_code is not None:
            output |= {"exit_code": result.exit_code}
        if result.is_success:
            return "complete", output
        said = result.message or f"exit code {result.exit_code}{f' ({result.signal})' if result.signal else ''}"
        code = {"exit": "exit_code", "timeout": "attempt_timeout"}.get(result.ended_by, result.ended_by)
        return "fail", output | _failure(code, said, is_retryable=result.ended_by in {"exit", "timeout"})

    def _own_variables(self) -> dict[str, str]:
        return {
            "AGENT_JOBS_JOB_ID": self.job_id,
            "AGENT_JOBS_ATTEMPT": str(self._job["attempt"]),
            "AGENT_JOBS_TYPE": str(self._job["type"]),
        }

    # --- The lease ---
    def _tell(self, message: str) -> None:
        self._told = {"progress_message": message}

    def _beat(self) -> None:
        """Extend the lease until the attempt has ended. A service that is away is asked again each second."""
        pause = float(self._job["lease_seconds"]) / _BEATS_A_LEASE
        was_away = False
        while not self._ended.wait(_RETRY_BEAT_SECONDS if was_away else pause):
            told, self._told = self._told, {}
            try:
                answer = self._with.service.call("PUT", f"{self._path}/heartbeat", self._body(told), seconds=pause)
            except ServiceAway as error:
                if not was_away:
                    say("waiting", self.job_id, f"no heartbeat: {error}")
                was_away = True
                continue
            was_away = False
            if answer.status == 200 and answer.body.get("data", {}).get("is_canceled"):
                self._why = CANCELED
                return
            if answer.status in {404, 409}:
                self._why = LOST
                say("lost", self.job_id, answer.message)
                return

    # --- The report ---
    def _report(self, verb: str, report: dict[str, Any]) -> None:
        if self._why == LOST:
            return
        if self._why == CANCELED:
            say("canceled", self.job_id)
            return
        if self._why == STOPPED:
            self._release()
            return
        answer = self._insist(verb, report)
        if answer is not None and answer.status in {400, 413}:
            # The service will never take this report, so it gets one without the output.
            said = f"the report was refused: {answer.message}"
            answer = self._insist("fail", _failure("report_refused", said, is_retryable=False))
        if answer is None or answer.status != 200:
            reason = "another executor has the job" if answer is None else answer.message
            say("refused", self.job_id, f"the result was not accepted: {reason}")
            return
        status = answer.body["data"]["job_status"]
        again = " (another attempt follows)" if status == "RUNNING" else ""
        why = f": {report['error_message']}" if verb == "fail" else ""
        say("failed" if verb == "fail" else "done", self.job_id, f"{status}{again}{why}")

    def _insist(self, verb: str, report: Mapping[str, Any]) -> Any:
        said: list[str] = []

        def on_away(reason: str) -> None:
            if not said:
                said.append(reason)
                say("waiting", self.job_id, f"the result is kept: {reason}")

        return self._with.service.insist(
            f"{self._path}/{verb}",
            self._body(report),
            gives_up=lambda: self._why in {LOST, CANCELED},
            on_away=on_away,
        )

    def _release(self) -> None:
        until = time.monotonic() + _RELEASE_SECONDS
        body = self._body({"reason": "the executor stops"})
        answer = self._with.service.insist(
            f"{self._path}/release",
            body,
            gives_up=lambda: time.monotonic() > until,
            on_away=lambda reason: None,
        )
        is_released = answer is not None and answer.status == 200
        say("released" if is_released else "left", self.job_id, "" if is_released else "its lease will lapse")

    def _body(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"executor_id": self._with.executor_id, "lease_token": self._job["lease_token"], **fields}


def _is_executable(binary: Path) -> bool:
    """Some shells would run any other file line by line."""
    with binary.open("rb") as file:
        return sys.platform != "linux" or file.read(4).startswith(_BEGINNINGS)


def _failure(code: str, message: str, *, is_retryable: bool) -> dict[str, Any]:
    return {"error_code": code, "error_message": message[:5_000] or code, "is_retryable": is_retryable}
