"""The catalogue of an organisation: job types, agent profiles, and the keys of its models."""

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models.orgs import LEAST_MONEY, Org
from infra.json_column import OrderedJSONField


class CatalogEntry(models.Model):
    """The common columns of job types and profiles. `key` is the `id` that clients see, unique in the organisation."""

    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    key = models.CharField(max_length=128)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    emoji = models.CharField(max_length=64, blank=True, default="")
    version = models.PositiveIntegerField(default=1)
    visibility = models.CharField(max_length=16, default="org")
    active = models.BooleanField(default=True)
    tags = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.org_id}/{self.key}"


class JobType(CatalogEntry):
    runner = models.CharField(max_length=32, default="conversation")
    params_schema = OrderedJSONField(default=dict, blank=True)
    # JSON Schema of the jobs' `result_data`; empty: anything.
    result_schema = OrderedJSONField(default=dict, db_default={}, blank=True)
    default_config = OrderedJSONField(default=dict, blank=True)
    # The defaults of its jobs' work; `sealed_work` has the values of its secrets (`catalog.type_work`).
    work = OrderedJSONField(default=dict, db_default={}, blank=True)
    sealed_work = models.TextField(default="", db_default="", blank=True, editable=False)
    tools = OrderedJSONField(default=list, db_default=[], blank=True)  # `tools.declarations` has their shapes
    # How many of its jobs may run at once: in total, and in any one channel. Empty: no cap.
    max_running = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    max_running_per_channel = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])

    # Caps for all model calls of its jobs on a UTC day. Empty: no cap.
    max_tokens_per_day = models.PositiveBigIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    max_cost_per_day = models.DecimalField(
        max_digits=16, decimal_places=6, null=True, blank=True, validators=[MinValueValidator(LEAST_MONEY)]
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "key"], name="job_type_once")]


class Profile(CatalogEntry):
    """An agent's identity: its instructions, its model, and the fallback model.

    `base_url` is the address of `model`, if that is not its key's address (`catalog.model_keys`). Empty columns mean
    the default (`llm.Access`).
    """

    instructions = models.TextField(blank=True, default="")
    model = models.CharField(max_length=128, default="scripted")
    # Names of the tools that it may use, from those of the job type; null: all of them.
    allowed_tools = models.JSONField(null=True, blank=True)
    base_url = models.CharField(max_length=2_000, blank=True, default="", db_default="")
    fallback_model = models.CharField(max_length=128, blank=True, default="", db_default="")
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    timeout_seconds = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    context_tokens = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "key"], name="profile_once")]


class ModelKey(models.Model):
    """An organisation's own key for a model provider, sealed to this very row.

    It goes to the host of `base_url` and nowhere else; empty means the provider's own address.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    provider = models.CharField(max_length=32)
    sealed_key = models.TextField()
    base_url = models.CharField(max_length=2_000, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "provider"], name="model_key_once")]

    def __str__(self) -> str:
        return f"{self.org_id}: {self.provider}"
