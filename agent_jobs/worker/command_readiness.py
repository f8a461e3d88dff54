"""Whether this worker can run commands as the setting COMMAND_RUNNER asks. There is no silent fallback."""

import logging

from django.conf import settings

from agent_jobs.runners import command_runner
from infra import commands

log = logging.getLogger(__name__)
_EXIT_CODE = 78  # EX_CONFIG of sysexits.h


def require() -> None:
    """End the process with exit code 78 if this machine cannot give the mode."""
    mode = settings.COMMAND_RUNNER
    if mode == command_runner.OFF:
        return
    able = commands.probe(commands.Mode(mode))
    if not able.ok:
        log.critical(
            "COMMAND_RUNNER=%s does not work on this machine, so this worker does not start: %s", mode, able.reason
        )
        raise SystemExit(_EXIT_CODE)
