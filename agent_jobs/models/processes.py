"""Worker processes, and the last run of each duty. Recovery and `/health/ready` read them."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class WorkerProcess(models.Model):
    """One Celery worker process. It holds the session advisory lock (LOCK_SPACE, id) as long as it lives."""

    LOCK_SPACE = 0x616A  # "aj"; the first of the two numbers of the advisory lock

    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=200)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    # When it last took a doorbell from the broker. A worker that is connected but consumes nothing does not update it.
    worked_at = models.DateTimeField(null=True)
    # The runners that it can perform.
    runners = ArrayField(models.CharField(max_length=64), db_default=["conversation", "message"])
    # The number of jobs that it has ended, by organisation: {"acme": 12}.
    jobs_done = models.JSONField(db_default={})
    # When a sweep first found its lock free.
    lost_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name}#{self.pk}"


class DutyRun(models.Model):
    """When any worker last ran a periodic duty.

    BELL: when a worker last answered a duty's doorbell. RESUMED: when the search for lost jobs resumed after an outage.
    """

    BELL = "bell"
    RESUMED = "take_back_resumed"

    duty = models.CharField(primary_key=True, max_length=32)
    done_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.duty
