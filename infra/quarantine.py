"""Skips rows that raised in a duty for some minutes, so that the rest of their batch goes on."""

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

from infra import database, meters

log = logging.getLogger(__name__)
_Row = TypeVar("_Row", bound=Hashable)
_Locked = TypeVar("_Locked", bound=Model)
_T = TypeVar("_T")
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
            if database.is_outage(error) or len(self._until) >= MOST:
                raise
            self._until[row] = time.monotonic() + SECONDS
            meters.add("rows_set_aside", duty=self._duty)
            log.exception("duty %s: %s failed and is skipped for %g s", self._duty, row, SECONDS)

    def batch(
        self, whole: Callable[[], _T], *, rows: Callable[[], Iterable[_Row]], one: Callable[[_Row], _T]
    ) -> list[_T]:
        """The result of `whole`. If a row makes it fail, the results of `one` for each of `rows` that does not fail."""
        try:
            return [whole()]
        except Exception as error:  # each row is tried alone, where its error is logged
            if database.is_outage(error):
                raise
        done = []
        for row in rows():
            with self.row(row):
                done.append(one(row))
        return done

    def each(self, rows: QuerySet[_Locked], work: Callable[[_Locked], bool], *, most: int) -> int:
        """Lock each of these rows in a transaction of its own, and do `work`. Returns how often it says that it did it.

        Leaves rows out that another process has locked, and those to skip now.
        """
        done = 0
        for key in list(rows.exclude(pk__in=self.rows()).values_list("pk", flat=True)[:most]):
            with self.row(key), transaction.atomic():
                locked = rows.filter(pk=key).select_for_update(skip_locked=True).first()
                done += locked is not None and work(locked)
        return done
