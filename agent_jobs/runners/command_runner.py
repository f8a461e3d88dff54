"""Performs command jobs: one program an attempt, captured and limited. `command_work` describes their work.

Exit code 0 completes the job. Other exit codes and time-outs may be retried, as the job's retry policy says. A command
that could not be started, or that wrote without end, fails for good.
"""

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from agent_jobs.errors import PermanentError, Unsupported
from agent_jobs.runners import command_work
from agent_jobs.runners.base import Done, Failed, Outcome, Run
from agent_jobs.work import WorkRules, blotted, hidden_in_outputs
from infra import commands
from infra.storable_text import storable

DEFAULT_ATTEMPT_SECONDS = 600.0
OFF = "off"
NETWORK_NOT_ALLOWED = "command_network_not_allowed"
NOT_ALLOWED = "commands_not_allowed"
_MAX_RESULT_CHARACTERS = 16 * 1024


class CommandRunner:
    name = "command"
    lane = "commands"
    batch_size = 1
    has_conversation = False
    needs_channel = False
    work: WorkRules | None = command_work.RULES

    def run(self, run: Run) -> Outcome:
        if run.commands == OFF:
            raise Unsupported("this worker runs no commands (COMMAND_RUNNER is off)", code="commands_off")
        seconds = float(run.config.get("attempt_timeout_seconds", DEFAULT_ATTEMPT_SECONDS))
        stopped = threading.Event()
        run.on_start(stopped.set)
        try:
            spec = command_work.spec(
                run.work, timeout=timedelta(seconds=seconds), told=command_work.told_variables(run)
            )
            result = commands.run(
                spec,
                mode=commands.Mode(run.commands),
                should_stop=lambda: "The job was canceled." if stopped.is_set() else None,
            )
        except commands.InvalidCommandError as error:
            raise PermanentError(f"work.{error}", code="setup_error") from None
        except commands.SandboxUnavailable as error:
            raise Unsupported(str(error), code="commands_off") from None
        return _outcome(result, hidden_in_outputs(run.work.get("environment", {}), run.config))


def _outcome(result: commands.CommandResult, hidden: Sequence[str]) -> Outcome:
    stdout, stderr = (_shown(text, hidden) for text in (result.stdout, result.stderr))
    message = _shown(result.message, hidden)
    report = {
        "exit_code": result.exit_code,
        "signal": result.signal or None,
        "stdout": stdout,
        "stderr": stderr,
        "is_stdout_truncated": result.is_stdout_truncated,
        "is_stderr_truncated": result.is_stderr_truncated,
        "duration_ms": round(result.duration_seconds * 1_000),
        "ended_by": result.ended_by,
        "message": message or None,
    }
    if result.is_success:
        data: dict[str, Any] = {"exit_code": 0}
        if len(stdout) <= _MAX_RESULT_CHARACTERS:
            data["stdout"] = stdout
        return Done(f"exit code 0 in {result.duration_seconds:.2f} s", result_data=data, report=report)
    match result.ended_by:
        case "exit":
            said = message or f"exit code {result.exit_code}{f' ({result.signal})' if result.signal else ''}"
            return Failed("exit_code", said, is_retryable=True, report=report)
        case "timeout":
            return Failed("attempt_timeout", message, is_retryable=True, report=report)
    return Failed(result.ended_by, message, report=report)


def _shown(text: str, hidden: Sequence[str]) -> str:
    return str(storable(blotted(text, hidden)))
