"""Deletes every row of one organisation from all tables of an app.

A row belongs to an organisation if its table has a column `org_id`, or if one of its foreign keys leads to such a row.
So a new table needs no line here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import Any

from django.apps import apps
from django.db import models

from infra import raw_sql

# Number of keys per transaction.
WINDOW = 5_000


def belongs_to_orgs(model: type[models.Model]) -> bool:
    return bool(_of_org(model))


def erase(
    app_label: str, org_id: str, *, without: Collection[type[models.Model]] = (), stop: threading.Event | None = None
) -> Iterator[tuple[str, int]]:
    """Delete table by table, referring tables first; yields each table and the number of rows deleted.

    Walks each table once in the order of its keys, in short transactions. Ends early at `stop`. Safe to repeat.
    """
    for model in _children_first(list(apps.get_app_config(app_label).get_models())):
        if model in without or not belongs_to_orgs(model):
            continue
        yield model._meta.db_table, _erase(model, org_id, stop or threading.Event())


def _erase(model: type[models.Model], org_id: str, stop: threading.Event) -> int:
    table, key = model._meta.db_table, model._meta.pk.column
    statement = f"""
        WITH span AS MATERIALIZED (
            SELECT {key} AS key, {_of_org(model)} AS is_theirs FROM {table}
            WHERE %(is_first)s OR {key} > %(after)s ORDER BY {key} LIMIT {WINDOW}
        ), gone AS (
            DELETE FROM {table} WHERE {key} IN (SELECT key FROM span WHERE is_theirs) RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM span),
            (SELECT key FROM span ORDER BY key DESC LIMIT 1)
    """  # noqa: S608 - names of our own tables
    gone = 0
    parameters: dict[str, Any] = {"org_id": org_id, "is_first": True, "after": None}
    while not stop.is_set():
        deleted, looked_at, last = raw_sql.first(statement, parameters)
        gone += deleted
        if looked_at < WINDOW:
            break
        parameters |= {"is_first": False, "after": last}
    return gone


def _of_org(model: type[models.Model]) -> str:
    """SQL that is true for the organisation's rows; "" if the table has none."""
    fields = model._meta.concrete_fields
    if any(field.column == "org_id" for field in fields):
        return "org_id = %(org_id)s"
    for field in fields:
        if not isinstance(field, models.ForeignKey) or field.null:
            continue
        parent: type[models.Model] = field.remote_field.model
        if of := _of_org(parent):
            return f"{field.column} IN (SELECT {parent._meta.pk.column} FROM {parent._meta.db_table} WHERE {of})"  # noqa: S608
    return ""


def _children_first(found: list[type[models.Model]]) -> list[type[models.Model]]:
    ordered: list[type[models.Model]] = []

    def visit(model: type[models.Model]) -> None:
        if model in ordered:
            return
        for other in found:
            if other is not model and any(field.related_model is model for field in other._meta.concrete_fields):
                visit(other)
        ordered.append(model)

    for model in found:
        visit(model)
    return ordered
