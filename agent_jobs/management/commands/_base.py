"""What our commands do alike: a user's mistake is a sentence and exit code 1, never a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.management.base import CommandError
from django.db import InterfaceError, OperationalError, ProgrammingError

from agent_jobs.errors import AgentJobsError


@contextmanager
def told_plainly() -> Iterator[None]:
    try:
        yield
    except AgentJobsError as error:
        raise CommandError(error.message or str(error)) from None
    except (OperationalError, InterfaceError) as error:
        raise CommandError(_why_unreachable(error)) from None
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", "") == "42P01":  # undefined_table
            raise CommandError("the database has no tables yet: run python3 manage.py migrate first") from None
        raise


def _why_unreachable(error: Exception) -> str:
    if not settings.DATABASE_URL:
        return (
            f"no DATABASE_URL and no running stack in {settings.DATA_DIR}:"
            " start one with python3 manage.py up, or set DATABASE_URL"
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"the database cannot be reached ({reason}): is it running? python3 manage.py up starts one"
