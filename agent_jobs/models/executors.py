"""Executors: outside programs that claim jobs over HTTP, known by their organisation and the id that they state."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from agent_jobs.models.orgs import Org


class Executor(models.Model):
    """An executor of an organisation. `address`, `labels` and `job_types` are those of its last claim. The counts are
    of attempts.
    """

    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    executor_id = models.CharField(max_length=255)
    address = models.CharField(max_length=255, default="", blank=True)
    labels = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    job_types = ArrayField(models.CharField(max_length=128), default=list, blank=True)
    first_seen_at = models.DateTimeField(db_default=Now())
    last_seen_at = models.DateTimeField(db_default=Now())
    jobs_done = models.PositiveIntegerField(db_default=0, default=0)
    jobs_failed = models.PositiveIntegerField(db_default=0, default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "executor_id"], name="executor_once")]
        indexes = [models.Index(fields=["org", "last_seen_at"], name="executor_seen")]

    def __str__(self) -> str:
        return self.executor_id
