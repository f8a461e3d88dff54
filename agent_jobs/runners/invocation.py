"""Calls a runner in this process or in one of its own, where a crash or an endless loop harms no other job.

A runner is a pure step from a `Run` to an outcome, so another process can take it. A job gets its own process if its
workers have died before. If it kills them, it now kills only its own process; if another job did, it now finishes its
turn. The process is a new Python: it needs 0.8 s of CPU to start, 2.7 s with a hosted model.
"""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from structlog.contextvars import bound_contextvars, get_contextvars

from agent_jobs.errors import BudgetReserved, LeaseLost, PermanentError, RetryableError, RunError, Unsupported
from agent_jobs.runners.base import AwaitApproval, AwaitReply, Done, Failed, Outcome, Run, Runner

log = logging.getLogger(__name__)
# Limit for all texts of an outcome plus its result as JSON, so that rows and HTTP answers stay small enough.
MAX_OUTCOME_CHARACTERS = 1_000_000
_MAX_MESSAGE_CHARACTERS = 10_000
_ROOT = Path(__file__).resolve().parents[2]


def call(runner: Runner, run: Run) -> Outcome:
    """Run one turn. Turns every exception and every invalid answer of the runner into an outcome."""
    try:
        outcome = runner.run(run)
    except (RetryableError, PermanentError) as error:
        return failure(error)
    except LeaseLost as error:
        return Failed(error.code, error.message)  # nothing of this turn will be written
    except MemoryError:
        return Failed("out_of_memory", f"the {runner.name} runner wanted more memory than a worker may have")
    except (Exception, SystemExit) as error:
        log.exception("job %s: the %s runner raised an unexpected error", run.job_id, runner.name)
        return Failed("runner_error", f"the {runner.name} runner broke: {type(error).__name__}")
    return _bounded(outcome)


def failure(error: RunError) -> Failed:
    """The outcome for an error that a runner, or a call on its behalf, raised."""
    is_retryable = isinstance(error, RetryableError)
    retry_after = error.retry_after if isinstance(error, RetryableError) else None
    counts = not isinstance(error, Unsupported | BudgetReserved)
    failed = _bounded(Failed(error.code, error.message, is_retryable, retry_after, counts))
    assert isinstance(failed, Failed)
    return failed


def call_alone(
    runner: Runner,
    given: Any,
    *,
    seconds: float,
    take: Callable[[Runner, Any], Outcome] = call,
    on_start: Callable[[Callable[[], object]], object] = lambda abort: None,
) -> Outcome:
    """Run one turn in a process of its own, which ends with this one, or after `seconds`.

    That process calls `take` with the runner and `given` (a run, or the claim to build it from). `take` must be a
    top-level function of a module that calls `serve(take)` when run as the main module. If the process dies, the
    outcome is `worker_lost`, or `turn_timeout` if this function ended it. `on_start` gets a function that kills it.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", take.__module__, str(os.getpid())],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    on_start(process.kill)
    try:
        request = pickle.dumps((get_contextvars(), runner, given))
        answer, _ = process.communicate(request, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return Failed("turn_timeout", f"a turn of the {runner.name} runner took longer than {seconds:.0f} s")
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    if process.returncode == 0 and answer:
        # Safe to unpickle: our own code wrote it, in our own child process.
        outcome: Outcome = pickle.loads(answer)  # noqa: S301
        return outcome
    is_signal = process.returncode < 0
    how = signal.Signals(-process.returncode).name if is_signal else f"exit code {process.returncode}"
    log.error("the separate process of the %s runner died: %s", runner.name, how)
    return Failed("worker_lost", f"its worker died again, this time in a process of its own ({how})")


def _bounded(given: Any) -> Outcome:
    """The runner's outcome, or a failure if it is invalid or too large."""
    outcome: Outcome
    result, result_data = "", None
    match given:
        case Failed():
            outcome = replace(given, code=given.code[:64], message=given.message[:_MAX_MESSAGE_CHARACTERS])
        case Done():
            outcome, result, result_data = given, given.result, given.result_data
        case AwaitReply() | AwaitApproval():
            outcome = given
        case _:
            return Failed("runner_error", f"the runner returned {type(given).__name__}, which is not an outcome")
    size = sum(map(len, outcome.say)) + (0 if result in outcome.say else len(result))
    if size <= MAX_OUTCOME_CHARACTERS:
        try:
            size += len(json.dumps([result_data, [(call.input, call.output) for call in outcome.calls]], default=str))
        except (TypeError, ValueError, RecursionError) as error:
            return Failed("invalid_result", f"the outcome of the turn cannot be written as JSON: {error}"[:200])
    if size > MAX_OUTCOME_CHARACTERS:
        bound = f"{MAX_OUTCOME_CHARACTERS:,}"
        return Failed("result_too_large", f"the outcome of the turn has {size:,} characters; {bound} are allowed")
    return outcome


# --- In a process of its own -----------------------------------------------------------------------------------
def serve(take: Callable[[Runner, Any], Outcome]) -> None:
    """The main function of the new process: take one turn and exit."""
    _end_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of a runner go to stderr, because stdout carries the answer
    facts, runner, given = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    with bound_contextvars(**facts):
        answers.write(pickle.dumps(take(runner, given)))
    answers.flush()
    os._exit(0)


def _end_with(parent: int) -> None:
    """On Linux, let the kernel kill this process when its parent thread ends; elsewhere it ends with its turn."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the kernel watched it


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    serve(call)
