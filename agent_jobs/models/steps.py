"""The steps of an agent within its turns, and the approvals that it had to ask for."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from agent_jobs.models.jobs import Job, UuidV7
from agent_jobs.models.orgs import Org
from infra.json_column import OrderedJSONField


class Step(models.Model):
    """One call of a model or a tool. Written before the call, and completed before the next one.

    `number` counts the steps of a job's life. `turn` is its turn (`Job.turn`). A retry after a crash continues that
    turn, and repeats no step that has an output. A step that began and has no output is of unknown outcome: its worker
    died.
    """

    class Kind(models.TextChoices):
        MODEL = "model"
        TOOL = "tool"

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="steps", db_index=False, db_constraint=False)
    life = models.PositiveIntegerField()
    number = models.PositiveIntegerField()
    turn = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    name = models.CharField(max_length=160)  # the model's or the tool's
    call_id = models.CharField(max_length=128, default="", blank=True)  # the model's id of a tool call
    input = OrderedJSONField(default=dict)
    output = OrderedJSONField(null=True)
    begun_at = models.DateTimeField(db_default=Now())
    called_at = models.DateTimeField(null=True)  # for tools: the time of the real call, perhaps after an approval
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "life", "number"], name="step_once")]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number} {self.name}"


class Approval(models.Model):
    """A tool call, or more budget for a model call, that a person has to allow. Decided once, under the job's row lock;
    its expiry is a decision too.

    For a budget, `tool` is the model, and `arguments` are `approvals.budget_requests.Over`: the cap that leaves too
    little, and how much an approval adds to it.
    """

    class Kind(models.TextChoices):
        TOOL = "tool"
        BUDGET = "budget"

    class Status(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        DENIED = "denied"
        EXPIRED = "expired"
        WITHDRAWN = "withdrawn"  # its job ended

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="approvals", db_index=False, db_constraint=False
    )
    step = models.OneToOneField(Step, on_delete=models.CASCADE, related_name="approval", db_constraint=False)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.TOOL, db_default=Kind.TOOL)
    tool = models.CharField(max_length=160)
    question = models.TextField(default="", blank=True)
    arguments = OrderedJSONField(default=dict)
    edited_arguments = OrderedJSONField(null=True)  # as the approver changed them
    approvers = ArrayField(models.CharField(max_length=255), default=list, blank=True)  # empty: anybody in the channel
    on_timeout = models.CharField(max_length=8, default="deny")
    status = models.CharField(max_length=10, choices=Status.choices, db_default=Status.PENDING)
    decided_by = models.CharField(max_length=255, default="", db_default="", blank=True)
    reason = models.TextField(default="", db_default="", blank=True)
    message_key = models.UUIDField(null=True)  # the outbox id of the message with the buttons
    # Where the question was asked, if not in the job's channel, and where it could not be delivered
    # (`approvals.lost_questions`).
    asked_in = models.JSONField(null=True)  # {"platform", "code", "data"}
    # [{"message_id", "platform", "code", "error_code", "error_message"}]
    undelivered = models.JSONField(default=list, db_default=[])
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    # Length of a timer that has not started, because its question is not delivered. `expires_at` is then far away.
    timer_seconds = models.FloatField(null=True)
    decided_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["org", "job", "created_at"], name="approval_job"),
            models.Index(fields=["org", "created_at"], condition=Q(status="pending"), name="approval_pending"),
            models.Index("org", F("created_at").desc(), F("id").desc(), name="approval_created"),
        ]

    def __str__(self) -> str:
        return f"{self.what} {self.status}"

    @property
    def place(self) -> tuple[str, str]:
        """The platform and the code of the channel in which the question was last asked."""
        if self.asked_in:
            return self.asked_in["platform"], self.asked_in["code"]
        return self.job.platform, self.job.channel_code

    @property
    def is_unasked(self) -> bool:
        """Whether the question could not be delivered where it was last asked."""
        lost = self.undelivered[-1:]
        return bool(lost) and (lost[0]["platform"], lost[0]["code"]) == self.place

    @property
    def what(self) -> str:
        """The subject of the decision, within a sentence."""
        return self.tool if self.kind == self.Kind.TOOL else f"going on beyond {self.arguments.get('cap', 'a cap')}"
