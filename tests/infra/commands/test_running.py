"""A command runs, its output is captured, and its result says how it ended."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from infra.commands import CommandSpec, InvalidCommandError, Limits, Mode
from tests.infra.commands.conftest import run_in


def test_both_streams_and_the_exit_code_are_captured(mode: Mode) -> None:
    result = run_in(mode, "echo out; echo err >&2; exit 3")
    assert (result.ended_by, result.exit_code, result.signal) == ("exit", 3, "")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert (result.stdout_bytes_total, result.stderr_bytes_total) == (4, 4)
    assert not result.is_stdout_truncated
    assert not result.is_stderr_truncated
    assert not result.is_success


def test_an_argv_is_run_without_a_shell(mode: Mode) -> None:
    result = run_in(mode, ("echo", "$HOME; `id`", "", "two words"))
    assert result.is_success
    assert result.stdout == "$HOME; `id`  two words\n"


def test_the_environment_is_only_what_was_given(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_SECRET", "never-seen")
    result = run_in(mode, ("env",), environment={"TOKEN": "line\nbreak = 1", "LANG": "C"})
    assert "TOKEN=line\nbreak = 1\n" in result.stdout
    assert "LANG=C\n" in result.stdout
    assert "WORKER_SECRET" not in result.stdout
    names = {line.partition("=")[0] for line in result.stdout.splitlines()}
    assert names == {"TOKEN", "break ", "LANG", "HOME", "PATH", "PWD"}


def test_standard_input_reaches_the_command(mode: Mode) -> None:
    content = os.urandom(2_000_000)
    result = run_in(mode, "wc -c; wc -c </dev/null", stdin=content)
    assert result.stdout.split() == ["2000000", "0"]
    assert run_in(mode, ("cat",)).stdout == ""


def test_a_command_can_reopen_its_streams_by_name(mode: Mode) -> None:
    result = run_in(mode, "echo a >/dev/stdout; echo b >/dev/stderr; cat /dev/stdin", stdin=b"c")
    assert (result.stdout, result.stderr, result.exit_code) == ("a\nc", "b\n", 0)


def test_a_relative_working_directory_is_made_below_the_work_folder(mode: Mode) -> None:
    result = run_in(mode, 'pwd; echo x > file; test "$PWD" = "$HOME/a b/c"', working_directory="a b/c")
    assert result.exit_code == 0
    assert result.stdout.endswith("/a b/c\n")


def test_an_absolute_working_directory_is_entered(mode: Mode) -> None:
    assert run_in(mode, ("pwd",), working_directory="/usr/lib").stdout == "/usr/lib\n"


def test_a_working_directory_that_cannot_be_entered_is_an_error_of_the_setup(mode: Mode) -> None:
    result = run_in(mode, ("true",), working_directory="/usr/bin/env/x")
    assert (result.ended_by, result.exit_code) == ("setup_error", None)
    assert "could not enter its working directory" in result.message


def test_a_command_that_exits_with_125_is_no_error_of_the_setup(mode: Mode) -> None:
    result = run_in(mode, "exit 125", working_directory="below")
    assert (result.ended_by, result.exit_code) == ("exit", 125)


def test_an_unknown_program_exits_with_127_as_in_a_shell(mode: Mode) -> None:
    for line in (("no-such-program",), "no-such-program", ("/usr/no/such",)):
        result = run_in(mode, line)
        assert (result.ended_by, result.exit_code) == ("exit", 127)
        assert "not found" in result.message


def test_a_file_that_is_no_program_exits_with_126(mode: Mode) -> None:
    result = run_in(mode, ("/etc/passwd",))
    assert (result.ended_by, result.exit_code) == ("exit", 126)


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM")])
def test_a_signal_that_ends_the_command_is_named(mode: Mode, number: int, name: str) -> None:
    result = run_in(mode, f"kill -{number} $$")
    assert (result.ended_by, result.exit_code, result.signal) == ("exit", 128 + number, name)


def test_output_that_is_no_utf8_is_replaced(mode: Mode) -> None:
    result = run_in(mode, r"printf 'a\377b\000c\303\251'")
    assert result.stdout == "a\ufffdb\ufffdcé"
    assert result.stdout_bytes_total == 7


def test_the_callers_folder_is_used_and_kept(mode: Mode, work_folder: Path) -> None:
    (work_folder / "given").write_text("from the caller")
    result = run_in(mode, "cat given; mkdir -p out; echo made > out/file", work_folder=work_folder)
    assert result.stdout == "from the caller"
    assert (work_folder / "out/file").read_text() == "made\n"


def test_a_program_in_the_callers_folder_is_run_by_its_relative_path(mode: Mode, work_folder: Path) -> None:
    for name, first_line in (("script", "#!/bin/sh\n"), ("plain", "")):
        (work_folder / name).write_text(f"{first_line}echo {name} $1\n")
        (work_folder / name).chmod(0o755)
        result = run_in(mode, (f"./{name}", "argument"), work_folder=work_folder)
        assert (result.stdout, result.exit_code) == (f"{name} argument\n", 0)


def test_a_folder_of_the_caller_that_is_not_there_is_an_error_of_the_setup(mode: Mode) -> None:
    result = run_in(mode, ("true",), work_folder=Path("/tmp/no/such/folder"))
    assert result.ended_by == "setup_error"
    assert "/tmp/no/such/folder" in result.message


def test_commands_run_at_the_same_time_without_meeting(mode: Mode) -> None:
    together = threading.Barrier(4)

    def one(number: int) -> str:
        together.wait()
        return run_in(mode, f"cat; echo {number} > f; cat f; ls | wc -l", stdin=b"%d " % number).stdout

    with ThreadPoolExecutor(4) as pool:
        assert [said.split() for said in pool.map(one, range(4))] == [[str(n), str(n), "1"] for n in range(4)]


def test_an_unusual_path_does_not_hide_the_programs_that_set_the_limits(mode: Mode) -> None:
    assert run_in(mode, ("/usr/bin/id",), environment={"PATH": "/nowhere"}).is_success


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({}, "argv"),
        ({"argv": ("a",), "shell": "a"}, "argv"),
        ({"argv": ("",)}, "argv"),
        ({"argv": ("a\0",)}, "argv"),
        ({"argv": ("a",) * 1_001}, "argv"),
        ({"argv": tuple("a" * 100_000 for _ in range(20))}, "argv"),
        ({"shell": "a" * 200_000}, "shell"),
        ({"shell": "\ud800"}, "shell"),
        ({"shell": "a", "environment": {"": "x"}}, "environment"),
        ({"shell": "a", "environment": {"A=B": "x"}}, "environment"),
        ({"shell": "a", "environment": {"A": "x\0"}}, "environment"),
        ({"shell": "a", "environment": {str(n): "" for n in range(1_001)}}, "environment"),
        ({"shell": "a", "working_directory": "a/../../b"}, "working_directory"),
        ({"shell": "a", "timeout": timedelta(0)}, "timeout"),
        ({"shell": "a", "timeout": timedelta(days=8)}, "timeout"),
        ({"shell": "a", "max_output_bytes": 1}, "max_output_bytes"),
        ({"shell": "a", "stdin": bytes(17 << 20)}, "stdin"),
    ],
)
def test_a_command_that_cannot_run_is_refused_and_its_field_named(fault: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidCommandError) as refused:
        CommandSpec(**fault)  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["memory_bytes", "cpu_seconds", "processes", "file_bytes", "folder_bytes"])
@pytest.mark.parametrize("value", [-1, 1 << 63])
def test_a_limit_beyond_what_the_kernel_takes_is_refused(name: str, value: int) -> None:
    with pytest.raises(InvalidCommandError, match=name):
        Limits(**{name: value})


def test_the_largest_command_that_is_accepted_runs(mode: Mode) -> None:
    environment = {f"V{number}": "x" * 900 for number in range(990)}
    result = run_in(mode, ("sh", "-c", "env | wc -l", *("a" for _ in range(997))), environment=environment)
    assert result.ended_by == "exit"
    assert int(result.stdout) >= 990


def test_the_example_of_the_docs_runs(sandbox: Mode) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "commands.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    assert "assert result.is_success" in example
    exec(example, {})


def test_a_specification_does_not_print_its_secrets() -> None:
    assert "hunter2" not in repr(CommandSpec(shell="a", environment={"P": "hunter2"}, stdin=b"hunter2"))
