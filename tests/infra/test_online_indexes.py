"""An index is built beside the writers, and again after a failure."""

import pytest
from django.db import connection, models
from django.db.migrations.state import ModelState, ProjectState

from infra.online_indexes import AddIndexOnline, AddRawIndexOnline, RemoveIndexOnline

pytestmark = pytest.mark.django_db(transaction=True)
INDEX = models.Index(fields=["number"], name="thing_number")


@pytest.fixture
def state():
    state = ProjectState()
    fields = [("id", models.BigAutoField(primary_key=True)), ("number", models.IntegerField())]
    state.add_model(ModelState("things", "Thing", fields))
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE things_thing (id bigserial PRIMARY KEY, number int NOT NULL)")
    yield state
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE things_thing")


def run(operation, state):
    after = state.clone()
    operation.state_forwards("things", after)
    with connection.schema_editor(atomic=False) as editor:
        operation.database_forwards("things", editor, state, after)
    return after


def validity():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname = %s", ["thing_number"]
        )
        return [row[0] for row in cursor.fetchall()]


def settings():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        return cursor.fetchone()


@pytest.mark.parametrize(
    "operation", [AddIndexOnline("thing", INDEX), AddRawIndexOnline("thing_number", "ON things_thing (number)")]
)
def test_an_index_that_a_failure_left_behind_is_built_again(state, operation):
    limits = settings()
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX thing_number ON things_thing (number)")
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'thing_number'::regclass")
    run(operation, state)
    assert validity() == [True]
    assert settings() == limits


def test_a_second_run_changes_nothing_and_a_removal_may_come_twice(state):
    after = run(AddIndexOnline("thing", INDEX), state)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'thing_number'::regclass::oid")
        made = cursor.fetchone()
        run(AddIndexOnline("thing", INDEX), state)
        cursor.execute("SELECT 'thing_number'::regclass::oid")
        assert cursor.fetchone() == made
    run(RemoveIndexOnline("thing", "thing_number"), after)
    run(RemoveIndexOnline("thing", "thing_number"), after)
    assert validity() == []
