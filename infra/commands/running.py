"""Runs a command from its start to its end, in a mode that this machine is known to give."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from infra.commands import children
from infra.commands import work_folder as folders
from infra.commands.command_spec import CommandResult, CommandSpec, Mode
from infra.commands.job_user import JobUser
from infra.commands.watching import CommandWatch, ShouldStop


@dataclass(frozen=True, slots=True)
class Ground:
    """The account of the commands of one mode, and the program of their sandbox."""

    mode: Mode
    user: JobUser
    bwrap_path: Path | None = None


def execute(spec: CommandSpec, ground: Ground, *, work_folder: Path | None, should_stop: ShouldStop) -> CommandResult:
    """Run the command. What fails before its start is a result too (`setup_error`)."""
    with ExitStack() as used:
        try:
            child: children.CommandChild
            if work_folder:
                work_folder = folders.handed_over(work_folder, ground.user)
            if ground.bwrap_path:
                # Without a folder of the caller, the sandbox has one in memory, which disappears with it.
                child = children.SandboxChild(
                    spec, program=ground.bwrap_path, user=ground.user, work_folder=work_folder
                )
            else:
                folder = work_folder or used.enter_context(folders.fresh(ground.user))
                child = children.TrustedChild(spec, user=ground.user, work_folder=folder)
        except folders.UnusableFolderError as error:
            return CommandResult(ended_by="setup_error", message=str(error))
        except OSError as error:
            return CommandResult(ended_by="setup_error", message=f"The command could not be started: {error}.")
        return CommandWatch(child, spec, should_stop).follow()
