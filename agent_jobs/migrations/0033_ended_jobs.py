"""Charts of what ended read an index alone: 30 days of 400,000 jobs took 900 ms."""

from django.db import migrations, models

from infra.online_indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False
    dependencies = [
        ('agent_jobs', '0032_labels_keys_and_expiry_of_jobs'),
    ]

    operations = [
        AddIndexOnline(
            model_name='job',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['org', 'finished_at'], include=('status',), name='job_ended'),
        ),
    ]
