"""`python -m config.celery_command worker …` and `… beat …`: Celery's own two commands, with their own options.

`celery --app config.celery worker …` does the same, and imports for it all of Celery's commands, with an interactive
shell among them: 0.18 of the 1.1 s of CPU that a worker's start takes.

A worker also gives way to the rest of the service: on a machine that is busy, whoever posts a job is answered first, by
the web processes and the database, and what the workers do takes a moment longer.
"""

import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from celery.bin.base import CLIContext
from django.conf import settings

from config.celery import app

COMMANDS = ("worker", "beat")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        sys.exit(f"usage: python -m config.celery_command {{{','.join(COMMANDS)}}} [options of the celery command]")
    if name == "worker":
        give_way(settings.WORKER_NICENESS)
    command = getattr(importlib.import_module(f"celery.bin.{name}"), name)
    command.main(sys.argv[2:], f"celery {name}", obj=CLIContext(app, no_color=True, workdir=None, quiet=True))


def give_way(niceness: int) -> None:
    """Lower this process's priority, as `nice` does: 0 leaves it, 19 is the least."""
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        # Linux may share the processors out among sessions first, and then `nice` only counts within ours.
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


if __name__ == "__main__":
    main()
