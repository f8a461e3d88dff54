import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """Secrets that are there already get no hosts, and are sent nowhere until an ADMIN stores them anew with hosts.

    To take the hosts from the job types that name them would let WRITE state them after all.
    """

    dependencies = [
        ('agent_jobs', '0014_time_of_approvals'),
    ]

    operations = [
        migrations.AddField(
            model_name='toolsecret',
            name='hosts',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=253), blank=True, db_default=[], default=list, size=None),
        ),
    ]
