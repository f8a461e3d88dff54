"""Outgoing webhooks, and the channel that gets a job's outcome.

A trigger announces the events of jobs. No statement that moves a job can forget it, and the announcement is committed
with the move. It runs once for a statement, however many rows, like the one that writes the audit (0004): rows would
cost a call each. The sub-selects are scalar, so that no plan reads a whole table for them.
"""

import agent_jobs.models.jobs
import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import infra.json_column
import uuid_utils.compat
from django.db import migrations, models

CREATE = """
CREATE FUNCTION agent_jobs_announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agent_jobs_announcement (org_id, event, subject_id, activity_id, has_outcome_channel)
    SELECT org_id, event, job_id, id, has_outcome_channel
    FROM (
        SELECT a.org_id, a.job_id, a.id, a.number,
            CASE a.code WHEN 'message.out' THEN 'job.message' ELSE a.code END AS event,
            a.code IN ('job.completed', 'job.failed', 'job.canceled') AND coalesce(
                (SELECT j.outcome_channel IS NOT NULL FROM agent_jobs_job j WHERE j.id = a.job_id), false
            ) AS has_outcome_channel
        FROM added a
        WHERE a.job_id IS NOT NULL AND a.code IN
            ('job.created', 'job.started', 'message.out', 'job.completed', 'job.failed', 'job.canceled')
    ) told
    WHERE has_outcome_channel OR (
        SELECT true FROM agent_jobs_webhookendpoint e
        WHERE e.org_id = told.org_id AND e.enabled AND told.event = ANY (e.event_types) LIMIT 1)
    ORDER BY job_id, number;
    RETURN NULL;
END $$;
CREATE TRIGGER activities_are_announced AFTER INSERT ON agent_jobs_activity REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION agent_jobs_announce();
"""
DROP = """
DROP TRIGGER activities_are_announced ON agent_jobs_activity;
DROP FUNCTION agent_jobs_announce();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('agent_jobs', '0025_work_and_schedules_of_jobs'),
    ]

    operations = [
        migrations.AddField(
            model_name='job',
            name='outcome_channel',
            field=infra.json_column.OrderedJSONField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name='Announcement',
            fields=[
                ('id', models.UUIDField(db_default=agent_jobs.models.jobs.UuidV7(), editable=False, primary_key=True, serialize=False)),
                ('event', models.CharField(max_length=64)),
                ('subject_id', models.CharField(max_length=64)),
                ('activity_id', models.UUIDField(null=True)),
                ('has_outcome_channel', models.BooleanField(db_default=False)),
                ('payload', infra.json_column.OrderedJSONField(null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expanded_at', models.DateTimeField(null=True)),
                ('org', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='agent_jobs.org')),
            ],
        ),
        migrations.CreateModel(
            name='WebhookEndpoint',
            fields=[
                ('id', models.UUIDField(default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False)),
                ('url', models.CharField(max_length=2000)),
                ('event_types', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), size=None)),
                ('description', models.CharField(blank=True, default='', max_length=500)),
                ('enabled', models.BooleanField(default=True)),
                ('disabled_at', models.DateTimeField(null=True)),
                ('disabled_reason', models.CharField(blank=True, default='', max_length=500)),
                ('failing_since', models.DateTimeField(null=True)),
                ('last_failed_at', models.DateTimeField(null=True)),
                ('sealed_secret', models.TextField(editable=False)),
                ('sealed_previous_secret', models.TextField(blank=True, default='', editable=False)),
                ('previous_secret_until', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('updated_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('org', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='agent_jobs.org')),
            ],
        ),
        migrations.CreateModel(
            name='WebhookDelivery',
            fields=[
                ('id', models.UUIDField(default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False)),
                ('event', models.CharField(max_length=64)),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('failed', 'Failed')], default='pending', max_length=12)),
                ('tries', models.PositiveIntegerField(default=0)),
                ('attempts', infra.json_column.OrderedJSONField(default=list)),
                ('due_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('claimed_until', models.DateTimeField(null=True)),
                ('claim_token', models.UUIDField(null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(null=True)),
                ('announcement', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='agent_jobs.announcement')),
                ('org', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='agent_jobs.org')),
                ('endpoint', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='agent_jobs.webhookendpoint')),
            ],
        ),
        migrations.AddIndex(
            model_name='announcement',
            index=models.Index(condition=models.Q(('expanded_at__isnull', True)), fields=['org', 'id'], name='announcement_new'),
        ),
        migrations.AddIndex(
            model_name='announcement',
            index=models.Index(fields=['org', 'created_at'], name='announcement_created'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(models.F('endpoint'), models.OrderBy(models.F('created_at'), descending=True), models.OrderBy(models.F('id'), descending=True), name='webhook_delivery_created'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['endpoint', 'due_at'], name='webhook_delivery_due'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(condition=models.Q(('claimed_until__isnull', False)), fields=['endpoint'], name='webhook_delivery_in_flight'),
        ),
        migrations.RunSQL(CREATE, DROP),
    ]
