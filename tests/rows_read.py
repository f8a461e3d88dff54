"""Counts the rows that a statement reads, beside many rows, for tests of what the planner prefers."""

from django.db import connection
from django.db.models import Model

# So many that a look at all of them is dearer than by an index: the planner reads a small table whole.
MANY = 5_000
# Pages, and the rows that a request looks at twice or more, but by far not all.
ENOUGH = 100
_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
WHERE relname IN ('agent_jobs_job', 'agent_jobs_activity', 'agent_jobs_task', 'channels_integration_webmessage')
"""


def rows_read() -> int:
    """Rows of jobs and what belongs to them that this transaction has read until now."""
    with connection.cursor() as cursor:
        cursor.execute(_READ)
        return int(cursor.fetchone()[0])


def copies(row: Model, **changed: str) -> None:
    """Store MANY copies of a row. `changed`: columns as SQL, in which `n` is the copy's number."""
    table = row._meta.db_table
    columns = {field.column: field.column for field in row._meta.concrete_fields} | changed
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            f" FROM {table}, generate_series(1, {MANY}) n WHERE id = %s",
            [row.pk],
        )


def analyze(*rows: type[Model]) -> None:
    """Renew what the planner knows of these tables."""
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {', '.join(row._meta.db_table for row in rows)}")
