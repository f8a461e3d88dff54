"""Organisations, their members, and their app tokens."""

from decimal import Decimal

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now

from infra.json_column import OrderedJSONField

LEAST_MONEY = Decimal("0.000001")
ORG_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"


class NextOrgNumber(models.Func):
    """The next number of an organisation, from a sequence of their own."""

    template = "nextval('agent_jobs_org_number'::regclass)"
    output_field = models.IntegerField()


class Org(models.Model):
    """A tenant. Its id is the string that clients send as `org_id`; `number` stands for it where a foreign API wants
    a number.
    """

    id = models.CharField(primary_key=True, max_length=64, validators=[RegexValidator(ORG_ID_PATTERN)])
    number = models.IntegerField(unique=True, editable=False, db_default=NextOrgNumber())
    name = models.CharField(max_length=200)
    # How many turns the organisation gets in each round of claims (lifecycle).
    weight = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    # Minutes; empty: the setting's default.
    max_time_to_complete = models.FloatField(null=True, blank=True)
    # Quotas; empty: the setting's default, and for `max_running_jobs` no cap. Running means that a worker has the job.
    max_waiting_jobs = models.PositiveIntegerField(null=True, blank=True)
    max_running_jobs = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    # Whether its jobs may run commands on the workers' machines. The operator decides (`manage.py allow_commands`).
    allows_commands = models.BooleanField(default=False, db_default=False)
    # Whether these commands may ask for the machine's network, its loopback included.
    allows_command_network = models.BooleanField(default=False, db_default=False)
    # When people may be spoken to (agent_jobs.hours); empty: always. Written by hours.stated_hours.
    hours = OrderedJSONField(null=True, blank=True, editable=False)
    # Caps for all its model calls on a UTC day; empty: no cap. Money is in the currency of the price table.
    max_tokens_per_day = models.PositiveBigIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    max_cost_per_day = models.DecimalField(
        max_digits=16, decimal_places=6, null=True, blank=True, validators=[MinValueValidator(LEAST_MONEY)]
    )
    # Cap for its stored bytes; empty: `tenants.stored_bytes.MAX_STORED_BYTES`. A duty writes the current number.
    max_stored_bytes = models.PositiveBigIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    stored_bytes = models.BigIntegerField(db_default=0, editable=False)
    measure_at = models.DateTimeField(db_default=Now(), editable=False)
    # Days for which ended jobs are kept; empty: the setting's default.
    retention_days = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    created_at = models.DateTimeField(db_default=Now())
    # Written by duties.closing. The row of an erased organisation stays, so that its id is never reused.
    closed_at = models.DateTimeField(null=True, blank=True, editable=False)
    is_being_erased = models.BooleanField(db_default=False, editable=False)
    erased_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=models.Q(hours__isnull=False), name="org_with_hours"),
            models.Index(
                fields=["id"],
                condition=models.Q(closed_at__isnull=False, erased_at__isnull=True),
                name="org_closed",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class PlaceHours(models.Model):
    """Hours of one channel or one person, which replace the organisation's own."""

    class Kind(models.TextChoices):
        CHANNEL = "channel"
        PERSON = "person"

    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    platform = models.CharField(max_length=32)
    name = models.CharField(max_length=255)  # the channel's code, or the person's id on the platform
    hours = OrderedJSONField()
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "kind", "platform", "name"], name="hours_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.platform}:{self.name}"


class Membership(models.Model):
    """A person's role in an organisation."""

    class Role(models.TextChoices):
        ADMIN = "admin"
        MEMBER = "member"

    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.org_id}"


class SavedView(models.Model):
    """A person's own filters of the jobs list, under a name. `query` is the query of its address."""

    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False)
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=2_000)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "org", "name"], name="saved_view_once")]

    def __str__(self) -> str:
        return self.name


class AppToken(models.Model):
    """A credential of a platform service. Only an HMAC of the token is kept; `public_id` may be shown and logged."""

    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    # The app that owns it. An app may hold two, so that a new one is in place before the old one is revoked.
    app = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    public_id = models.CharField(max_length=16)
    digest = models.BinaryField(max_length=32, unique=True)
    pepper_version = models.PositiveSmallIntegerField(db_default=1)
    scopes = ArrayField(models.CharField(max_length=32))
    created_by = models.CharField(max_length=255, blank=True, db_default="")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id}…)"


class IdempotencyKey(models.Model):
    """The first answer to a POST with this key, returned to every repetition."""

    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)  # SHA-256 of method, path, query and body
    status_code = models.PositiveSmallIntegerField()
    answer = models.JSONField()
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key
