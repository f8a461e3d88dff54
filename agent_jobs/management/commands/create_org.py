"""Makes an organisation. If the id exists, sets only the given name and quotas."""

from typing import Any

from django.core.management.base import CommandParser

from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.tenants import orgs


class Command(OperatorCommand):
    help = "Make an organisation. Running it again changes nothing but the name and the quotas given."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("org_id", metavar="ORG_ID")
        parser.add_argument("--name", help="what people call it (default: its id)")
        parser.add_argument(
            "--allow-commands", action="store_true", default=None, help="let its jobs run commands (see COMMAND_RUNNER)"
        )
        for column, (_, about) in orgs.QUOTAS.items():
            kind = str if column in orgs.MONEY else int
            parser.add_argument(f"--{column.replace('_', '-')}", type=kind, metavar="N", help=about)

    def handle(self, *args: Any, **options: Any) -> None:
        quotas = {column: options[column] for column in orgs.QUOTAS if options[column] is not None}
        org, is_new = orgs.create(
            options["org_id"],
            name=options["name"] or options["org_id"],
            actor=self.actor,
            allows_commands=options["allow_commands"],
            **quotas,
        )
        also = ", which may run commands" if org.allows_commands else ""
        made = "made" if is_new else "there is already"
        number = orgs.number_of(org.pk)  # clients of Workspace's API name the organisation by it
        self.stdout.write(f"{made} organization {org.pk} ({org.name}), number {number}{also}")
