"""Allows an organisation to run commands on the workers' machines, or takes that back."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agent_jobs.management.commands._base import told_plainly
from agent_jobs.specs import Actor
from agent_jobs.tenants import orgs

_ACTOR = Actor("command", "allow_commands")


class Command(BaseCommand):
    help = "Allow an organisation to run commands. The setting COMMAND_RUNNER says how they run; it is off by default."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("org_id", metavar="ORG_ID")
        parser.add_argument("--undo", action="store_true", help="take it back; commands that run go on to their end")

    def handle(self, *args: Any, **options: Any) -> None:
        is_allowed = not options["undo"]
        with told_plainly():
            orgs.allow_commands(options["org_id"], is_allowed=is_allowed, actor=_ACTOR)
        self.stdout.write(f"organization {options['org_id']} {'may' if is_allowed else 'may not'} run commands")
