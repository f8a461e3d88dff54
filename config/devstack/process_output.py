"""Prints what the processes of `up` write: each line behind its process's name, without known noise.

The sentences of `up` itself are in `stack` and `supervisor`; those of the demo, with the addresses, in `config.demo`.
"""

import os
import sys

COLOURS = {"postgres": 34, "redis": 31, "web": 32, "worker1": 36, "worker2": 96, "beat": 35, "up": 33}
DEMO = "demo"  # its lines are for the person at the terminal, and printed unchanged
# Lines that servers print at every start and stop, and that help nobody here. Errors use other words.
NOISE = {
    "postgres": (
        "LOG:  starting PostgreSQL",
        "LOG:  listening on ",
        "LOG:  database system was shut down at",
        "LOG:  database system is ready to accept connections",
        "LOG:  received fast shutdown request",
        "LOG:  aborting any active transactions",
        'LOG:  background worker "logical replication launcher"',
        "LOG:  shutting down",
        "LOG:  database system is shut down",
    ),
    "redis": (
        "Memory overcommit must be enabled",
        "Reading config from stdin",
        "Received SIGTERM scheduling shutdown",
        "is now ready to exit",
    ),
    "worker1": ("worker: Warm shutdown",),
    "worker2": ("worker: Warm shutdown",),
}
LONGEST_LINE = 65536


class Lines:
    """Joins the pieces that a pipe delivers into whole lines."""

    def __init__(self) -> None:
        self._unfinished = b""

    def split(self, piece: bytes) -> list[str]:
        *lines, self._unfinished = (self._unfinished + piece).split(b"\n")
        if len(self._unfinished) > LONGEST_LINE:
            lines.append(self._unfinished)
            self._unfinished = b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


class Printer:
    def __init__(self) -> None:
        self._has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        self._print("up", text)

    def pass_on(self, name: str, line: str) -> None:
        """Print a line that a process wrote."""
        if (line or name == DEMO) and not any(noise in line for noise in NOISE.get(name, ())):
            self._print(name, line)

    def _print(self, name: str, text: str) -> None:
        if name != DEMO:
            prefix = f"{name:<8} | "
            text = f"\x1b[{COLOURS.get(name, 37)}m{prefix}\x1b[0m{text}" if self._has_colours else prefix + text
        try:
            print(text, flush=True)
        except OSError:
            # The terminal or pipe is gone. From now on output is lost; the processes go on.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
