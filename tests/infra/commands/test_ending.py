"""A command ends with everything that it started: at its time-out, when it is told to, and with its worker."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from infra.commands import CommandResult, Limits, Mode, spawner
from tests.infra.commands.conftest import processes_with, run_in, stop_when
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[3]
# Half of what a command that is not ended would take. A busy machine adds seconds, a missing kill adds a minute.
SOON = 30.0

# Each leaves a process behind that a kill of the process group or of the first process misses.
ESCAPES = {
    "a plain child": "sleep {marker} & sleep {marker}",
    "a child in its own session": "setsid sleep {marker} & sleep {marker}",
    "a double fork": "( ( setsid setsid sleep {marker} & ) & ) ; sleep {marker}",
    "one that ignores SIGTERM": "trap '' TERM INT HUP; ( setsid sleep {marker} ) & sleep {marker}",
    "one without its environment": "env -i setsid sleep {marker} & exec env -i sleep {marker}",
    "one without open files": "setsid sleep {marker} </dev/null >/dev/null 2>&1 & sleep {marker}",
}


@pytest.fixture(params=list(ESCAPES))
def escape(request: pytest.FixtureRequest, marker: str) -> str:
    return ESCAPES[request.param].format(marker=marker)


def test_a_command_that_runs_too_long_is_ended_with_all_that_it_started(mode: Mode, marker: str) -> None:
    def one(number: int, escape: str) -> CommandResult:
        line = f"echo begun; {escape.format(marker=f'{marker}.{number}')}"
        return run_in(mode, line, timeout=timedelta(seconds=2))

    with ThreadPoolExecutor(len(ESCAPES)) as pool:
        results = dict(zip(ESCAPES, pool.map(one, range(len(ESCAPES)), ESCAPES.values()), strict=True))
    for name, result in results.items():
        assert (result.ended_by, result.exit_code, result.signal) == ("timeout", None, "SIGKILL"), name
        assert result.stdout == "begun\n"
        assert "time-out" in result.message
        assert 2 <= result.duration_seconds < SOON
    assert {number for number in range(len(ESCAPES)) if processes_with(f"{marker}.{number}")} == set()


def test_a_command_that_is_canceled_is_ended_with_all_that_it_started(mode: Mode, escape: str, marker: str) -> None:
    result = run_in(mode, escape, should_stop=stop_when(lambda: len(processes_with(f"sleep\0{marker}")) >= 2))
    assert (result.ended_by, result.exit_code, result.message) == ("canceled", None, "enough")


def test_a_cancel_takes_less_than_two_seconds(mode: Mode, marker: str) -> None:
    asked_at: list[float] = []

    def should_stop() -> str | None:
        if processes_with(f"sleep\0{marker}"):
            asked_at.append(time.monotonic())
        return "canceled by ada" if asked_at else None

    result = run_in(mode, f"trap '' TERM; setsid sleep {marker} & sleep {marker}", should_stop=should_stop)
    assert result.message == "canceled by ada"
    assert time.monotonic() - asked_at[0] < 2
    assert processes_with(marker) == []


def test_what_is_left_when_the_command_exits_is_ended(mode: Mode, marker: str) -> None:
    began = time.monotonic()
    result = run_in(mode, f"sleep {marker} & setsid sleep {marker} >/dev/null 2>&1 & echo done; exit 4")
    assert (result.ended_by, result.exit_code, result.stdout) == ("exit", 4, "done\n")
    assert time.monotonic() - began < SOON


def test_a_fault_of_the_caller_ends_the_command(mode: Mode, marker: str) -> None:
    def should_stop() -> str | None:
        if processes_with(f"sleep\0{marker}"):
            raise ConnectionError("the database is away")
        return None

    with pytest.raises(ConnectionError):
        run_in(mode, f"setsid sleep {marker} & sleep {marker}", should_stop=should_stop)
    assert processes_with(marker) == []


def test_a_fork_bomb_is_bounded_and_ended(mode: Mode, marker: str) -> None:
    counts: list[int] = []

    def has_grown() -> bool:
        counts.append(len(processes_with(marker)))
        return sum(count > 20 for count in counts) > 5

    bomb = ("perl", "-e", "fork while 1", marker)
    result = run_in(mode, bomb, limits=Limits(processes=30), should_stop=stop_when(has_grown))
    assert result.ended_by == "canceled"
    # In trusted mode the kernel counts all processes of the user, and other ones of it may end meanwhile.
    # The sandbox adds two of bwrap's own.
    assert max(counts) <= (32 if mode is Mode.SANDBOX else 60)
    assert processes_with(marker) == []


def test_no_zombie_descriptor_or_thread_is_left(mode: Mode, marker: str) -> None:
    run_in(mode, ("true",))  # starts the thread that stays
    before = set(os.listdir("/proc/self/fd")), threading.active_count(), children_of(os.getpid())
    run_in(mode, "for i in 1 2 3 4 5; do ( setsid true & ); done; exit 0")
    run_in(mode, f"setsid sleep {marker} & sleep {marker}", timeout=timedelta(seconds=0.5))
    run_in(mode, ("true",), work_folder=Path("/no/such/folder"))
    assert (set(os.listdir("/proc/self/fd")), threading.active_count(), children_of(os.getpid())) == before


def children_of(parent: int) -> set[int]:
    """The children of a process, zombies too."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            above = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if above == parent:
            found.add(int(path.parent.name))
    return found


