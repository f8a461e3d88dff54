"""Migrations leave a running service its tables: indexes of tables that exist already are built beside the writers."""

from collections.abc import Iterator

import pytest
from django.db import models
from django.db.migrations import AddIndex, CreateModel, Migration, RemoveIndex, RunSQL
from django.db.migrations.loader import MigrationLoader

from infra.online_indexes import ONLINE, AddIndexOnline

# Those before ran when no table was big yet.
_FIRST = {"agent_jobs": "0020", "channels_integration": "0005"}


def migrations() -> list[Migration]:
    found = MigrationLoader(None).disk_migrations.items()
    return [migration for (app, name), migration in found if app in _FIRST and name >= _FIRST[app]]


def offline(migration: Migration) -> Iterator[str]:
    """The indexes that it builds or drops under a lock."""
    new = {operation.name_lower for operation in migration.operations if isinstance(operation, CreateModel)}
    small = {"executor"}  # one row for each executor
    for operation in migration.operations:
        if isinstance(operation, ONLINE):
            continue
        is_index = isinstance(operation, AddIndex | RemoveIndex) and operation.model_name_lower not in new | small
        is_raw = isinstance(operation, RunSQL) and "CREATE INDEX" in str(operation.sql).upper()
        if is_index or is_raw:
            yield f"{migration.app_label}.{migration.name}: {operation.describe()}"


def test_indexes_are_built_without_a_lock() -> None:
    assert [found for migration in migrations() for found in offline(migration)] == []


@pytest.mark.parametrize(
    "operation",
    [
        AddIndex("job", models.Index(fields=["number"], name="a")),
        RemoveIndex("job", "name"),
        RunSQL("create index a on b (c)"),
    ],
)
def test_an_index_under_a_lock_is_found(operation: AddIndex | RemoveIndex | RunSQL) -> None:
    migration = Migration("0099", "agent_jobs")
    migration.operations = [operation]
    operation.describe = lambda: "planted"  # type: ignore[method-assign]
    assert list(offline(migration)) == ["agent_jobs.0099: planted"]


def test_online_operations_stand_in_migrations_without_a_transaction() -> None:
    online = [one for one in migrations() if any(isinstance(operation, ONLINE) for operation in one.operations)]
    assert {type(operation) for one in online for operation in one.operations} >= {AddIndexOnline}
    assert all(not one.atomic and all(isinstance(each, ONLINE) for each in one.operations) for one in online)
