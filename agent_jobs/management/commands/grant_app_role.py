"""Lets a database role run the service without being able to change the audit. Run it as the tables' owner."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agent_jobs.management.commands._base import told_plainly
from agent_jobs.services import roles


class Command(BaseCommand):
    help = "Grant a role what the service needs, and of the audit only to read and to add. Again after each migration."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("role", metavar="ROLE", help="made before: CREATE ROLE name LOGIN PASSWORD '…'")

    def handle(self, *args: Any, **options: Any) -> None:
        with told_plainly():
            count = roles.grant(options["role"])
        self.stdout.write(f"{options['role']} may use {count} tables, and of the audit only read and add")
