"""Indexes of jobs that earlier migrations of this release need, built while the service runs."""

import django.contrib.postgres.indexes
from django.db import migrations, models

from infra.online_indexes import AddIndexOnline, AddRawIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("agent_jobs", "0037_cached_input")]
    operations = [
        AddIndexOnline(
            model_name='job',
            index=models.Index(models.F('org'), models.F('schedule_id'), models.OrderBy(models.F('created_at'), descending=True), condition=models.Q(('schedule_id__isnull', False)), name='job_of_schedule'),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(('schedule_id__isnull', False), ('status__in', ['SCHEDULED', 'WAITING', 'RUNNING'])), fields=['schedule_id'], name='job_active_of_schedule'),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(models.F('org'), models.F('error_code'), models.OrderBy(models.F('updated_at'), descending=True), models.OrderBy(models.F('id'), descending=True), condition=models.Q(('status', 'FAILED')), name='job_error'),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(('lane', 'external'), ('queue_at__isnull', False)), fields=['org', 'placement', 'queue_at', 'id'], name='job_placement'),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(('lease_until__isnull', False), models.Q(('executor_id', ''), _negated=True)), fields=['org', 'executor_id'], name='job_of_executor'),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(('expires_at__isnull', False), ('started_at__isnull', True), ('status', 'WAITING')), fields=['expires_at'], name='job_expiry'),
        ),
        AddIndexOnline(
            model_name='job',
            index=django.contrib.postgres.indexes.GinIndex(condition=models.Q(('metadata', {}), _negated=True), fields=['org', 'metadata'], name='job_metadata', opclasses=['varchar_ops', 'jsonb_path_ops']),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(models.Q(('unique_key', ''), _negated=True), ('finished_at__isnull', True)), fields=['org', 'unique_key'], name='job_unique_living'),
        ),
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(models.Q(('unique_key', ''), _negated=True), ('status', 'COMPLETED')), fields=['org', 'unique_key', 'created_at'], name='job_unique_completed'),
        ),
        AddRawIndexOnline(
            "job_words",
            "ON agent_jobs_job USING gin (org_id, agent_jobs_job_words(params, result, error_message))"
            " WHERE finished_at IS NOT NULL",
        ),
    ]
