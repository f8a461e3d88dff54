"""A role of the application runs the service and cannot change the audit, whatever statement it sends."""

import io

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from agent_jobs import duty_rounds, lifecycle
from agent_jobs.audit import audit_log, verification
from agent_jobs.duties import duty_table, pruning
from agent_jobs.lifecycle import OrgRotation, Settlement
from agent_jobs.models import AuditEntry, Job, Org
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus, TaskStatus
from tests import factories, rows

ROLE = "agent_jobs_test_app"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def role():
    with connection.cursor() as cursor:
        name = f"{ROLE}_{connection.settings_dict['NAME'][-4:]}"
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'")
        try:
            yield name
        finally:
            cursor.execute("RESET SESSION AUTHORIZATION")
            cursor.execute(f"DROP OWNED BY {name}")
            cursor.execute(f"DROP ROLE {name}")


def grant(role):
    out = io.StringIO()
    call_command("grant_app_role", role, stdout=out)
    return out.getvalue()


def test_the_command_makes_the_role_and_changes_its_password(role, monkeypatch, tmp_path):
    made = f"{role}_made"
    path = tmp_path / "password"
    path.write_text("by-file\n")

    def digest():
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = %s", [made])
            return cursor.fetchone()

    def run(**variables):
        out = io.StringIO()
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            call_command("grant_app_role", made, "--password-env", "APP_PASSWORD", stdout=out)
        return out.getvalue()

    try:
        assert "APP_PASSWORD is empty" in run()
        assert digest() is None
        assert "tables" in run(APP_PASSWORD="first")
        can_login, first = digest()
        run(APP_PASSWORD_FILE=str(path))
        assert can_login
        assert digest()[1] != first
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP OWNED BY {made}")
            cursor.execute(f"DROP ROLE {made}")


def test_the_password_of_the_owner_is_not_changed_on_the_way(role, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER ROLE {role} SUPERUSER")
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [role])
        before = cursor.fetchone()
        monkeypatch.setenv("APP_PASSWORD", "other")
        with pytest.raises(CommandError, match="no grant binds it"):
            call_command("grant_app_role", role, "--password-env", "APP_PASSWORD")
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [role])
        assert cursor.fetchone() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE agent_jobs_auditentry SET actor = 'x'",
        "DELETE FROM agent_jobs_auditentry",
        "TRUNCATE agent_jobs_auditentry",
        "UPDATE agent_jobs_auditseal SET seq = 9",
        "DELETE FROM agent_jobs_auditseal",
        "TRUNCATE agent_jobs_auditseal",
        "ALTER TABLE agent_jobs_auditentry DISABLE TRIGGER ALL",
        "DROP TRIGGER audit_entries_are_final ON agent_jobs_auditentry",
        "SET session_replication_role = replica",
        "DELETE FROM django_migrations",
        "CREATE TABLE mine (id int)",
    ],
)
def test_the_role_is_refused_whatever_would_change_the_audit(role, statement):
    audit_log.record("acme", "thing.done", "x", actor=Actor("user", "ann"))
    audit_log.seal()
    grant(role)
    parameters = connection.get_connection_params() | {
        "user": role,
        "password": "app",
        "cursor_factory": psycopg.Cursor,
    }

    with psycopg.connect(**parameters) as session:
        assert session.execute("SELECT count(*) FROM agent_jobs_auditentry").fetchone() == (1,)
        session.execute(
            "INSERT INTO agent_jobs_auditentry (org_id, action, object_type, object_id) VALUES ('acme', 'a', 'b', 'c')"
        )
        session.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(statement)


def test_the_service_works_under_the_role(role):
    rows.job_type()
    assert "tables" in grant(role)
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION AUTHORIZATION {role}")
    api = factories.api("acme", "SERVICES:ADMIN")

    posted = [api.post("/services/agent-jobs", factories.job_request()).json()["data"]["id"] for _ in range(2)]
    assert api.delete(f"/services/agent-jobs/{posted[1]}").status_code == 200
    assert api.put("/services/organizations/acme/agent-jobs-type/greet", {"name": "B"}).status_code == 200
    assert api.delete("/services/organizations/acme/agent-jobs-type/greet").status_code == 200
    (claimed,) = lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), worker_id=1).claimed
    done = Settlement(claimed.id, claimed.token, claimed.task_id, JobStatus.COMPLETED, TaskStatus.COMPLETED)
    lifecycle.settle_and_claim([done])
    lifecycle.promote_due()
    duty_rounds.each(duty_table.BELLS["sweep"])
    assert audit_log.seal() > 5
    pruning.prune(older_than_days=1)
    assert api.get("/services/audit", {"object_id": posted[0]}).json()["meta"]["total"] == 3

    assert Job.objects.get(pk=posted[0]).status == JobStatus.COMPLETED
    assert verification.verify("acme").problem == ""
    assert AuditEntry.objects.filter(action="job.canceled").count() == 1


def test_a_right_too_many_is_taken_back(role):
    with connection.cursor() as cursor:
        cursor.execute(f"GRANT ALL ON agent_jobs_auditentry TO {role}")
    grant(role)

    with connection.cursor() as cursor:
        cursor.execute("SELECT has_table_privilege(%s, 'agent_jobs_auditentry', 'UPDATE')", [role])
        assert cursor.fetchone() == (False,)


def test_a_role_that_no_grant_binds_is_refused(role):
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        (owner,) = cursor.fetchone()
        cursor.execute(f"GRANT {owner} TO {role}")

    for name, words in ((owner, "superuser or owns"), (role, "superuser or owns"), ("nobody here", "no role")):
        with pytest.raises(CommandError, match=words):
            grant(name)
    assert not Org.objects.exists()
