"""The base of our commands: a user's mistake ends in one sentence and exit code 1, never in a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError

from agent_jobs.errors import AgentJobsError
from agent_jobs.specs import Actor
from channels_integration.errors import ChannelsError, InvalidField
from infra import database
from infra.sealing import SealingError

_UNDEFINED_TABLE = "42P01"


class OperatorCommand(BaseCommand):
    """A command of ours. `actor` is the author of its changes."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def actor(self) -> Actor:
        return Actor("command", self.name)

    def execute(self, *args: Any, **options: Any) -> str | None:
        with _told_plainly():
            return super().execute(*args, **options)

    def read_secret(self, what: str, example: str = "…") -> str:
        """The first line of standard input. Raises CommandError if it is empty."""
        secret = sys.stdin.readline().rstrip("\r\n")
        if not secret:
            said = f"standard input holds no {what}: echo {example} | python3 manage.py {self.name} …"
            raise CommandError(said)
        return secret


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except InvalidField as error:
        raise CommandError(f"{error.field} {error.message}") from None
    except (AgentJobsError, ChannelsError, SealingError) as error:
        raise CommandError(error.message or str(error)) from None
    except database.Error as error:
        if database.is_unavailable(error):
            raise CommandError(_why_unreachable(error)) from None
        if isinstance(error, ProgrammingError) and getattr(error.__cause__, "sqlstate", "") == _UNDEFINED_TABLE:
            raise CommandError("the database has no tables yet: run python3 manage.py migrate first") from None
        raise


def _why_unreachable(error: Exception) -> str:
    if database.is_of_one_statement(error):
        return f"{database.for_clients(error)[1]} ({database.reason(error)})"
    if not settings.DATABASE_URL:
        return (
            f"no DATABASE_URL and no running stack in {settings.DATA_DIR}:"
            " start one with python3 manage.py up, or set DATABASE_URL"
        )
    return f"the database cannot be reached ({database.reason(error)}): is it running? python3 manage.py up starts one"
