"""The audit: its tables, and what Django cannot say of them.

A transaction has its number before any of its entries has an id (the trigger before the insert): sealing concludes from
"all older transactions have ended" that no smaller id can still appear. Moves become entries here rather than in every
statement that makes one, so that a statement cannot forget it; one trigger for a statement, however many rows.
"""

import agent_jobs.models.audit
import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.db import migrations, models


CREATE = """
ALTER TABLE agent_jobs_auditentry ALTER COLUMN id SET GENERATED ALWAYS;
ALTER TABLE agent_jobs_auditseal ALTER COLUMN id SET GENERATED ALWAYS;

CREATE FUNCTION agent_jobs_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: nothing in it is changed or deleted', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_entries_are_final BEFORE UPDATE OR DELETE ON agent_jobs_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_refuse_audit_change();
CREATE TRIGGER audit_seals_are_final BEFORE UPDATE OR DELETE ON agent_jobs_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_refuse_audit_change();

CREATE FUNCTION agent_jobs_number_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN NULL;
END $$;
CREATE TRIGGER audit_transaction_is_numbered BEFORE INSERT ON agent_jobs_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_number_transaction();

CREATE FUNCTION agent_jobs_audit_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agent_jobs_auditentry (org_id, actor, request_id, action, object_type, object_id, before, after)
    SELECT org_id, actor, request_id, code, 'job', coalesce(job_id::text, ''),
        CASE WHEN moved_from <> '' THEN jsonb_build_object('status', moved_from) END,
        -- The note of a completion quotes the result, which goes when the job goes; the audit stays.
        jsonb_build_object('status', moved_to)
            || CASE WHEN moved_to <> 'COMPLETED' THEN jsonb_build_object('note', note) ELSE '{}' END
    FROM added WHERE moved_to <> '' ORDER BY id;
    RETURN NULL;
END $$;
CREATE TRIGGER moves_are_audited AFTER INSERT ON agent_jobs_activity REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_audit_moves();
"""
DROP = """
DROP TRIGGER moves_are_audited ON agent_jobs_activity;
DROP TRIGGER audit_transaction_is_numbered ON agent_jobs_auditentry;
DROP TRIGGER audit_entries_are_final ON agent_jobs_auditentry;
DROP TRIGGER audit_seals_are_final ON agent_jobs_auditseal;
DROP FUNCTION agent_jobs_audit_moves();
DROP FUNCTION agent_jobs_number_transaction();
DROP FUNCTION agent_jobs_refuse_audit_change();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('agent_jobs', '0003_quotas'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditMark',
            fields=[
                ('id', models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ('floor', models.BigIntegerField(default=0)),
                ('candidate_id', models.BigIntegerField(default=0)),
                ('candidate_txid', models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('org_id', models.CharField(max_length=64)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('txid', models.BigIntegerField(db_default=agent_jobs.models.audit.CurrentTransaction())),
                ('actor', models.CharField(blank=True, db_default='', max_length=255)),
                ('request_id', models.CharField(blank=True, db_default='', max_length=128)),
                ('action', models.CharField(max_length=64)),
                ('object_type', models.CharField(max_length=32)),
                ('object_id', models.CharField(max_length=600)),
                ('before', models.JSONField(null=True)),
                ('after', models.JSONField(null=True)),
            ],
            options={
                'indexes': [models.Index(models.F('org_id'), models.OrderBy(models.F('at'), descending=True), models.OrderBy(models.F('id'), descending=True), name='audit_at'), models.Index(fields=['org_id', 'object_id'], name='audit_object')],
            },
        ),
        migrations.CreateModel(
            name='AuditSeal',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('org_id', models.CharField(max_length=64)),
                ('seq', models.BigIntegerField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('entry_ids', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('digests', models.BinaryField()),
                ('last_id', models.BigIntegerField(db_index=True)),
                ('prev_hash', models.BinaryField(max_length=32)),
                ('hash', models.BinaryField(max_length=32)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('org_id', 'seq'), name='audit_seal_once')],
            },
        ),
        migrations.RunSQL(CREATE, DROP),
    ]
