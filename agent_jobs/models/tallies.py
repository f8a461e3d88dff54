"""Counters of ended jobs, and the entries that are still to be added to them.

A trigger on the table of jobs appends an entry for each job that ends, is retried after its end, or is deleted after
its end. `duties.tallying` adds entries to the counters. `reads.job_statistics` reads both.
"""

from django.db import models

from agent_jobs.models.orgs import Org


class JobTallyEntry(models.Model):
    """One ended job: `sign` is 1 when it ended, -1 when it was retried or deleted. Only the trigger inserts these."""

    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    sign = models.SmallIntegerField()
    created_at = models.DateTimeField()  # the job's
    status = models.CharField(max_length=12)
    job_type_key = models.CharField(max_length=128)
    platform = models.CharField(max_length=32)
    channel_code = models.CharField(max_length=255)
    priority = models.SmallIntegerField()
    # The class of its duration, by the SQL function of this name; null if it never started.
    duration_class = models.SmallIntegerField(null=True)
    follow_ups = models.IntegerField()
    replies = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["org", "created_at"], name="tally_entry_created")]

    def __str__(self) -> str:
        return f"{self.org_id} {self.sign:+d} {self.status}"


class JobTally(models.Model):
    """How many ended jobs, created in the `span` (`hour` or `day`, in UTC) that starts at `start_at`, have this `key`.

    `kind` says what the key is: status, type, channel, priority, day or class of duration. Of the kind `sum`, `number`
    is the sum of a column.
    """

    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    span = models.CharField(max_length=4)
    start_at = models.DateTimeField()
    kind = models.CharField(max_length=8)
    key = models.TextField()
    number = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "span", "start_at", "kind", "key"], name="tally_once")]

    def __str__(self) -> str:
        return f"{self.org_id} {self.kind} {self.key}: {self.number}"
