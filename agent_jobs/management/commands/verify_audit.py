"""Verifies the audit's hash chains: prints the length and head of each; exits with 1 if one is broken."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.audit import verification
from agent_jobs.management.commands._base import OperatorCommand


class Command(OperatorCommand):
    help = "Recompute the audit's hash chains. Keep the hashes elsewhere: they show later that nothing was cut off."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--org", metavar="ORG_ID", help="only this organisation")
        parser.add_argument("--expect", default="", metavar="HASH", help="a hash printed before; needs --org")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["expect"] and not options["org"]:
            raise CommandError("--expect needs --org: a hash is one organisation's")
        broken = 0
        known = verification.orgs()
        if options["org"] and options["org"] not in known:
            raise CommandError(f"there is no organization {options['org']!r}, and no entry of one")
        for org_id in [options["org"]] if options["org"] else known:
            verdict = verification.verify(org_id, expected=options["expect"].strip().lower())
            figures = f"{org_id}: {verdict.entries} entries, {verdict.seals} seals, head {verdict.head or '-'}"
            self.stdout.write(f"{figures}: {verdict.problem or 'ok'}")
            broken += bool(verdict.problem)
        if broken:
            raise CommandError(f"{broken} of these audits broken: see the lines above")