WORKER = """
    import sys, threading
    from datetime import timedelta
    from infra import commands
    mode, *lines = sys.argv[1:]
    def work(line):
        commands.run(commands.CommandSpec(shell=line, timeout=timedelta(minutes=2)), mode=commands.Mode(mode))
    threads = [threading.Thread(target=work, args=[line]) for line in lines]
    for thread in threads:
        thread.start()
    threads[0].join()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_takes_its_commands_with_it(
    mode: Mode, marker: str, number: signal.Signals, make_home: Callable[[], Path]
) -> None:
    lines = [escape.format(marker=f"{marker}.{at}") for at, escape in enumerate(ESCAPES.values())]
    line = [sys.executable, "-c", textwrap.dedent(WORKER), mode, *lines]
    worker = subprocess.Popen(line, cwd=ROOT, env=os.environ | {"TMPDIR": str(make_home())})  # it leaves folders
    try:
        for at, name in enumerate(ESCAPES):
            wait_for(lambda at=at: len(processes_with(f"sleep\0{marker}.{at}")) >= 2, what=f"{name} runs")
        worker.send_signal(number)
        worker.wait(PATIENCE)
        wait_for(lambda: not processes_with(marker), what="nothing of the commands is left", seconds=SOON)
    finally:
        worker.kill()
        worker.wait()


def test_a_supervisor_that_is_killed_is_reported_and_its_command_ends(marker: str) -> None:
    def kill_supervisor() -> str | None:
        if processes_with(f"sleep\0{marker}"):
            for process in children_of(os.getpid()) & set(processes_with("trusted_supervisor.py")):
                os.kill(process, signal.SIGKILL)
        return None

    result = run_in(
        Mode.TRUSTED, f"sleep {marker} & ( sleep {marker} & ) ; sleep {marker}", should_stop=kill_supervisor
    )
    assert (result.ended_by, result.exit_code) == ("setup_error", None)
    assert "SIGKILL" in result.message
    wait_for(lambda: not processes_with(marker), what="the command has ended")


def test_a_child_started_by_the_spawner_outlives_the_thread_that_asked_for_it() -> None:
    """The control beside it shows that the kernel really ends children of a thread that has ended."""

    def start() -> "subprocess.Popen[bytes]":
        line = ["setpriv", "--pdeathsig", "KILL", "cat"]
        return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    started: list[subprocess.Popen[bytes]] = []

    def in_a_thread(by_spawner: bool) -> None:
        child = spawner.start(start) if by_spawner else start()
        started.append(child)
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"?")
        assert child.stdout.read(1) == b"?"  # it has asked for its signal

    for by_spawner in (True, False):
        thread = threading.Thread(target=in_a_thread, args=[by_spawner])
        thread.start()
        thread.join()
    kept, control = started
    assert control.wait(PATIENCE) == -signal.SIGKILL
    assert kept.stdin
    kept.stdin.close()
    assert kept.wait(PATIENCE) == 0
    for child in started:
        assert child.stdout
        child.stdout.close()


def test_a_child_that_starts_while_its_caller_is_interrupted_is_ended() -> None:
    class InterruptedByTestError(Exception):
        pass

    has_left = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def interrupt(*_: object) -> None:
        if not has_left.is_set():
            has_left.set()
            raise InterruptedByTestError

    def start() -> "subprocess.Popen[bytes]":
        for _ in range(int(PATIENCE / 0.05)):  # Python may miss a signal just before it waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            if has_left.wait(0.05):
                break
        started.append(subprocess.Popen(["sleep", "1000"]))
        return started[0]

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(InterruptedByTestError):
            spawner.start(start)
        wait_for(lambda: started and started[0].returncode == -signal.SIGKILL, what="the child is ended")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_forked_process_runs_commands_of_its_own(mode: Mode) -> None:
    program = """
        import os, sys
        from infra import commands
        spec, mode = commands.CommandSpec(argv=("true",)), commands.Mode(sys.argv[1])
        assert commands.run(spec, mode=mode).is_success
        child = os.fork()
        if child == 0:
            os._exit(0 if commands.run(spec, mode=mode).is_success else 1)
        assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), mode], cwd=ROOT, timeout=PATIENCE, check=True)
