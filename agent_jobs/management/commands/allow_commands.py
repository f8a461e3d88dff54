"""Allows an organisation to run commands on the workers' machines, or takes that back."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.tenants import orgs


class Command(OperatorCommand):
    help = "Allow an organisation to run commands. The setting COMMAND_RUNNER says how they run; it is off by default."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("org_id", metavar="ORG_ID")
        parser.add_argument(
            "--network", action="store_true", help="with the machine's network, and what listens on its loopback"
        )
        parser.add_argument("--undo", action="store_true", help="take it back; commands that run go on to their end")

    def handle(self, *args: Any, **options: Any) -> None:
        is_allowed, with_network = not options["undo"], options["network"]
        if options["network"] and options["undo"]:
            raise CommandError("give either --network or --undo")
        orgs.allow_commands(options["org_id"], is_allowed=is_allowed, with_network=with_network, actor=self.actor)
        what = f"run commands {'with' if with_network else 'without'} the network" if is_allowed else "run commands"
        self.stdout.write(f"organization {options['org_id']} {'may' if is_allowed else 'may not'} {what}")
