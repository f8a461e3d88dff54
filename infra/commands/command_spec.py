"""The shapes of a command: what to run, and how it ended. `command_limits` has its limits. Nothing here runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from infra.commands import capped_output
from infra.commands.command_limits import KIB, MIB, Limits
from infra.commands.errors import InvalidCommandError

MAX_ARGUMENTS = 1_000
MAX_VARIABLES = 1_000
# Linux accepts no argument and no variable above 128 KiB; all of them share a quarter of the stack's limit (8 MiB).
MAX_ARGUMENT_BYTES = 128 * KIB - 1
MAX_TOTAL_BYTES = MIB
MAX_STDIN_BYTES = 16 * MIB
MAX_OUTPUT_BYTES = 64 * MIB
MAX_TIMEOUT = timedelta(days=7)

EndedBy = Literal["exit", "timeout", "canceled", "output_limit", "memory_limit", "setup_error"]


class Mode(StrEnum):
    SANDBOX = "sandbox"
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command: either `argv`, or `shell` as a line for /bin/sh. InvalidCommandError names a wrong field.

    A relative `working_directory` is below the work folder and is created if it is missing. `repr` shows neither the
    environment nor the standard input, because they hold secrets.
    """

    argv: tuple[str, ...] = ()
    shell: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    working_directory: str = ""
    stdin: bytes = field(default=b"", repr=False)
    timeout: timedelta = timedelta(minutes=10)
    allow_network: bool = False
    limits: Limits = field(default_factory=Limits)
    max_output_bytes: int = MIB

    def __post_init__(self) -> None:
        if bool(self.argv) == bool(self.shell):
            raise InvalidCommandError("argv", "give either argv or shell")
        if self.argv and not self.argv[0]:
            raise InvalidCommandError("argv", "the first element names the program and must not be empty")
        if len(self.argv) > MAX_ARGUMENTS:
            raise InvalidCommandError("argv", f"has {len(self.argv)} elements; at most {MAX_ARGUMENTS} are allowed")
        if len(self.environment) > MAX_VARIABLES:
            raise InvalidCommandError("environment", f"has more than {MAX_VARIABLES} variables")
        total = sum(_checked_bytes("argv", argument) for argument in self.argv) + _checked_bytes("shell", self.shell)
        for name, value in self.environment.items():
            if not name or "=" in name or len(name) > KIB:
                raise InvalidCommandError("environment", f"{name[:100]!r} is not a variable name")
            total += _checked_bytes("environment", f"{name}={value}")
        if total > MAX_TOTAL_BYTES:
            raise InvalidCommandError("argv", f"arguments and environment exceed {MAX_TOTAL_BYTES} bytes")
        if len(self.stdin) > MAX_STDIN_BYTES:
            raise InvalidCommandError("stdin", f"exceeds {MAX_STDIN_BYTES} bytes")
        _check_directory(self.working_directory)
        if not timedelta(0) < self.timeout <= MAX_TIMEOUT:
            raise InvalidCommandError("timeout", "must be positive and at most seven days")
        if not capped_output.MIN_BYTES <= self.max_output_bytes <= MAX_OUTPUT_BYTES:
            raise InvalidCommandError(
                "max_output_bytes", f"must be from {capped_output.MIN_BYTES} to {MAX_OUTPUT_BYTES}"
            )

    @property
    def arguments(self) -> tuple[str, ...]:
        """The program and its arguments. A shell line runs in /bin/sh."""
        return self.argv or ("/bin/sh", "-c", self.shell)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    `exit_code` is None if the command never ran or was ended by us. A command that a signal ended has 128 + n, as in a
    shell, and `signal` names it. `message` says in a sentence why the command ended otherwise than by itself. Long
    outputs keep their head and tail (`capped_output`); the totals count all bytes.
    """

    ended_by: EndedBy
    exit_code: int | None = None
    signal: str = ""
    stdout: str = ""
    stderr: str = ""
    stdout_bytes_total: int = 0
    stderr_bytes_total: int = 0
    is_stdout_truncated: bool = False
    is_stderr_truncated: bool = False
    duration_seconds: float = 0.0
    message: str = ""

    @property
    def is_success(self) -> bool:
        return self.ended_by == "exit" and self.exit_code == 0


def _checked_bytes(field: str, text: str) -> int:
    if "\x00" in text:
        raise InvalidCommandError(field, "must not contain NUL characters")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidCommandError(field, "must be valid Unicode") from None
    if size > MAX_ARGUMENT_BYTES:
        raise InvalidCommandError(field, f"has a part of more than {MAX_ARGUMENT_BYTES} bytes, which Linux refuses")
    return size


def _check_directory(path: str) -> None:
    _checked_bytes("working_directory", path)
    if len(path) > 4 * KIB:
        raise InvalidCommandError("working_directory", "is too long")
    if ".." in path.split("/"):
        raise InvalidCommandError("working_directory", "must not contain ..")
