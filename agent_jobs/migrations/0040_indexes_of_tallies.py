from django.db import migrations, models

from infra.online_indexes import AddIndexOnline, RemoveIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("agent_jobs", "0039_tallies_of_jobs")]
    operations = [
        AddIndexOnline(
            "job",
            models.Index(
                condition=models.Q(("finished_at__isnull", True)),
                fields=["org", "created_at"],
                include=(
                    *("status", "job_type_key", "platform", "channel_code", "priority", "follow_ups_total"),
                    "inbox_count",
                ),
                name="job_living",
            ),
        ),
        AddIndexOnline(
            "job",
            models.Index(
                models.F("org"),
                models.Func("started_at", "finished_at", function="agent_jobs_duration_class"),
                models.F("created_at"),
                condition=models.Q(("finished_at__isnull", False), ("started_at__isnull", False)),
                include=("started_at", "finished_at"),
                name="job_duration",
            ),
        ),
        RemoveIndexOnline("job", "job_statistics"),
    ]
