"""A job, its tasks, its activities and its transcript.

The columns are grouped by their readers: the request, the due time, the worker's state, the outcome. A row is in its
queue exactly while `queue_at` is set; claims walk the partial index on it.
"""

from datetime import UTC, datetime

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Func, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models.orgs import AppToken, Org
from agent_jobs.states import TERMINAL, ActivityStatus, JobStatus, SourceType, TaskStatus
from infra.json_column import OrderedJSONField

_TERMINAL = [str(status) for status in JobStatus if status in TERMINAL]
_STATUSES = [(str(status), str(status)) for status in JobStatus]


# The jobs in a queue, for lists by the time in it. The second condition holds for all: it keeps the planner from taking
# the index of these lists for claims, which do not state it.
IN_QUEUE = Q(queue_at__isnull=False, state_since__gt=datetime(1970, 1, 1, tzinfo=UTC))


class Job(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    status = models.CharField(max_length=12, choices=_STATUSES)

    # The request. The job type is copied in, so that a job runs by the type as it was when posted.
    job_type_key = models.CharField(max_length=128)
    runner = models.CharField(max_length=32)
    lane = models.CharField(max_length=32)
    platform = models.CharField(max_length=32)
    channel_code = models.CharField(max_length=255)
    channel_type = models.CharField(max_length=64, default="", blank=True)
    channel_data = OrderedJSONField(default=dict, blank=True)
    prompt = models.TextField(default="", blank=True)  # the template: start_prompt, or the type's description
    params = OrderedJSONField(default=dict, blank=True)
    config = OrderedJSONField(default=dict, blank=True)
    # Further parts of the type that an agent uses, if the type has them: `tools`, `result_schema`.
    agent = OrderedJSONField(default=dict, db_default={}, blank=True)
    # The definition for a runner without an agent (`agent_jobs.work`), with masks in place of the sealed secrets.
    work = OrderedJSONField(default=dict, db_default={}, blank=True)
    sealed_work = models.TextField(default="", db_default="", blank=True)
    # The schedule that made it, perhaps deleted by now, and the time of that firing.
    schedule_id = models.UUIDField(null=True, blank=True)
    fire_at = models.DateTimeField(null=True, blank=True)
    tags = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    priority = models.SmallIntegerField(default=5)
    # The client's own labels, which nothing here reads: texts, numbers and booleans.
    metadata = models.JSONField(default=dict, db_default={}, blank=True)
    # The business key that only one living job holds, and among which jobs (`jobs.uniqueness`); '' is none.
    unique_key = models.CharField(max_length=255, default="", db_default="", blank=True)
    unique_scope = models.CharField(max_length=8, default="", db_default="", blank=True)
    is_new_channel = models.BooleanField(default=False)
    ignore_cooldown = models.BooleanField(default=False)
    created_by = models.ForeignKey(AppToken, null=True, on_delete=models.SET_NULL, db_index=False)
    # The user who made it, through an API where people sign in; perhaps deleted by now.
    created_by_user = models.IntegerField(null=True, blank=True)
    replay_of = models.UUIDField(null=True, blank=True)  # a job of the same organisation, perhaps pruned by now

    # The due time.
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    requested_at = models.DateTimeField(null=True, blank=True)  # the client's `scheduled_at`
    delay_minutes = models.PositiveIntegerField(default=0)
    delay_seconds = models.PositiveIntegerField(default=0)  # drawn once, at random
    scheduled_at = models.DateTimeField()
    # When it fails if no worker has begun it by then: `queue_ttl_minutes` after the due time.
    expires_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    deadline_minutes = models.FloatField()
    deadline_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    # Seconds by kind of time (`states.TIME_KINDS`), and the start of the present kind. A trigger keeps both.
    time_spent = models.JSONField(default=dict, db_default={}, blank=True)
    state_since = models.DateTimeField(db_default=Now())

    # The worker's state. `queue_at` orders the queue within an organisation. `timer_*` is a wait that starts when a
    # message is delivered. `resume` is the wake of the turn that will be retried.
    queue_at = models.DateTimeField(null=True, blank=True)
    waiting_for = models.CharField(max_length=16, default="", blank=True)
    wake_at = models.DateTimeField(null=True, blank=True)
    timer_message_id = models.UUIDField(null=True, blank=True)
    timer_seconds = models.FloatField(null=True, blank=True)
    resume = models.CharField(max_length=16, default="", blank=True)
    lease_token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    worker_id = models.IntegerField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0)  # claims so far
    failed_attempts = models.PositiveIntegerField(default=0)
    crash_count = models.PositiveIntegerField(default=0)  # since a turn last ended
    retry_count = models.PositiveIntegerField(default=0)  # explicit retries of an ended job
    turn = models.PositiveIntegerField(default=0, db_default=0)  # settled turns; a retry continues the same turn

    # The executor that holds the job or held it last, and its progress (`agent_jobs.executors`). `placement` says
    # which executors may claim it (`runners.external`).
    placement = models.TextField(default="", db_default="", blank=True)
    executor_id = models.CharField(max_length=255, default="", db_default="", blank=True)
    progress_percent = models.PositiveSmallIntegerField(null=True, blank=True)
    progress_message = models.TextField(default="", db_default="", blank=True)
    progress_at = models.DateTimeField(null=True, blank=True)

    # The conversation. Turns have taken in `inbox_seen` of the `inbox_count` human messages.
    thread = models.CharField(max_length=255, default="", blank=True)
    inbox_count = models.PositiveIntegerField(default=0)
    inbox_seen = models.PositiveIntegerField(default=0)
    first_reply_at = models.DateTimeField(null=True, blank=True)
    follow_ups_sent = models.PositiveIntegerField(default=0)  # since the last reply
    follow_ups_total = models.PositiveIntegerField(default=0)

    # The outcome. `outcome_channel` is told about it: {"platform", "code", "type", "data", "template"}.
    outcome_channel = OrderedJSONField(null=True, blank=True)
    result = models.TextField(null=True, blank=True)  # noqa: DJ001 - null is "no result", '' is an empty one
    result_data = OrderedJSONField(null=True, blank=True)
    error_code = models.CharField(max_length=64, default="", blank=True)
    error_message = models.TextField(default="", blank=True)
    # The traceparent of the request that posted it.
    trace = models.CharField(max_length=55, default="", db_default="", blank=True)

    class Meta:
        indexes = [
            models.Index("org", F("created_at").desc(), F("id").desc(), name="job_created"),
            # For `reads.job_statistics`: the jobs that have not ended, and the durations of those that have.
            models.Index(
                fields=["org", "created_at"],
                include=[
                    *("status", "job_type_key", "platform", "channel_code", "priority", "follow_ups_total"),
                    "inbox_count",
                ],
                condition=Q(finished_at__isnull=True),
                name="job_living",
            ),
            models.Index(
                "org",
                Func("started_at", "finished_at", function="agent_jobs_duration_class"),
                "created_at",
                include=["started_at", "finished_at"],
                condition=Q(started_at__isnull=False, finished_at__isnull=False),
                name="job_duration",
            ),
            models.Index("org", "status", F("created_at").desc(), F("id").desc(), name="job_status"),
            models.Index("org", "job_type_key", F("created_at").desc(), F("id").desc(), name="job_type"),
            models.Index("org", "channel_code", F("created_at").desc(), F("id").desc(), name="job_channel"),
            models.Index("org", "scheduled_at", name="job_scheduled"),
            models.Index("org", F("updated_at").desc(), F("id").desc(), name="job_updated"),
            models.Index(
                fields=["org", "replay_of", "created_at"],
                condition=Q(replay_of__isnull=False),
                name="job_replays",
            ),
            # Includes the columns that tell whether a process understands a job, so claims skip others by the index.
            models.Index(
                fields=["lane", "org", "queue_at", "id"],
                include=["runner", "waiting_for", "resume"],
                condition=Q(queue_at__isnull=False),
                name="job_queue",
            ),
            # For lists by the time in the queue.
            models.Index(fields=["org", "state_since", "id"], condition=IN_QUEUE, name="job_in_queue"),
            models.Index(fields=["scheduled_at"], condition=Q(status="SCHEDULED"), name="job_due"),
            models.Index(
                fields=["expires_at"],
                condition=Q(status="WAITING", started_at__isnull=True, expires_at__isnull=False),
                name="job_expiry",
            ),
            # Partial, so that jobs without metadata or key cost nothing.
            GinIndex(
                fields=["org", "metadata"],
                opclasses=["varchar_ops", "jsonb_path_ops"],
                condition=~Q(metadata={}),
                name="job_metadata",
            ),
            models.Index(
                fields=["org", "unique_key"],
                condition=~Q(unique_key="") & Q(finished_at__isnull=True),
                name="job_unique_living",
            ),
            models.Index(
                fields=["org", "unique_key", "created_at"],
                condition=~Q(unique_key="") & Q(status="COMPLETED"),
                name="job_unique_completed",
            ),
            models.Index(
                fields=["wake_at"], condition=Q(wake_at__isnull=False, queue_at__isnull=True), name="job_wake"
            ),
            models.Index(
                fields=["deadline_at"],
                condition=Q(status__in=["WAITING", "RUNNING"], deadline_at__isnull=False),
                name="job_deadline",
            ),
            models.Index(fields=["worker_id"], condition=Q(lease_until__isnull=False), name="job_leased"),
            # For claims of executors, and for what each of them holds.
            models.Index(
                fields=["org", "placement", "queue_at", "id"],
                condition=Q(queue_at__isnull=False, lane="external"),
                name="job_placement",
            ),
            models.Index(
                fields=["org", "executor_id"],
                condition=Q(lease_until__isnull=False) & ~Q(executor_id=""),
                name="job_of_executor",
            ),
            # For counts against caps.
            models.Index(
                fields=["org", "job_type_key", "platform", "channel_code"],
                condition=Q(status="RUNNING"),
                name="job_running",
            ),
            # A job that continues has its slot already; a claim must not search for it behind all that wait for one.
            models.Index(
                fields=["lane", "org", "queue_at", "id"],
                condition=Q(queue_at__isnull=False, status="RUNNING"),
                name="job_resumed",
            ),
            # For finding who gets a reply: the running jobs of a channel.
            models.Index(
                fields=["org", "platform", "channel_code", "thread"],
                condition=Q(status__in=["WAITING", "RUNNING"], started_at__isnull=False),
                name="job_listening",
            ),
            models.Index(
                fields=["org", "job_type_key", "channel_code", "finished_at"],
                condition=Q(status="FAILED"),
                name="job_failed",
            ),
            # The history of a schedule, and which of its jobs have not ended.
            models.Index(
                "org",
                "schedule_id",
                F("created_at").desc(),
                condition=Q(schedule_id__isnull=False),
                name="job_of_schedule",
            ),
            models.Index(
                fields=["schedule_id"],
                condition=Q(schedule_id__isnull=False, status__in=["SCHEDULED", "WAITING", "RUNNING"]),
                name="job_active_of_schedule",
            ),
            # For charts of what ended, without a look at the rows.
            models.Index(
                fields=["org", "finished_at"],
                include=["status"],
                condition=Q(finished_at__isnull=False),
                name="job_ended",
            ),
            models.Index(
                "org",
                "error_code",
                F("updated_at").desc(),
                F("id").desc(),
                condition=Q(status="FAILED"),
                name="job_error",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=_TERMINAL, finished_at__isnull=False)
                | (~Q(status__in=_TERMINAL) & Q(finished_at__isnull=True)),
                name="job_finished_iff_terminal",
            ),
            models.CheckConstraint(
                condition=Q(queue_at__isnull=True) | Q(status__in=["WAITING", "RUNNING"]),
                name="job_queued_is_alive",
            ),
            models.CheckConstraint(
                condition=~Q(status="WAITING") | Q(queue_at__isnull=False), name="job_waiting_is_queued"
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=True) | Q(status="RUNNING", queue_at__isnull=True),
                name="job_leased_is_running",
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def thread_key(self) -> str:
        """The outbox's key for the job's thread: one thread per job."""
        return str(self.pk)


