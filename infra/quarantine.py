"""Skips rows that raised in a duty for some minutes, so that the rest of their batch goes on."""

import logging
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from infra import database, meters

log = logging.getLogger(__name__)
_Row = TypeVar("_Row", bound=Hashable)
SECONDS = 300.0
# More failing rows than this mean that the duty itself is broken: it then fails as a whole.
MOST = 1_000


class Quarantine(Generic[_Row]):
    """One per duty and process. It lives in memory, so each process tries such a row once in SECONDS."""

    def __init__(self, duty: str) -> None:
        self._duty = duty
        self._until: dict[_Row, float] = {}

    def rows(self) -> list[_Row]:
        """The rows to skip now."""
        now = time.monotonic()
        for row, until in list(self._until.items()):
            if until <= now:
                self._until.pop(row, None)
        return list(self._until)

    @contextmanager
    def row(self, row: _Row) -> Iterator[None]:
        """Wrap the work on one row, outside its transaction: if it raises, the row is skipped for SECONDS.

        A database outage is raised, and so is any error once MOST rows are skipped.
        """
        try:
            yield
        except Exception as error:  # a fault in one row must not stop the others
            is_outage = database.is_unavailable(error) and not database.is_of_one_statement(error)
            if is_outage or len(self._until) >= MOST:
                raise
            self._until[row] = time.monotonic() + SECONDS
            meters.add("rows_set_aside", duty=self._duty)
            log.exception("duty %s: %s failed and is skipped for %g s", self._duty, row, SECONDS)
