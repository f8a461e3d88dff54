"""Around a runner: whatever it does to itself becomes an outcome, in this process or in one of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars

from agent_jobs.errors import PermanentError, RetryableError
from agent_jobs.runners import invocation
from agent_jobs.runners.base import Done, Failed, Run, Wake
from tests.chaos.poison import PoisonRunner
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def poisoned(kind: str) -> Run:
    return Run(job_id="j1", org_id="acme", wake=Wake.START, prompt="", params={"poison": kind})


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("huge", "result_too_large"),
        ("huge_data", "result_too_large"),
        ("huge_say", "result_too_large"),
        ("circle", "invalid_result"),
        ("none", "runner_error"),
        ("exit", "runner_error"),
        ("of no such kind", "runner_error"),
    ],
)
@pytest.mark.parametrize("is_alone", [False, True])
def test_an_outcome_that_is_none_is_a_failure_with_a_code(kind: str, code: str, is_alone: bool):
    run = poisoned(kind)
    outcome = (
        invocation.call_alone(PoisonRunner(), run, seconds=PATIENCE)
        if is_alone
        else invocation.call(PoisonRunner(), run)
    )
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.is_retryable) == (code, False)
    assert len(outcome.message) < 300


def test_a_result_just_under_the_bound_is_taken(monkeypatch: pytest.MonkeyPatch):
    size = invocation.MAX_OUTCOME_CHARACTERS - len("[null, []]")
    monkeypatch.setattr(PoisonRunner, "run", lambda self, run: Done(result="x" * size))
    assert isinstance(invocation.call(PoisonRunner(), poisoned("")), Done)
    monkeypatch.setattr(PoisonRunner, "run", lambda self, run: Done(result="x" * (size + 1)))
    assert isinstance(invocation.call(PoisonRunner(), poisoned("")), Failed)


def test_a_result_that_repeats_what_is_said_counts_once(monkeypatch: pytest.MonkeyPatch):
    said = "x" * (invocation.MAX_OUTCOME_CHARACTERS * 2 // 3)
    monkeypatch.setattr(PoisonRunner, "run", lambda self, run: Done(say=(said,), result=said))
    assert isinstance(invocation.call(PoisonRunner(), poisoned("")), Done)


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (RetryableError("busy", code="http_429", retry_after=7.0), Failed("http_429", "busy", True, 7.0)),
        (PermanentError("no", code="refused"), Failed("refused", "no")),
        (MemoryError(), Failed("out_of_memory", "the poison runner wanted more memory than a worker may have")),
        (RuntimeError("secret"), Failed("runner_error", "the poison runner broke: RuntimeError")),
        (PermanentError("m" * 99_999, code="c" * 99), Failed("c" * 64, "m" * 10_000)),
    ],
)
def test_what_a_runner_raises_is_recorded(monkeypatch: pytest.MonkeyPatch, raised: Exception, outcome: Failed):
    def run(self: PoisonRunner, run: Run) -> Done:
        raise raised

    monkeypatch.setattr(PoisonRunner, "run", run)
    assert invocation.call(PoisonRunner(), poisoned("")) == outcome


def test_alone_it_runs_in_another_process_and_may_print():
    outcome = invocation.call_alone(PoisonRunner(), poisoned("pid"), seconds=PATIENCE)
    assert isinstance(outcome, Done)
    assert outcome.result.isdigit()
    assert int(outcome.result) != os.getpid()
    assert invocation.call_alone(PoisonRunner(), poisoned("print"), seconds=PATIENCE) == Done(result="printed")


@pytest.mark.parametrize(("kind", "how"), [("kill", "SIGKILL"), ("segfault", "SIGSEGV"), ("leave", "exit code 0")])
def test_a_runner_that_kills_its_own_process_kills_nobody_else(kind: str, how: str):
    outcome = invocation.call_alone(PoisonRunner(), poisoned(kind), seconds=PATIENCE)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.is_retryable) == ("worker_lost", False)
    assert how in outcome.message


@pytest.mark.parametrize("kind", ["loop", "hold"])
def test_a_runner_that_does_not_end_is_ended(kind: str):
    began = time.monotonic()
    outcome = invocation.call_alone(PoisonRunner(), poisoned(kind), seconds=1)
    assert outcome == Failed("turn_timeout", "a turn of the poison runner took longer than 1 s")
    assert time.monotonic() - began < 60


def test_memory_is_bounded_where_the_operator_says_so():
    program = """
        from agent_jobs.runners import invocation
        from tests.chaos.poison import PoisonRunner
        from tests.runners.test_invocation import poisoned
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, resource.RLIM_INFINITY))
        print(invocation.call(PoisonRunner(), poisoned("memory")).code)
        print(invocation.call_alone(PoisonRunner(), poisoned("memory"), seconds=60).code)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.split() == ["out_of_memory", "out_of_memory"], done.stderr


def test_what_is_known_of_the_job_goes_along_into_its_logs():
    with bound_contextvars(org="acme", job="j1"):
        outcome = invocation.call_alone(PoisonRunner(), poisoned("facts"), seconds=PATIENCE)
    assert outcome == Done(result='{"job": "j1", "org": "acme"}')


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_process_of_its_own_ends_with_the_worker():
    program = """
        import threading
        from agent_jobs.runners import invocation
        from tests.chaos.poison import PoisonRunner
        from tests.runners.test_invocation import poisoned
        print("begun", flush=True)
        invocation.call_alone(PoisonRunner(), poisoned("loop"), seconds=600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        until = time.monotonic() + PATIENCE
        while not (child := children.read_text().strip()):
            assert time.monotonic() < until
        # It loops by now, or still imports: it ends either way.
        os.kill(worker.pid, signal.SIGKILL)
        while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
            assert time.monotonic() < until, "it goes on without its worker"
