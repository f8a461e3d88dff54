"""Outgoing webhooks: what happened (`Announcement`), who wants to know (`WebhookEndpoint`), and each `WebhookDelivery`.

A trigger (migration 0026) writes the announcements of jobs.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models.jobs import UuidV7
from agent_jobs.models.orgs import Org
from infra.json_column import OrderedJSONField


class Announcement(models.Model):
    """One event of an organisation that somebody wants to know. Its id is the `webhook-id` of all its deliveries.

    `payload` is what the endpoints get. It is null for an event of a job until `expanded_at`.
    """

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    event = models.CharField(max_length=64)
    subject_id = models.CharField(max_length=64)
    activity_id = models.UUIDField(null=True)
    has_outcome_channel = models.BooleanField(db_default=False)
    payload = OrderedJSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    expanded_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["org", "id"], condition=Q(expanded_at__isnull=True), name="announcement_new"),
            models.Index(fields=["org", "created_at"], name="announcement_created"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.subject_id}"


class WebhookEndpoint(models.Model):
    """An address of an organisation that gets its events. Deliveries are signed with `sealed_secret`.

    After a rotation `sealed_previous_secret` signs too, until `previous_secret_until`. `failing_since` is the first
    failed attempt since the last success.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    url = models.CharField(max_length=2_000)
    event_types = ArrayField(models.CharField(max_length=64))
    description = models.CharField(max_length=500, blank=True, default="")
    enabled = models.BooleanField(default=True)
    disabled_at = models.DateTimeField(null=True)
    disabled_reason = models.CharField(max_length=500, blank=True, default="")
    failing_since = models.DateTimeField(null=True)
    last_failed_at = models.DateTimeField(null=True)
    sealed_secret = models.TextField(editable=False)
    sealed_previous_secret = models.TextField(default="", blank=True, editable=False)
    previous_secret_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.org_id}/{self.id}"


class WebhookDelivery(models.Model):
    """One announcement for one endpoint.

    A pending one is due at `due_at`. A sender holds it until `claimed_until`, which is then its `due_at` too: if the
    sender dies, the delivery is simply due again. `tries` counts the attempts since it was made or last redelivered;
    `attempts` lists the last ones: `{"at", "status_code", "duration_ms", "error"}`.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    announcement = models.ForeignKey(Announcement, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=64)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    tries = models.PositiveIntegerField(default=0)
    attempts = OrderedJSONField(default=list)
    due_at = models.DateTimeField(db_default=Now())
    claimed_until = models.DateTimeField(null=True)
    claim_token = models.UUIDField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index("endpoint", F("created_at").desc(), F("id").desc(), name="webhook_delivery_created"),
            models.Index(fields=["endpoint", "due_at"], condition=Q(status="pending"), name="webhook_delivery_due"),
            models.Index(
                fields=["endpoint"], condition=Q(claimed_until__isnull=False), name="webhook_delivery_in_flight"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.endpoint_id}"
