"""Operations of migrations that build indexes of big tables while the service runs.

`CREATE INDEX CONCURRENTLY` lets writers go on. It needs a migration with `atomic = False`, and leaves an invalid index
if it fails; so a second run drops that and builds it again, and leaves a valid one alone. It may take longer than the
service's time-outs allow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import RunSQL
from django.db.migrations.operations.base import Operation

_IS_VALID = """
SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relname = %s AND pg_table_is_visible(pg_class.oid)
"""
_LIMITS = ("statement_timeout", "lock_timeout")


class AddIndexOnline(AddIndexConcurrently):
    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        is_valid = _is_valid(schema_editor, self.index.name)
        if is_valid:
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        with _unlimited(schema_editor):
            if is_valid is False:
                schema_editor.remove_index(model, self.index, concurrently=True)  # type: ignore[call-arg]
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class RemoveIndexOnline(RemoveIndexConcurrently):
    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        if _is_valid(schema_editor, self.name) is not None:
            with _unlimited(schema_editor):
                super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddRawIndexOnline(RunSQL):
    """An index that Django cannot express. `definition` is what follows the name: `ON table USING …`."""

    def __init__(self, name: str, definition: str) -> None:
        self.name, self.definition = name, definition
        super().__init__(
            f'CREATE INDEX CONCURRENTLY "{name}" {definition}', f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"'
        )

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        is_valid = _is_valid(schema_editor, self.name)
        if is_valid:
            return
        with _unlimited(schema_editor):
            if is_valid is False:
                schema_editor.execute(f'DROP INDEX CONCURRENTLY "{self.name}"')
            super().database_forwards(app_label, schema_editor, from_state, to_state)


ONLINE: tuple[type[Operation], ...] = (AddIndexOnline, RemoveIndexOnline, AddRawIndexOnline)


@contextmanager
def _unlimited(schema_editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """Switch off the time-outs of statements and locks within."""
    for limit in _LIMITS:
        schema_editor.execute(f"SET {limit} = 0")
    try:
        yield
    finally:
        for limit in _LIMITS:
            schema_editor.execute(f"RESET {limit}")


def _is_valid(schema_editor: BaseDatabaseSchemaEditor, name: str) -> bool | None:
    """Whether the index is complete and usable; None if there is no such index."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(_IS_VALID, [name])
        row = cursor.fetchone()
    return bool(row[0]) if row else None
