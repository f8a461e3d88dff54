"""Charts of what ended read an index alone: 30 days of 400,000 jobs took 900 ms."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agent_jobs', '0032_labels_keys_and_expiry_of_jobs'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['org', 'finished_at'], include=('status',), name='job_ended'),
        ),
    ]
