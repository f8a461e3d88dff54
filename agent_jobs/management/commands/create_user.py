"""Makes a user in an organisation. Reads the password from standard input or a file, so that no history keeps it."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.tenants import orgs


class Command(OperatorCommand):
    help = "Make a user in an organisation, or set an existing one's role."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--org", required=True, metavar="ORG_ID")
        parser.add_argument("--username", required=True)
        parser.add_argument("--role", required=True, choices=orgs.ROLES)
        parser.add_argument("--full-name", default="", help="what the console calls them (default: the username)")
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        source.add_argument("--password-file", metavar="PATH", help="read the password from a file")
        parser.add_argument(
            "--reset-password", action="store_true", help="also set the password of a user who exists already"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        password = self._password(options.get("password_file"))
        org = orgs.open_org(options["org"])
        user, is_new = orgs.create_user(
            org,
            username=options["username"],
            role=options["role"],
            password=password,
            full_name=options["full_name"],
            resets_password=options["reset_password"],
            actor=self.actor,
        )
        verb = "made" if is_new else "there is already"
        kept = "" if is_new or options["reset_password"] else "; the password is the one they had"
        self.stdout.write(f"{verb} user {user.get_username()}, {options['role']} of {org.pk}{kept}")

    def _password(self, path: str | None) -> str:
        if path is None:
            return self.read_secret("password")
        try:
            password = Path(path).read_text().partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"the file {path} cannot be read: {error}") from None
        if not password:
            raise CommandError(f"the first line of {path} is empty: it must be the password")
        return password
