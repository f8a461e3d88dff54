"""`python -m config.celery_command worker …` and `… beat …`: Celery's own two commands, with their own options.

`celery --app config.celery worker …` does the same, and imports for it all of Celery's commands, with an interactive
shell among them: 0.18 of the 1.1 s of CPU that a worker's start takes.
"""

import importlib
import sys

from celery.bin.base import CLIContext

from config.celery import app

COMMANDS = ("worker", "beat")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        sys.exit(f"usage: python -m config.celery_command {{{','.join(COMMANDS)}}} [options of the celery command]")
    command = getattr(importlib.import_module(f"celery.bin.{name}"), name)
    command.main(sys.argv[2:], f"celery {name}", obj=CLIContext(app, no_color=True, workdir=None, quiet=True))


if __name__ == "__main__":
    main()
