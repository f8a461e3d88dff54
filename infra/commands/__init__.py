"""Runs commands of tenants: captured, limited, and ended with everything that they started.

`run(spec, mode=...)` blocks until the command has ended, and returns a result for everything that a command can do.
It knows neither Django nor the database. docs/commands.md says what each mode guarantees.

    command_spec   what to run and how it ended; it checks its values
    command_limits  the limits of memory, CPU time, processes and files
    capped_output  keeps head and tail of an output; `cap_text` does it for a whole text
    probing        whether this machine can run a mode, and why not
    running        one run: its folder, its child, its watch
    watching       reads the output, and ends the command at its limits
    children       the child process of each mode
    bubblewrap     the arguments of the sandbox
    seccomp        the system calls that a sandbox refuses
    trusted_supervisor  the program that is the parent of a trusted command
    spawner        the thread that starts all children
    job_user       the account that commands run as
    memory_use     adds up the memory of a command's processes
    work_folder    makes and removes the folder of a command
"""

from collections.abc import Callable
from pathlib import Path

from infra.commands import job_user, running
from infra.commands.capped_output import CappedOutput, CappedText, cap_text
from infra.commands.command_limits import Limits
from infra.commands.command_spec import (
    CommandResult,
    CommandSpec,
    EndedBy,
    Mode,
)
from infra.commands.errors import InvalidCommandError, SandboxUnavailable
from infra.commands.probing import Capability, probe

__all__ = [
    "Capability",
    "CappedOutput",
    "CappedText",
    "CommandResult",
    "CommandSpec",
    "EndedBy",
    "InvalidCommandError",
    "Limits",
    "Mode",
    "SandboxUnavailable",
    "cap_text",
    "probe",
    "run",
]


def run(
    spec: CommandSpec,
    *,
    mode: Mode,
    work_folder: Path | None = None,
    should_stop: Callable[[], str | None] = lambda: None,
    user: str = job_user.DEFAULT_USER,
) -> CommandResult:
    """Run the command and return how it ended. It blocks the calling thread, which may be any.

    `should_stop` is asked five times a second. A text that it returns ends the command and becomes the message. What
    it raises is raised here, after the command has been ended. `user` is the account for the commands of a root worker.

    `work_folder` is handed over to that account. Without one, the command gets a fresh one, which is removed.
    Raises SandboxUnavailable if this machine cannot run commands in this mode.
    """
    able = probe(Mode(mode), user=user)
    if not able.ok or able.ground is None:
        raise SandboxUnavailable(able.reason)
    return running.execute(spec, able.ground, work_folder=work_folder, should_stop=should_stop)