class UuidV7(models.Func):
    """PostgreSQL 18's uuidv7(), because hand-written statements insert these rows."""

    function = "uuidv7"
    output_field = models.UUIDField()


class Task(models.Model):
    """One attempt or step of a job: the outcome of one claim."""

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="tasks", db_constraint=False)
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=12, db_default=TaskStatus.RUNNING)
    lease_token = models.BigIntegerField()
    result = models.TextField(null=True)  # noqa: DJ001 - as for the job
    # The runner's record of the attempt: exit code and output, or request and response (`runners.base.Done.report`).
    report = OrderedJSONField(null=True)
    # The executor that made the attempt, as it named itself.
    executor_id = models.CharField(max_length=255, db_default="", default="", blank=True)
    executor_address = models.CharField(max_length=255, db_default="", default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}"


class Message(models.Model):
    """One line of a job's transcript, in the order of `id`. `key` is an outgoing message's id in the outbox.

    `platform_message_id` is the platform's id of a person's message; edits and deletions name it. `edited_at` is the
    platform's time of the edit that produced `text`. A deleted message has no text.

    `heard` is set for the agent's lines: how many lines of people it had seen when it wrote this one.
    """

    id = models.BigAutoField(primary_key=True)
    key = models.UUIDField(default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="messages", db_constraint=False)
    is_human = models.BooleanField()
    author = models.CharField(max_length=255)
    text = models.TextField()
    created_at = models.DateTimeField(db_default=Now())
    delivered_at = models.DateTimeField(null=True)
    platform_message_id = models.CharField(max_length=255, default="", db_default="", blank=True)
    edited_at = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)
    heard = models.PositiveIntegerField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["platform_message_id"], condition=~Q(platform_message_id=""), name="message_of_platform"
            )
        ]

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"


