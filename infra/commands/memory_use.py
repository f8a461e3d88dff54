"""Measures the memory that all processes of a command use together. `command_limits` has the limit.

The kernel limits each process alone. It would limit them together in a cgroup, which needs root or a delegation that
few machines give.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def of_descendants(process: int, *, most: int) -> int:
    """The bytes of memory that all descendants of `process` hold. Pages that they share count once.

    Counting shared pages once is slow, so up to `most` it answers the sum of their resident memory, which is never
    less. 0 where the kernel does not tell who the children are.
    """
    found = list(_descendants(process))
    resident = sum(map(_resident, found))
    return resident if resident <= most else sum(map(_proportional, found))


def _descendants(process: int) -> Iterator[int]:
    waiting = [process]
    while waiting:
        number = waiting.pop()
        with suppress(OSError):
            for task in Path(f"/proc/{number}/task").iterdir():
                with suppress(OSError):
                    children = [int(child) for child in (task / "children").read_text().split()]
                    waiting += children
                    yield from children


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(process: int) -> int:
    """A process's own pages, and its share of pages that it shares. 0 if it has ended or may not be examined."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
