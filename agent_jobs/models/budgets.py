"""Costs of model calls: reservations of running calls, the spending of each scope, and the ledger.

`budgets.reservations` writes them. Money is in the currency of the price table, with six decimal places.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models.orgs import Org


class Scope(models.IntegerChoices):
    """The owner of a cap. Counters are always locked in this order."""

    ORG = 1
    TYPE = 2
    JOB = 3


class Budget(models.Model):
    """A counter: the spending of an organisation or job type on a UTC day, or of a job in its whole life.

    It also holds the reservations of running calls.

    A job's counter has the `day` 1970-01-01. A row exists from the first call under a cap. From then on it counts every
    call of its scope.
    """

    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    scope = models.PositiveSmallIntegerField(choices=Scope.choices)
    key = models.CharField(max_length=128, blank=True)  # the type's or job's; empty for the organisation
    day = models.DateField()
    used_tokens = models.BigIntegerField(default=0)
    used_cost = models.DecimalField(max_digits=20, decimal_places=6, default=0)
    reserved_tokens = models.BigIntegerField(default=0)
    reserved_cost = models.DecimalField(max_digits=20, decimal_places=6, default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "scope", "key", "day"], name="budget_once")]
        indexes = [models.Index(fields=["day"], name="budget_day")]

    def __str__(self) -> str:
        return f"{self.org_id}/{self.key} {self.day}"


class Reservation(models.Model):
    """One model call: its highest possible cost, reserved before it begins, and later its real cost.

    It counts on `day`, the UTC day on which it began. Closed ones are kept for some days.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        SETTLED = "settled"
        # The end of the call is unreported: its whole reservation counts as used until a report comes.
        EXPIRED = "expired"

    MODEL_LENGTH = 128

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    job_id = models.UUIDField()
    job_type_key = models.CharField(max_length=128)
    model = models.CharField(max_length=MODEL_LENGTH)
    day = models.DateField()
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.OPEN)
    reserved_input_tokens = models.BigIntegerField()
    reserved_output_tokens = models.BigIntegerField()
    reserved_cost = models.DecimalField(max_digits=20, decimal_places=6)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost = models.DecimalField(max_digits=20, decimal_places=6, default=0)
    created_at = models.DateTimeField(db_default=Now())
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], condition=Q(status="open"), name="reservation_open"),
            models.Index(fields=["closed_at"], condition=~Q(status="open"), name="reservation_closed"),
            models.Index(fields=["job_id"], name="reservation_job"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status="open", closed_at__isnull=True) | (~Q(status="open") & Q(closed_at__isnull=False)),
                name="reservation_closed_iff_not_open",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.status}"


class UsageDay(models.Model):
    """The ledger: an organisation's usage of a model by a job type on a UTC day, with or without a cap.

    It has PARTS rows, so that calls which end at the same moment do not wait for each other. Readers add them up.
    """

    PARTS = 16

    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    day = models.DateField()
    job_type_key = models.CharField(max_length=128)
    model = models.CharField(max_length=Reservation.MODEL_LENGTH)
    part = models.PositiveSmallIntegerField()
    calls = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    # Those of the input that the provider read from its cache. The database's default serves processes of before.
    cached_input_tokens = models.BigIntegerField(default=0, db_default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost = models.DecimalField(max_digits=20, decimal_places=6, default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["org", "day", "job_type_key", "model", "part"], name="usage_day_once")
        ]

    def __str__(self) -> str:
        return f"{self.org_id} {self.day} {self.job_type_key} {self.model}"
