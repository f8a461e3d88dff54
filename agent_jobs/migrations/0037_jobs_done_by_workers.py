from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0036_tallies_of_jobs")]
    operations = [migrations.AddField("workerprocess", "jobs_done", models.JSONField(db_default={}))]
