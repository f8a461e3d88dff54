"""Deletes ended rows that are older than their organisation's retention. --dry-run only counts them."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.duties import pruning
from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.reads import queries


class Command(OperatorCommand):
    help = "Delete ended rows that are too old. The duty of the same name does so every hour; both may run at once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")
        parser.add_argument(
            "--older-than", type=int, metavar="DAYS", help="in place of the organisations' own retention; 1 or more"
        )
        parser.add_argument("--org", metavar="ORG_ID", help="only this organisation")
        parser.add_argument("--seconds", type=float, metavar="N", help="stop after N seconds; the next run goes on")

    def handle(self, *args: Any, **options: Any) -> None:
        days, org_id = options["older_than"], options["org"]
        if days is not None and not 1 <= days <= 100_000:
            raise CommandError(f"--older-than must be from 1 to 100000 days, not {days}")
        if org_id is not None:
            queries.org(org_id)
        if options["dry_run"]:
            found, is_done = pruning.count(org_id=org_id, older_than_days=days), True
        else:
            found, is_done = pruning.prune(org_id=org_id, older_than_days=days, seconds=options["seconds"])
        for kind in pruning.KINDS:
            self.stdout.write(f"{kind}: {found[kind]}")
        if not is_done:
            self.stdout.write("time limit reached; there are more rows to delete")
