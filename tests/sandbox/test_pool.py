"""Children: at most two, replaced when they were killed, ended with their parent, and given no secrets."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent_jobs.errors import RetryableError
from agent_jobs.sandbox import pool
from tests.races import in_threads

SLOW = {"schema": '{"items": {"multipleOf": 1e-300}}', "instance": "[" + "1e300," * 100_000 + "1]", "at": "params"}
QUICK = {"schema": '{"type": "integer"}', "instance": "1", "at": "params"}


@pytest.fixture(autouse=True)
def no_children():
    pool.close()
    yield
    pool.close()


def children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in pids if b"agent_jobs.sandbox.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_child_is_kept_and_used_again():
    assert pool.run("validate", **QUICK) == []
    first = children()
    assert pool.run("validate", **QUICK) == []

    assert len(first) == 1
    assert children() == first


def test_a_killed_child_is_replaced():
    with pytest.raises(pool.TooComplexError):
        pool.run("validate", **SLOW)
    assert children() == []
    assert pool.run("validate", **QUICK) == []

    for pid in children():
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert pool.run("validate", **QUICK) == [], "one that died while it was idle is no verdict"


def test_there_are_two_children_at_most_and_everybody_gets_an_answer():
    answers = in_threads(*[lambda: [pool.run("validate", **QUICK) for _ in range(20)]] * 8)

    assert answers == [[[]] * 20] * 8
    assert 1 <= len(children()) <= pool.MAX_CHILDREN == 2, "all are kept"


def test_one_caller_too_many_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(pool, "_callers", threading.BoundedSemaphore(1))
    pool.limit_callers(0)
    with pytest.raises(RetryableError) as refused:
        pool.run("validate", **QUICK)
    assert refused.value.code == "busy"

    pool.limit_callers(1)
    assert pool.run("validate", **QUICK) == []


def test_a_child_knows_no_secret_of_its_parent(monkeypatch):
    monkeypatch.setenv("AGENT_JOBS_SEALING_KEYS", "v1:secret")
    pool.run("validate", **QUICK)

    (pid,) = children()
    assert b"AGENT_JOBS" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_child_ends_with_its_parent():
    code = f"from agent_jobs.sandbox import pool; pool.run('validate', **{QUICK!r}); print(pool._idle[0]._process.pid)"
    program = f"{code}; import os, signal; import sys; sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    parent = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    pid = int(parent.stdout)

    assert parent.returncode == -signal.SIGKILL
    ended = threading.Event()
    for _ in range(500):
        path = Path(f"/proc/{pid}/stat")
        if not path.exists() or path.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        ended.wait(0.02)
    pytest.fail("the child lives on")
