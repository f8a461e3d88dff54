from django.db import migrations, models

import agent_jobs.models.orgs


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0033_ended_jobs")]

    operations = [
        migrations.RunSQL(
            "CREATE SEQUENCE agent_jobs_org_number AS integer", "DROP SEQUENCE agent_jobs_org_number"
        ),
        migrations.AddField(
            model_name="org",
            name="number",
            field=models.IntegerField(db_default=agent_jobs.models.orgs.NextOrgNumber(), editable=False, unique=True),
        ),
        migrations.AddField(
            model_name="job", name="created_by_user", field=models.IntegerField(blank=True, null=True)
        ),
    ]
