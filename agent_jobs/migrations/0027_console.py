"""Adds for the console: a function that collects the words of ended jobs for search, and people's saved views."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.contrib.postgres.operations import BtreeGinExtension
from django.db import migrations, models

# In PL/pgSQL, so that it can be IMMUTABLE and is not inlined: the index and the queries must have the same expression.
_WORDS = """
CREATE FUNCTION agent_jobs_job_words(params json, result text, error_message text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN to_tsvector('simple', left(params::text, 4000) || ' ' || left(coalesce(result, ''), 4000) || ' '
        || left(error_message, 4000));
END $$;
"""
_NO_WORDS = """
DROP FUNCTION agent_jobs_job_words(json, text, text);
"""


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('agent_jobs', '0026_webhooks'),
    ]

    operations = [
        BtreeGinExtension(),
        migrations.CreateModel(
            name='SavedView',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=60)),
                ('query', models.CharField(max_length=2000)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('org', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, to='agent_jobs.org')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('user', 'org', 'name'), name='saved_view_once')],
            },
        ),
        migrations.RunSQL(_WORDS, _NO_WORDS),
    ]
