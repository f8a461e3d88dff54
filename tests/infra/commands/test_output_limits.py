"""A command that writes for ever is ended, and the memory of the worker stays flat."""

import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

from infra.commands import Mode
from tests.infra.commands.conftest import run_in
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[3]


def test_a_command_that_writes_for_ever_is_ended_and_its_output_kept_by_both_ends(mode: Mode) -> None:
    result = run_in(mode, "echo head; yes", max_output_bytes=10_000)
    assert (result.ended_by, result.exit_code) == ("output_limit", None)
    assert result.stdout.startswith("head\ny\n")
    assert result.stdout.rstrip().endswith("y\ny")
    assert "bytes left out]" in result.stdout
    assert result.is_stdout_truncated
    assert not result.is_stderr_truncated
    assert result.stdout_bytes_total > 1_000_000
    assert len(result.stdout.encode()) <= 10_000
    assert "1000000 bytes" in result.message


def test_the_errors_of_a_command_are_limited_alike(mode: Mode) -> None:
    result = run_in(mode, "yes >&2", max_output_bytes=10_000)
    assert result.ended_by == "output_limit"
    assert result.is_stderr_truncated


def test_output_above_the_cap_and_below_the_limit_lets_the_command_end_by_itself(mode: Mode) -> None:
    result = run_in(mode, "seq 100000; seq 100000 >&2; exit 5", max_output_bytes=10_000)
    assert (result.ended_by, result.exit_code) == ("exit", 5)
    assert result.stdout.startswith("1\n2\n")
    assert result.stdout.endswith("99999\n100000\n")
    assert result.stdout_bytes_total == result.stderr_bytes_total == 588_895


def test_a_command_that_never_stops_writing_still_meets_its_time_out(mode: Mode) -> None:
    line = "while :; do echo line; done"
    result = run_in(mode, line, max_output_bytes=60_000_000, timeout=timedelta(seconds=1))
    assert result.ended_by == "timeout"
    assert result.stdout_bytes_total > 0


def test_a_hundred_megabytes_leave_the_memory_of_the_worker_flat(mode: Mode) -> None:
    program = """
        import resource, sys
        from infra import commands
        from infra.commands import CommandSpec, Mode
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run = lambda line: commands.run(CommandSpec(shell=line), mode=Mode(sys.argv[1]))
        assert run("yes | head -c 4000000").is_success
        before = peak()
        result = run("yes | head -c 100000000")
        assert (result.ended_by, result.stdout_bytes_total) == ("exit", 100_000_000), result.ended_by
        print(peak() - before)
    """
    line = [sys.executable, "-c", textwrap.dedent(program), mode]
    done = subprocess.run(line, cwd=ROOT, timeout=PATIENCE, check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) < 4_000  # kilobytes
