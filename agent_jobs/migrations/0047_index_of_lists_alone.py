"""An index for lists of the jobs in queues that claims cannot take: its condition has one more part than theirs."""

from datetime import UTC, datetime

from django.db import migrations, models

from infra.online_indexes import AddIndexOnline, RemoveIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("agent_jobs", "0046_overrides_of_firings")]
    operations = [
        AddIndexOnline(
            "job",
            models.Index(
                fields=["org", "state_since", "id"],
                condition=models.Q(("queue_at__isnull", False), ("state_since__gt", datetime(1970, 1, 1, tzinfo=UTC))),
                name="job_in_queue",
            ),
        ),
        RemoveIndexOnline("job", "job_queued"),
    ]
