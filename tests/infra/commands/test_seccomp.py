"""Sandboxed commands cannot call the parts of the kernel that no ordinary program needs."""

import errno
import platform
import re
from pathlib import Path

import pytest

from infra.commands import Mode, seccomp
from tests.infra.commands.conftest import run_in

HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[column].read_text()
    known = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", text, re.M))
    assert {name: int(known[name]) for name in seccomp.DENIED} == {
        name: numbers[column] for name, numbers in seccomp.DENIED.items()
    }


def test_every_denied_call_is_refused_and_others_are_not(sandbox: Mode) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of the control below are those of x86-64")
    numbers = sorted(row[0] for row in seccomp.DENIED.values())
    line = "for (@ARGV) { $! = 0; my $r = syscall($_, 0, 0, 0, 0, 0); print $r < 0 ? $!+0 : 0, qq(\\n) }"
    getppid, socket_of_no_family, x32 = "110", "41", str(0x40000000 + 39)
    result = run_in(sandbox, ("perl", "-e", line, *map(str, numbers), getppid, socket_of_no_family, x32))
    *denied, allowed, other_error, foreign = map(int, result.stdout.split())
    assert denied == [errno.EPERM] * len(numbers)
    assert allowed == 0
    assert other_error not in (0, errno.EPERM)
    assert foreign == errno.ENOSYS


def test_the_filter_is_on(sandbox: Mode) -> None:
    assert "Seccomp:\t2" in run_in(sandbox, ("cat", "/proc/self/status")).stdout


def test_an_unknown_processor_gets_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    seccomp.program.cache_clear()
    try:
        assert seccomp.program() == b""
    finally:
        seccomp.program.cache_clear()
