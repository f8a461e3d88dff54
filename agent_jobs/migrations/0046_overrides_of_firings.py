from django.db import migrations

import infra.json_column


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0045_jobs_in_queues")]
    operations = [
        migrations.AddField(
            model_name="schedulefiring",
            name="overrides",
            field=infra.json_column.OrderedJSONField(blank=True, db_default={}, default=dict),
        ),
    ]
