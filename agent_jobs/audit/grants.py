"""Grants a database role what the service needs and no more. Above all, the role cannot change the audit log.

Triggers already refuse such changes to everybody. A role that does not own the tables cannot drop the triggers either.
The owner runs migrations; the service runs as such a role.
"""

from typing import Any

from django.db import connection, transaction
from psycopg import sql

from agent_jobs.errors import FieldError, Invalid
from agent_jobs.models import AuditEntry, AuditSeal

_ONLY_ADDED_TO = {AuditEntry._meta.db_table, AuditSeal._meta.db_table}
_ONLY_READ = {"django_migrations"}


def make(role: str, *, password: str) -> int:
    """Create a login role, or set the password of an existing one; then do what `grant` does."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [role])
        verb = sql.SQL("ALTER" if cursor.fetchone()[0] else "CREATE")
        statement = sql.SQL("{} ROLE {} LOGIN PASSWORD {}")
        cursor.execute(statement.format(verb, sql.Identifier(role), sql.Literal(password)))
        return grant(role)


def grant(role: str) -> int:
    """Grant the role what it needs on every existing table and revoke the rest. Returns the number of tables.

    Run it again after each migration. Raises Invalid if the role does not exist, or if it could do everything anyway: a
    superuser, the tables' owner or a member of it.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT current_schema(), current_database()")
        schema, database = cursor.fetchone()
        _check(cursor, role)
        who = sql.Identifier(role)
        tables = sorted({*connection.introspection.django_table_names(only_existing=True), *_ONLY_READ})
        cursor.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), who))
        cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), who))
        for table in tables:
            at = sql.Identifier(schema, table)
            cursor.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(at, who))
            cursor.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(_rights(table)), at, who))
        cursor.execute(
            sql.SQL("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {} TO {}").format(sql.Identifier(schema), who)
        )
    return len(tables)


def _rights(table: str) -> str:
    if table in _ONLY_ADDED_TO:
        return "SELECT, INSERT"
    return "SELECT" if table in _ONLY_READ else "SELECT, INSERT, UPDATE, DELETE"


def _check(cursor: Any, role: str) -> None:
    cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", [role])
    found = cursor.fetchone()
    if found is None:
        raise Invalid(FieldError("role", "unknown", f"there is no role {role!r}: CREATE ROLE … LOGIN makes one"))
    cursor.execute(
        "SELECT bool_or(pg_has_role(%s, relowner, 'MEMBER')) FROM pg_class WHERE oid = ANY(%s::regclass[])",
        [role, sorted(_ONLY_ADDED_TO)],
    )
    if found[0] or cursor.fetchone()[0]:
        message = f"{role!r} is a superuser or owns the tables: no grant binds it"
        raise Invalid(FieldError("role", "too_mighty", message))
