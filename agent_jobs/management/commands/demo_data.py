"""Makes a demo organisation with a month of jobs. Reads the people's password from standard input."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.demo import demo_filling
from agent_jobs.management.commands._base import OperatorCommand


class Command(OperatorCommand):
    help = "Make a demo organisation: people, job types and a month of jobs. For looking at, not for production."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--org", default="acme", metavar="ORG_ID")
        parser.add_argument("--name", default="Acme")
        parser.add_argument("--days", type=int, default=30, help="how many days of jobs (30)")
        parser.add_argument("--seed", type=int, default=7, help="the same seed makes the same stories (7)")
        parser.add_argument(
            "--password-stdin", action="store_true", required=True, help="read the password from standard input"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        password = self.read_secret("password")
        if not 0 <= options["days"] <= 365:
            raise CommandError("--days must be from 0 to 365")
        made = demo_filling.fill(
            options["org"],
            name=options["name"],
            password=password,
            days=options["days"],
            now=datetime.now(UTC),
            seed=options["seed"],
        )
        self.stdout.write(f"made {made:,} jobs of organization {options['org']}; sign in as mara")
