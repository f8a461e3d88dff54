from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0041_entries_of_ended_jobs")]
    operations = [migrations.AddField("workerprocess", "jobs_done", models.JSONField(db_default={}))]
