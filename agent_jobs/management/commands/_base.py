"""Shared by our commands: a user's mistake ends in one sentence and exit code 1, never in a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.management.base import CommandError
from django.db import ProgrammingError

from agent_jobs.errors import AgentJobsError
from infra import database

_UNDEFINED_TABLE = "42P01"


@contextmanager
def told_plainly() -> Iterator[None]:
    try:
        yield
    except AgentJobsError as error:
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
