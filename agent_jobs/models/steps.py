"""What an agent did within its turns, call by call, and the approvals that it had to ask for."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from agent_jobs.models.jobs import Job, UuidV7
from agent_jobs.models.orgs import Org
from infra.json_column import OrderedJSONField


class Step(models.Model):
    """One call of a model or of a tool. Written before the call is made, and completed before the next one is.

    `number` counts the steps of a job's life; `turn` is the turn that it belongs to (`Job.turn`), which a retry after a
    crash takes up again: what has an output is not called a second time. One that was begun and has none is of
    unknown outcome: its worker died.
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
    name = models.CharField(max_length=160)  # of the model or the tool
    call_id = models.CharField(max_length=128, default="", blank=True)  # the model's own name of a tool call
    input = OrderedJSONField(default=dict)
    output = OrderedJSONField(null=True)
    begun_at = models.DateTimeField(db_default=Now())
    called_at = models.DateTimeField(null=True)  # of a tool: when it was really called, perhaps after an approval
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "life", "number"], name="step_once")]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number} {self.name}"


class Approval(models.Model):
    """A tool call that a person is to allow, or more budget for a model's. Decided once, under the job's row lock, also
    by its time running out.

    For a budget, `tool` is the model, and `arguments` are `approvals.budget_requests.Over`: the cap that leaves too
    little, and what an approval adds to it.
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
    edited_arguments = OrderedJSONField(null=True)  # what the approver made of them
    approvers = ArrayField(models.CharField(max_length=255), default=list, blank=True)  # empty: anybody there
    on_timeout = models.CharField(max_length=8, default="deny")
    status = models.CharField(max_length=10, choices=Status.choices, db_default=Status.PENDING)
    decided_by = models.CharField(max_length=255, default="", db_default="", blank=True)
    reason = models.TextField(default="", db_default="", blank=True)
    message_key = models.UUIDField(null=True)  # of the message with the buttons, in the outbox
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    # Where its time does not run yet, for its question is not out: how much that is. `expires_at` is far away then.
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
    def what(self) -> str:
        """What is decided about, within a sentence."""
        return self.tool if self.kind == self.Kind.TOOL else f"going on beyond {self.arguments.get('cap', 'a cap')}"
