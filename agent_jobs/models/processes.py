"""Who is at work: worker processes, and when each duty was last done. Read by recovery and by `/health/ready`."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class WorkerProcess(models.Model):
    """One Celery worker process. It holds the session advisory lock (LOCK_SPACE, id) for as long as it lives."""

    LOCK_SPACE = 0x616A  # "aj"; the first of the two numbers of the advisory lock

    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=200)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    # When it last took a bell from the broker: a worker that is connected but consumes nothing does not move this.
    worked_at = models.DateTimeField(null=True)
    # What it can perform. Releases before this column knew the two of the default.
    runners = ArrayField(models.CharField(max_length=64), db_default=["conversation", "message"])
    # When a sweep first found its lock free.
    lost_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name}#{self.pk}"


class DutyRun(models.Model):
    """When a periodic duty was last done, by whichever worker.

    BELL: when a bell of one was last answered. RESUMED: when lost jobs were looked for again after an outage.
    """

    BELL = "bell"
    RESUMED = "take_back_resumed"

    duty = models.CharField(primary_key=True, max_length=32)
    done_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.duty
