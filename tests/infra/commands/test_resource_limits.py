"""The kernel ends or refuses what exceeds a limit of the command."""

import os
from pathlib import Path

import pytest

from infra.commands import Limits, Mode
from tests.infra.commands.conftest import run_in

MIB = 1 << 20


def test_memory_is_limited(mode: Mode) -> None:
    line = "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c"  # tail keeps all of it
    assert run_in(mode, line, limits=Limits(memory_bytes=512 * MIB)).stdout == "200000000\n"
    limited = run_in(mode, line, limits=Limits(memory_bytes=100 * MIB))
    assert limited.stdout == "0\n"
    assert "memory exhausted" in limited.stderr


def test_memory_of_all_processes_together_is_limited(mode: Mode, marker: str) -> None:
    holding = f"{{ head -c 60000000 /dev/zero; sleep {marker}; }} | tail -c 60000000 & "  # tail keeps all of it
    line = holding * 4 + "wait"
    limited = run_in(mode, line, limits=Limits(memory_bytes=200 * MIB))
    assert (limited.ended_by, limited.exit_code) == ("memory_limit", None)
    assert "together" in limited.message


def test_memory_that_forked_processes_share_counts_once(mode: Mode) -> None:
    line = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); for i in 1 2 3 4 5; do ( sleep 1; : ) & done; wait; echo well"
    result = run_in(mode, line, limits=Limits(memory_bytes=300 * MIB))
    assert (result.ended_by, result.stdout) == ("exit", "well\n")


def test_cpu_time_is_limited(mode: Mode) -> None:
    result = run_in(mode, "while :; do :; done", limits=Limits(cpu_seconds=1))
    assert (result.ended_by, result.signal, result.exit_code) == ("exit", "SIGXCPU", 152)
    assert "CPU time" in result.message


def test_cpu_time_is_limited_also_where_the_signal_is_ignored(mode: Mode) -> None:
    result = run_in(mode, "trap '' XCPU; while :; do :; done", limits=Limits(cpu_seconds=1))
    assert (result.ended_by, result.signal) == ("exit", "SIGKILL")


def test_the_size_of_a_file_is_limited(mode: Mode) -> None:
    result = run_in(mode, "head -c 3000000 /dev/zero > file; wc -c < file", limits=Limits(file_bytes=MIB))
    assert result.stdout == f"{MIB}\n"
    ended = run_in(mode, ("sh", "-c", "exec head -c 3000000 /dev/zero > file"), limits=Limits(file_bytes=MIB))
    assert (ended.signal, ended.message) == ("SIGXFSZ", "The command wrote a file larger than its limit.")


def test_the_number_of_processes_is_limited(mode: Mode) -> None:
    line = "i=0; while [ $i -lt 300 ]; do sleep 600 & i=$((i+1)); echo $i; done"
    result = run_in(mode, line, limits=Limits(processes=20))
    assert result.exit_code != 0
    started = len(result.stdout.split())
    if mode is Mode.SANDBOX:
        assert started == 19  # and the shell
    else:
        assert started < 100  # the kernel counts all processes of the user
    assert "fork" in result.stderr


def test_two_sandboxes_do_not_share_the_number_of_processes(sandbox: Mode, marker: str) -> None:
    def inner() -> str | None:
        result = run_in(sandbox, "sleep 0 & sleep 0 & sleep 0 & wait; echo ok", limits=Limits(processes=4))
        return result.stdout

    outer = run_in(
        sandbox, f"sleep {marker} & sleep {marker} & sleep {marker}", limits=Limits(processes=4), should_stop=inner
    )
    assert outer.message == "ok\n"


def test_a_command_leaves_no_core_file(mode: Mode, work_folder: Path) -> None:
    assert run_in(mode, "ulimit -c; kill -SEGV $$", work_folder=work_folder).stdout == "0\n"
    assert list(work_folder.iterdir()) == []


@pytest.mark.parametrize("place", ["/work", "/tmp", "/dev/shm"])
def test_what_a_sandbox_writes_into_memory_is_limited(sandbox: Mode, place: str) -> None:
    line = f"i=0; while [ $i -lt 100 ]; do head -c {MIB} /dev/zero > {place}/$i || exit 9; i=$((i+1)); done"
    result = run_in(sandbox, line, limits=Limits(folder_bytes=8 * MIB))
    assert result.exit_code == 9
    assert "No space left" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set this limit higher")
def test_a_lower_limit_of_the_worker_stays(mode: Mode) -> None:
    result = run_in(mode, "ulimit -n")
    assert int(result.stdout) <= 1_024
