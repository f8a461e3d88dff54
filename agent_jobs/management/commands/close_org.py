"""Closes an organisation, reopens it within the grace period, or erases it at once."""

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.duties import org_closing
from agent_jobs.management.commands._base import OperatorCommand


class Command(OperatorCommand):
    help = (
        "Close an organisation: its tokens are refused, its jobs are canceled, nothing is sent. Its rows are erased"
        f" {org_closing.GRACE_DAYS} days later; the audit stays, and the id is never used again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("org_id", metavar="ORG_ID")
        parser.add_argument("--yes", action="store_true", help="do not ask for the id to be typed again")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--undo", action="store_true", help="reopen it; canceled jobs stay canceled")
        kind.add_argument("--now", action="store_true", help="close it and erase its rows at once, for good")

    def handle(self, *args: Any, **options: Any) -> None:
        org_id: str = options["org_id"]
        if options["undo"]:
            org_closing.reopen(org_id, actor=self.actor)
            self.stdout.write(f"reopened organization {org_id}")
            return
        if not options["yes"]:
            what = "close and erase, for good," if options["now"] else "close"
            self.stderr.write(f"Type {org_id} to {what} that organization:")
            if sys.stdin.readline().strip() != org_id:
                raise CommandError("nothing was done: that is not its id")
        org = org_closing.close(org_id, actor=self.actor)
        if options["now"]:
            gone = org_closing.erase(org_id, actor=self.actor)
            self.stdout.write(f"erased organization {org_id}: {gone.total()} rows; its audit stays")
        elif org.erased_at is not None:
            self.stdout.write(f"organization {org_id} is erased already")
        else:
            self.stdout.write(f"closed organization {org_id}; it is erased in {org_closing.GRACE_DAYS} days")
