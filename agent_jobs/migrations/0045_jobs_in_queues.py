from django.db import migrations, models

from infra.online_indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("agent_jobs", "0044_network_of_commands")]
    operations = [
        AddIndexOnline(
            "job",
            models.Index(
                fields=["org", "state_since", "id"], condition=models.Q(("queue_at__isnull", False)), name="job_queued"
            ),
        )
    ]
