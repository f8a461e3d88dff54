"""Turns in processes that are forked for them. A worker here is a Python that has a zygote, and nothing else yet."""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from dataclasses import replace  # noqa: F401 - for the programs
from pathlib import Path
from typing import Any

import pytest
import uuid_utils
from structlog.contextvars import get_contextvars

from agent_jobs.runners.base import Done, Outcome, Runner
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ROOT = Path(__file__).resolve().parents[2]
PREPARED = """
    import json, os, resource, signal, sys, threading
    from agent_jobs.runners import calling
    from tests.chaos.poison import PoisonRunner
    from tests.runners import test_zygote as turns
    from tests.runners.test_calling import poisoned
    from tests.waiting import wait_for

    def alone(kind, seconds=100, **options):
        return calling.call_alone(PoisonRunner(), poisoned(kind), seconds=seconds, **options)
"""


def worker(program: str, *, start: str = "calling.start_zygote()", **options: Any) -> subprocess.Popen[str]:
    text = "\n".join(textwrap.dedent(part) for part in (PREPARED, start, program))
    return subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def told_by(program: str, **options: Any) -> Any:
    """What a worker prints last, as JSON."""
    with worker(program, stderr=subprocess.PIPE, **options) as process:
        said, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaints
    return json.loads(said.splitlines()[-1])


# --- Turns, as a child takes them ------------------------------------------------------------------------------
def weigh(runner: Runner, size: int) -> Outcome:
    return Done(result="x" * size)


def look_around(runner: Runner, given: Any) -> Outcome:
    """What a child has that it should not, or should."""
    handlers = {number.name: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)}
    seen = {
        "parent": os.getppid(),
        "files": sorted(os.readlink(f"/proc/self/fd/{name}") for name in _files(os.getpid())),
        "defaults": [name for name, handler in handlers.items() if handler == signal.SIG_DFL],
        "threads": threading.active_count(),
        "facts": get_contextvars(),
        "chance": [
            random.random(),
            secrets.token_hex(),
            str(uuid.uuid4()),
            str(uuid_utils.uuid4()),
            str(uuid_utils.uuid7())[18:],
        ],
        "is_read": "pydantic_ai" in sys.modules,
    }
    return Done(result=json.dumps(seen))


def meet(runner: Runner, folder: str) -> Outcome:
    """Ends when as many as are named are there at the same time."""
    place, others = Path(folder), int(Path(folder).name)
    (place / str(os.getpid())).touch()
    wait_for(lambda: len(list(place.iterdir())) == others, what="all are there")
    return Done(result=str(os.getpid()))


def mark_and_wait(runner: Runner, place: str) -> Outcome:
    Path(place).write_text(Path(place).read_text() + "once " if Path(place).exists() else "once ")
    threading.Event().wait()
    raise AssertionError


