from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0020_worker_runners")]

    operations = [
        migrations.AddField(model_name="message", name="heard", field=models.PositiveIntegerField(null=True)),
    ]