class Activity(models.Model):
    """One event of a job: a move, a model call, a tool call or a message. A message's activity has the message's id."""

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    job = models.ForeignKey(
        Job, null=True, on_delete=models.CASCADE, related_name="activities", db_index=False, db_constraint=False
    )
    # 1, 2, 3 ... within the job, in the order of commits. A trigger sets it. There are no gaps: the activities of a job
    # are deleted with the job only, so the highest number is their count.
    number = models.PositiveIntegerField(null=True, editable=False)
    code = models.CharField(max_length=64)
    status = models.CharField(max_length=12, db_default=ActivityStatus.COMPLETED)
    note = models.TextField(db_default="", blank=True)
    actor = models.CharField(max_length=255, db_default="", blank=True)
    request_id = models.CharField(max_length=128, db_default="", blank=True)
    # Set for moves: the old status, the new one, and the number of the job's life (an explicit retry starts a new
    # one).
    moved_from = models.CharField(max_length=12, db_default="", blank=True)
    moved_to = models.CharField(max_length=12, db_default="", blank=True)
    life = models.PositiveIntegerField(db_default=0)
    source_type = models.CharField(max_length=16, db_default=SourceType.DISPATCH)
    execution_id = models.UUIDField(null=True)
    allocated_credits = models.DecimalField(max_digits=14, decimal_places=6, db_default=0)
    consumed_credits = models.DecimalField(max_digits=14, decimal_places=6, db_default=0)
    credits_rule_id = models.PositiveSmallIntegerField(db_default=0)
    input = OrderedJSONField(null=True)
    output = OrderedJSONField(null=True)
    processed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index("org", F("created_at").desc(), F("id").desc(), name="activity_created"),
        ]
        constraints = [
            # Promise I2: one terminal record in each life of a job.
            models.UniqueConstraint(
                fields=["job", "life"], condition=Q(moved_to__in=_TERMINAL), name="activity_one_terminal"
            ),
            models.UniqueConstraint(fields=["job", "number"], name="activity_number"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.job_id or ''}".strip()
