"""Gives a database role the rights to run the service, but not to change the audit. Run it as the tables' owner."""

import os
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.audit import grants
from agent_jobs.management.commands._base import OperatorCommand


class Command(OperatorCommand):
    help = "Grant a role the service's rights; on the audit only to read and add. Run it again after each migration."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("role", metavar="ROLE")
        parser.add_argument(
            "--password-env",
            metavar="NAME",
            help="make the role, or set its password to the one in this variable (or in the file of NAME_FILE);"
            " without it the role must exist: CREATE ROLE name LOGIN PASSWORD '…'",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["password_env"]:
            password = _password(options["password_env"])
            if not password:
                self.stdout.write(f"{options['password_env']} is empty: no role is made or changed")
                return
            count = grants.make(options["role"], password=password)
        else:
            count = grants.grant(options["role"])
        self.stdout.write(f"{options['role']} may use {count} tables; on the audit it may only read and add")


def _password(name: str) -> str:
    if path := os.environ.get(f"{name}_FILE", ""):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise CommandError(f"{name}_FILE names {path}, which cannot be read: {error.strerror}") from None
    return os.environ.get(name, "")
