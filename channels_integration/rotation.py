"""Seals secrets again with the newest key, so that an operator can drop an old key.

Each row is locked, opened and sealed by itself, so no concurrent write is lost. An interrupted run can be repeated: it
continues with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.db.models import Q

from channels_integration.models import Channel, Installation
from infra import sealing
from infra.sealing import SealingError

# Tables with an `org_id`, and their sealed columns.
Sealed = tuple[tuple[type[Any], tuple[str, ...]], ...]
SEALED: Sealed = (
    (Installation, ("sealed_bot_token", "sealed_signing_secret")),
    (Channel, ("sealed_secret", "sealed_previous_secret")),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One sealed secret and its key ids, old and new. With a `problem`, the secret is unchanged."""

    org_id: str
    table: str
    column: str
    key: str
    old_key_id: str
    new_key_id: str
    problem: str = ""


def reseal(note: Callable[[Cell], None], *, batch: int = 100, tables: Sealed = SEALED) -> None:
    """Seal every secret of `tables` that is under an older key again. Calls `note` for each, in the same transaction.

    Raises SealingError where no key is set.
    """
    newest = sealing.newest_key_id()
    for model, columns in tables:
        stale = Q()
        for column in columns:
            stale |= ~Q(**{column: ""}) & ~Q(**{f"{column}__startswith": sealing.prefix(newest)})
        after = None
        while True:
            rows = model._default_manager.filter(stale).order_by("pk")
            with transaction.atomic():
                found = list((rows.filter(pk__gt=after) if after else rows).select_for_update(no_key=True)[:batch])
                for row in found:
                    for column in columns:
                        if cell := _reseal(row, column, newest):
                            note(cell)
            if not found:
                break
            after = found[-1].pk


def left(tables: Sealed = SEALED) -> int:
    """How many secrets are not under the newest key."""
    newest = sealing.prefix(sealing.newest_key_id())
    return sum(
        model._default_manager.exclude(**{column: ""}).exclude(**{f"{column}__startswith": newest}).count()
        for model, columns in tables
        for column in columns
    )


def _reseal(row: Any, column: str, newest: str) -> Cell | None:
    sealed = getattr(row, column)
    if not sealed or sealed.startswith(sealing.prefix(newest)):
        return None
    model = type(row)
    cell = Cell(row.org_id, model._meta.db_table, column, str(row.pk), sealing.key_id(sealed), newest)
    try:
        secret = sealing.opened(row, column)
    except SealingError as error:
        return replace(cell, new_key_id=cell.old_key_id, problem=error.message)
    model._default_manager.filter(pk=row.pk).update(**{column: sealing.seal_for(row, column, secret)})
    return cell
