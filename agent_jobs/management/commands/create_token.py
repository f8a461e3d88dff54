"""Makes an app token and prints only this token on standard output. Nothing can show it again."""

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from agent_jobs import scopes
from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.tenants import app_tokens, orgs


class Command(OperatorCommand):
    help = "Make an app token. Prints only the token, once; it is stored nowhere in plain text."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--org", required=True, metavar="ORG_ID")
        parser.add_argument(
            "--scope",
            required=True,
            action="append",
            dest="scopes",
            metavar="SCOPE",
            help=f"may be given several times; one of {', '.join(scopes.ALL_SCOPES)}",
        )
        parser.add_argument("--name", required=True, help="what the token is for")
        parser.add_argument("--app", default="", help="the app that uses it (default: the name)")
        lasts = parser.add_mutually_exclusive_group()
        lasts.add_argument(
            "--expires-in-days",
            type=int,
            default=app_tokens.DEFAULT_DAYS,
            metavar="N",
            help=f"default {app_tokens.DEFAULT_DAYS}; 0: never",
        )
        lasts.add_argument(
            "--never", action="store_true", help="it never expires: for tokens that nobody can replace in time"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        days = 0 if options["never"] else options["expires_in_days"]
        _, plain = app_tokens.issue(
            orgs.open_org(options["org"]),
            name=options["name"],
            scopes=options["scopes"],
            app=options["app"],
            expires_in=timedelta(days=max(-1, min(days, 100_000))) if days else None,
            actor=self.actor,
        )
        self.stdout.write(plain)
