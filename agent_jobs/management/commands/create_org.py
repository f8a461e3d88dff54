"""Makes an organisation; again with the same id, it only sets the name."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agent_jobs.management.commands._base import told_plainly
from agent_jobs.services import orgs


class Command(BaseCommand):
    help = "Make an organisation. Running it again changes nothing but the name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("org_id", metavar="ORG_ID")
        parser.add_argument("--name", help="what people call it (default: its id)")

    def handle(self, *args: Any, **options: Any) -> None:
        with told_plainly():
            org, is_new = orgs.create(options["org_id"], name=options["name"] or options["org_id"])
        self.stdout.write(f"{'made' if is_new else 'there is already'} organization {org.pk} ({org.name})")
