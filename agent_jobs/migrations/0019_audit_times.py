"""The audit's times are the database's own, whoever inserts; nobody empties its tables; refused reaches are bounded."""

from django.db import migrations, models

CREATE = """
CREATE FUNCTION agent_jobs_time_audit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.at := statement_timestamp();
    NEW.txid := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_entry_is_timed BEFORE INSERT ON agent_jobs_auditentry
    FOR EACH ROW EXECUTE FUNCTION agent_jobs_time_audit_entry();

-- A seal's hash is computed with the time of its transaction.
CREATE FUNCTION agent_jobs_time_audit_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER audit_seal_is_timed BEFORE INSERT ON agent_jobs_auditseal
    FOR EACH ROW EXECUTE FUNCTION agent_jobs_time_audit_seal();

CREATE TRIGGER audit_entries_are_not_truncated BEFORE TRUNCATE ON agent_jobs_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_refuse_audit_change();
CREATE TRIGGER audit_seals_are_not_truncated BEFORE TRUNCATE ON agent_jobs_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_refuse_audit_change();
"""
DROP = """
DROP TRIGGER audit_entry_is_timed ON agent_jobs_auditentry;
DROP TRIGGER audit_seal_is_timed ON agent_jobs_auditseal;
DROP TRIGGER audit_entries_are_not_truncated ON agent_jobs_auditentry;
DROP TRIGGER audit_seals_are_not_truncated ON agent_jobs_auditseal;
DROP FUNCTION agent_jobs_time_audit_entry();
DROP FUNCTION agent_jobs_time_audit_seal();
"""


class Migration(migrations.Migration):

    dependencies = [('agent_jobs', '0018_activity_numbers')]

    operations = [
        migrations.RunSQL(CREATE, DROP),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['org_id', 'at'], condition=models.Q(('action', 'access.denied')), name='audit_denied'),
        ),
    ]
