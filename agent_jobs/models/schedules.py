"""A schedule, its versions and its firings. The shape of a definition is in `schedules.definition`."""

from uuid import uuid4

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models.orgs import Org
from infra.json_column import OrderedJSONField


class Schedule(models.Model):
    """A recurring job. `definition` is what clients see and versions keep; other columns are copies for queries.

    `next_at` is the next time to fire, in UTC. It is empty while the schedule is paused, and when no firing is left:
    the schedule is then completed.
    """

    # Random ids: people see their first characters, which are alike in ids that begin with a time.
    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001 - null is "none", and unique where set
    name = models.CharField(max_length=255)
    job_type_key = models.CharField(max_length=128)
    runner = models.CharField(max_length=32)
    tags = ArrayField(models.CharField(max_length=160), default=list, blank=True)
    definition = OrderedJSONField()
    sealed_work = models.TextField(default="", db_default="", blank=True)
    is_paused = models.BooleanField(default=False)
    version = models.PositiveIntegerField(default=1)
    next_at = models.DateTimeField(null=True, blank=True)
    # The release of the time zone database by which `next_at` was computed.
    tz_version = models.CharField(max_length=16, default="", db_default="", blank=True)
    created_by = models.CharField(max_length=255, default="", db_default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index("org", F("created_at").desc(), F("id").desc(), name="schedule_created"),
            models.Index("org", "name", name="schedule_name"),
            models.Index(fields=["next_at"], condition=Q(next_at__isnull=False), name="schedule_due"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["org", "key"], name="schedule_key_once"),
            models.CheckConstraint(condition=Q(is_paused=False) | Q(next_at__isnull=True), name="schedule_paused_idle"),
        ]

    def __str__(self) -> str:
        return f"{self.org_id}/{self.name}"


class ScheduleVersion(models.Model):
    """One state of a schedule's configuration. `diff` lists what changed: `[{"field", "before", "after"}]`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="versions", db_index=False)
    number = models.PositiveIntegerField()
    definition = OrderedJSONField()
    sealed_work = models.TextField(default="", db_default="", blank=True)
    is_paused = models.BooleanField(default=False)
    diff = OrderedJSONField(default=list)
    author = models.CharField(max_length=255)
    note = models.CharField(max_length=255, default="", db_default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["schedule", "number"], name="schedule_version_once")]

    def __str__(self) -> str:
        return f"{self.schedule_id} version {self.number}"


class ScheduleFiring(models.Model):
    """The outcome of one time at which a schedule was due, or of a run that somebody asked for."""

    class Kind(models.TextChoices):
        TIMER = "timer"
        MANUAL = "manual"
        BACKFILL = "backfill"

    class Outcome(models.TextChoices):
        STARTED = "started"  # it made a job
        SKIPPED = "skipped"  # the overlap policy did not allow a job
        MISFIRED = "misfired"  # nobody fired it in time, and the misfire policy gives it up
        QUEUED = "queued"  # it waits for the end of the running job
        FAILED = "failed"  # the job could not be made

    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="firings", db_index=False)
    fire_at = models.DateTimeField()
    kind = models.CharField(max_length=8, choices=Kind)
    outcome = models.CharField(max_length=8, choices=Outcome)
    reason = models.TextField(default="", db_default="", blank=True)
    # The changes to the job that a queued firing will make. No `work`, so no secrets.
    overrides = OrderedJSONField(default=dict, db_default={}, blank=True)
    job_id = models.UUIDField(null=True, blank=True)  # perhaps pruned by now
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index("schedule", F("fire_at").desc(), F("id").desc(), name="firing_of_schedule"),
            models.Index(fields=["schedule", "fire_at"], condition=Q(outcome="queued"), name="firing_queued"),
            models.Index(fields=["org", "created_at"], name="firing_created"),
        ]
        constraints = [
            # Promise I9: each time of a schedule makes one job.
            models.UniqueConstraint(fields=["schedule", "fire_at"], condition=~Q(kind="manual"), name="firing_once"),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} at {self.fire_at:%Y-%m-%dT%H:%M:%SZ}"