def _files(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    names = [entry.name for entry in folder.iterdir()]
    return [name for name in names if (folder / name).is_symlink()]  # the look itself had one open


def children(pid: int) -> list[int]:
    return [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


# --- What it answers -------------------------------------------------------------------------------------------
def test_whatever_a_turn_does_to_its_process_is_an_outcome_and_harms_no_other() -> None:
    told = told_by(
        """
        kinds = {"kill": 100, "segfault": 100, "leave": 100, "offspring": 50, "loop": 1, "hold": 1, "huge": 100,
                 "memory": 100, "exit": 100, "none": 100, "print": 100, "pid": 100}
        told = {}
        for kind, seconds in kinds.items():
            outcome = alone(kind, seconds)
            told[kind] = getattr(outcome, "code", None) or outcome.result, getattr(outcome, "message", "")
        print(json.dumps([told, os.getpid(), calling._zygote._is_lost]))
        """,
        start="resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, -1)); calling.start_zygote()",
    )
    kinds, pid, is_lost = told
    lost = "its worker died again, and now in a process of its own ({})"
    assert {kind: tuple(told) for kind, told in kinds.items() if kind != "pid"} == {
        "kill": ("worker_lost", lost.format("SIGKILL")),
        "segfault": ("worker_lost", lost.format("SIGSEGV")),
        "leave": ("worker_lost", lost.format("exit code 0")),
        "offspring": ("worker_lost", lost.format("SIGKILL")),
        "loop": ("turn_timeout", "a turn of the poison runner took longer than 1 s"),
        "hold": ("turn_timeout", "a turn of the poison runner took longer than 1 s"),
        "huge": ("result_too_large", "what the turn ended with has 104,857,600 characters; 1,000,000 are allowed"),
        "memory": ("out_of_memory", "the poison runner wanted more memory than a worker may have"),
        "exit": ("runner_error", "the poison runner broke: SystemExit"),
        "none": ("runner_error", "the runner answered NoneType, which is no outcome"),
        "print": ("printed", ""),
    }
    assert int(kinds["pid"][0]) != pid
    assert not is_lost


def test_an_answer_may_be_long_and_so_may_what_is_asked() -> None:
    size = 100 * 1024 * 1024
    told = told_by(
        f"""
        outcome = calling.call_alone(PoisonRunner(), {size}, seconds=100, take=turns.weigh)
        run = turns.replace(poisoned("pid"), prompt="x" * {size})
        print(json.dumps([len(outcome.result), calling.call_alone(PoisonRunner(), run, seconds=100).result]))
        """
    )
    assert told[0] == size
    assert told[1].isdigit()


def test_turns_of_several_threads_run_at_the_same_time(tmp_path: Path) -> None:
    place = tmp_path / "12"
    place.mkdir()
    pids = told_by(
        f"""
        pids = []
        def ask():
            outcome = calling.call_alone(PoisonRunner(), {str(place)!r}, seconds=100, take=turns.meet)
            pids.append(outcome.result)
        threads = [threading.Thread(target=ask) for _ in range(12)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(json.dumps(pids))
        """
    )
    assert len(set(pids)) == 12
    assert set(pids) == {entry.name for entry in place.iterdir()}


def test_a_child_has_nothing_of_its_siblings_nor_of_the_workers_and_chance_of_its_own() -> None:
    told = told_by(
        """
        from structlog.contextvars import bound_contextvars
        import random, uuid_utils
        uuid_utils.uuid7(), random.random()
        with bound_contextvars(org="acme", job="j1", task="t1"):
            look = lambda: json.loads(calling.call_alone(PoisonRunner(), 0, seconds=100, take=turns.look_around).result)
            looping = threading.Thread(target=alone, args=("loop", 20), daemon=True)
            looping.start()
            print(json.dumps([look(), look(), calling._zygote.pid]))
        sys.stdout.flush()
        os._exit(0)
        """,
        stdin=subprocess.DEVNULL,
    )
    *seen, zygote_pid = told
    for child in seen:
        assert child["parent"] == zygote_pid
        assert sum(name.startswith("socket:") for name in child["files"]) == 1, child["files"]
        assert child["defaults"] == ["SIGTERM", "SIGCHLD", "SIGHUP"]
        assert child["threads"] == 1
        assert child["facts"] == {"org": "acme", "job": "j1", "task": "t1"}
        assert not child["is_read"]
    assert not set(seen[0]["chance"]) & set(seen[1]["chance"])


def test_what_a_turn_needs_is_read_once_before_the_fork_and_without_a_thread() -> None:
    *seen, threads = told_by(
        """
        look = lambda *needs: json.loads(
            calling.call_alone(PoisonRunner(), 0, seconds=100, take=turns.look_around, needs=needs).result)
        seen = look(), look("openai"), look()
        zygote = calling._zygote.pid
        print(json.dumps([*(child["is_read"] for child in seen), len(os.listdir(f"/proc/{zygote}/task"))]))
        """
    )
    assert seen == [False, True, True]
    assert threads == 1


def test_turns_leave_no_file_and_no_zombie_behind() -> None:
    before, after, here, left = told_by(
        """
        zygote = calling._zygote.pid
        alone("pid")
        # Its own line and the two ends that signals wake it by, beside what it was born with.
        before, here = 3 + 3, len(turns._files(os.getpid()))
        wait_for(lambda: len(turns._files(zygote)) <= before, what="the first line is closed")
        for number in range(50):
            alone(("pid", "kill", "leave", "exit")[number % 4])
        wait_for(lambda: len(turns._files(zygote)) <= before, what="the last line is closed")
        here = len(turns._files(os.getpid())) - here
        print(json.dumps([before, len(turns._files(zygote)), here, turns.children(zygote)]))
        """,
        close_fds=True,
    )
    assert (after, here, left) == (before, 0, [])


# --- How it ends -----------------------------------------------------------------------------------------------
def test_a_turn_that_kills_its_parent_is_lost_and_never_taken_again(tmp_path: Path) -> None:
    """And those who stood beside it, for nobody knows what they have done; later turns go on without a zygote."""
    code, message, is_gone_too, later, is_lost = told_by(
        """
        from agent_jobs.runners import zygote
        calling._in_new_python, in_new = lambda *_: 1 / 0, calling._in_new_python
        outcome = alone("parricide")
        calling._in_new_python = in_new
        wait_for(lambda: turns.is_gone(calling._zygote.pid), what="it is dead")
        later = [alone("pid").result != str(os.getpid()) for _ in range(2)]
        print(json.dumps([outcome.code, outcome.message, turns.children(os.getpid()), later, calling._zygote._is_lost]))
        """
    )
    assert (code, later, is_lost) == ("worker_lost", [True, True], True)
    assert "together with the process that it was forked from" in message
    assert is_gone_too == []  # reaped as well


def test_a_turn_under_way_when_the_zygote_dies_is_not_taken_elsewhere(tmp_path: Path) -> None:
    place = tmp_path / "marks"
    code, marks = told_by(
        f"""
        from pathlib import Path
        place, ended = Path({str(place)!r}), []
        ask = lambda: ended.append(
            calling.call_alone(PoisonRunner(), str(place), seconds=100, take=turns.mark_and_wait))
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: place.exists() and place.read_text(), what="it runs")
        (child,) = turns.children(calling._zygote.pid)
        os.kill(calling._zygote.pid, signal.SIGKILL)
        asking.join()
        wait_for(lambda: turns.is_gone(child), what="it has ended with the zygote")
        print(json.dumps([ended[0].code, place.read_text()]))
        """
    )
    assert (code, marks) == ("worker_lost", "once ")


def test_where_no_child_can_be_forked_the_turn_is_taken_by_a_new_python() -> None:
    pids, zygote_pid = told_by(
        """
        os.kill(calling._zygote.pid, signal.SIGKILL)
        print(json.dumps([[alone("pid").result for _ in range(2)], calling._zygote.pid]))
        """
    )
    assert all(pid.isdigit() for pid in pids)
    assert len({*pids, str(zygote_pid)}) == 3


def test_a_process_with_threads_is_not_forked() -> None:
    assert told_by(
        """
        print(json.dumps([calling._zygote is None, alone("pid").result.isdigit()]))
        forever.set()
        """,
        start="""
        forever = threading.Event()
        threading.Thread(target=forever.wait).start()
        calling.start_zygote()
        """,
    ) == [True, True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_end_with_the_worker(number: signal.Signals, tmp_path: Path) -> None:
    place = tmp_path / "2"
    place.mkdir()
    with worker(
        """
        for _ in range(2):
            threading.Thread(target=alone, args=("loop", 600)).start()
        children = wait_for(lambda: len(turns.children(calling._zygote.pid)) == 2 and
                            turns.children(calling._zygote.pid), what="both run")
        print(json.dumps([calling._zygote.pid, *children]), flush=True)
        """
    ) as process:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())
        os.kill(process.pid, number)
        for pid in pids:
            wait_for(lambda pid=pid: is_gone(pid), what=f"{pid} ends with its worker")


def test_what_is_sent_to_all_processes_of_a_worker_is_left_to_the_worker() -> None:
    assert (
        told_by(
            """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(calling._zygote.pid, number)
        calling._in_new_python = lambda *_: 1 / 0
        print(json.dumps(alone("print").result))
        """
        )
        == "printed"
    )


def test_without_the_kernels_help_the_zygote_and_its_children_end_when_the_worker_hangs_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with worker(
        """
        threading.Thread(target=alone, args=("loop", 600)).start()
        children = wait_for(lambda: turns.children(calling._zygote.pid), what="it runs")
        print(json.dumps([calling._zygote.pid, *children]), flush=True)
        """,
        start="""
        from agent_jobs.runners import zygote
        zygote.end_with = lambda parent: None
        calling.start_zygote()
        """,
    ) as process:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())
        process.kill()
        for pid in pids:
            wait_for(lambda pid=pid: is_gone(pid), what=f"{pid} ends with its worker")
