"""The tables of the channels. Each docstring names the module whose statements use the table.

The two tables of messages have no foreign keys: they are on the hot path, and are pruned separately.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from channels_integration.messages import Did
from infra import sealing
from infra.json_column import OrderedJSONField


class SealedRow(models.Model):
    """A row of an organisation with sealed secrets, each sealed to this very row and column."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org_id = models.TextField()

    class Meta:
        abstract = True

    def opened(self, column: str) -> str:
        """The secret in a sealed column. Raises SealingError if its key is missing or the row was changed."""
        return sealing.opened(self, column)


class Installation(SealedRow):
    """An organisation's right to speak in one Slack workspace (`directory`)."""

    team_id = models.TextField()
    name = models.TextField(blank=True, default="")
    sealed_bot_token = models.TextField()
    sealed_signing_secret = models.TextField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["org_id", "team_id"]
        constraints = [models.UniqueConstraint(fields=["org_id", "team_id"], name="channels_one_installation_per_team")]
        indexes = [models.Index(fields=["team_id"], name="channels_installation_team")]

    def __str__(self) -> str:
        return f"{self.org_id} in {self.name or self.team_id}"


class Channel(SealedRow):
    """A place with a registered name: a webhook, a bridge under another platform's name, a web chat (`directory`).

    After a change of the secret `sealed_previous_secret` signs too, until `previous_secret_until`.
    """

    platform = models.TextField()
    code = models.TextField()
    name = models.TextField(blank=True, default="")
    address = models.TextField(blank=True, default="")
    sealed_secret = models.TextField(blank=True, default="")
    sealed_previous_secret = models.TextField(blank=True, default="", db_default="")
    previous_secret_until = models.DateTimeField(null=True, blank=True)
    last_position = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["org_id", "platform", "code"]
        constraints = [
            models.UniqueConstraint(fields=["org_id", "platform", "code"], name="channels_one_channel_per_code")
        ]

    def __str__(self) -> str:
        return f"{self.platform}:{self.code}"


class WebMessage(models.Model):
    """One line of a transcript that we keep ourselves (`web_messages`).

    `position` is assigned under the channel row's lock. So a reader who asks for lines after a position never misses
    one that committed late.
    """

    class Direction(models.TextChoices):
        IN = "in"
        OUT = "out"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="messages", db_index=False)
    position = models.BigIntegerField(editable=False)
    direction = models.TextField(choices=Direction.choices)
    author = models.TextField(blank=True, default="")
    text = models.TextField()
    owner_key = models.TextField(blank=True, default="")
    buttons = models.JSONField(blank=True, default=list, db_default=[])  # [label, value] each
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["channel", "position"]
        constraints = [
            models.UniqueConstraint(fields=["channel", "position"], name="channels_one_message_per_position")
        ]

    def __str__(self) -> str:
        return f"{self.direction} {self.author}: {self.text[:60]}"


class OutboundMessage(models.Model):
    """A message to send (`outbox`, `send_order`, `send_results`).

    pending → sending → sent | pending (surely not posted) | unknown (perhaps posted) | dead
    unknown → sent | pending | dead; pending, unknown → withdrawn. A message that is withdrawn while it is being sent
    (`is_recalled`) ends as sent if it was posted; otherwise as withdrawn instead of pending.

    `due_at` is when a pending one may be tried, and when a sending or unknown one is looked up in the history.
    `position` is the order within a thread. An unknown one with a `platform_message_id` was posted, but its owner has
    not recorded it yet.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        UNKNOWN = "unknown"
        SENT = "sent"
        DEAD = "dead"
        WITHDRAWN = "withdrawn"

    UNDELIVERED = (Status.PENDING, Status.SENDING, Status.UNKNOWN)

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    position = models.BigIntegerField(
        db_default=Func(Value("channels_outbound_position"), function="nextval"), editable=False
    )
    org_id = models.TextField()
    platform = models.TextField()
    code = models.TextField()
    type = models.TextField(blank=True, db_default="")
    details = OrderedJSONField(blank=True, db_default={})
    text = models.TextField()
    owner_key = models.TextField(blank=True, db_default="")
    thread_key = models.TextField(blank=True, db_default="")
    lane = models.TextField()
    is_in_lane = models.BooleanField(db_default=False, editable=False)
    status = models.TextField(choices=Status.choices, db_default=Status.PENDING)
    due_at = models.DateTimeField(db_default=Now())
    claim_token = models.UUIDField(null=True, blank=True, editable=False)
    claimed_at = models.DateTimeField(null=True, blank=True)
    first_claimed_at = models.DateTimeField(null=True, blank=True)
    failures = models.SmallIntegerField(db_default=0)
    unknown_outcomes = models.SmallIntegerField(db_default=0)
    is_recalled = models.BooleanField(db_default=False, editable=False)
    history_cursor = models.TextField(blank=True, db_default="")
    platform_message_id = models.TextField(blank=True, db_default="")
    thread = models.TextField(blank=True, db_default="")
    error_code = models.TextField(blank=True, db_default="")
    error_message = models.TextField(blank=True, db_default="")
    trace = models.CharField(max_length=55, blank=True, db_default="", editable=False)  # its cause's traceparent
    buttons = models.JSONField(blank=True, default=list, db_default=[])  # [label, value] each
    change = models.JSONField(null=True, blank=True, editable=False)  # {"of": id, "line": text, "person": text}
    mentions = models.JSONField(blank=True, default=list, db_default=[], editable=False)  # ids
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-position"]
        indexes = [
            # All are partial: a message that is sent on commit (the null platform) enters the primary key's index only.
            models.Index(
                fields=["due_at"],
                condition=Q(status="pending", is_in_lane=False),
                name="channels_outbound_arriving",
            ),
            models.Index(
                fields=["lane", "position"],
                condition=Q(status="pending", is_in_lane=True),
                name="channels_outbound_in_lane",
            ),
            models.Index(
                fields=["due_at"],
                condition=Q(status__in=["sending", "unknown"]),
                name="channels_outbound_unsettled",
            ),
            models.Index(
                fields=["thread_key", "position"],
                condition=Q(status__in=["pending", "sending", "unknown"]),
                name="channels_outbound_thread",
            ),
            models.Index(
                fields=["owner_key"],
                condition=Q(status__in=["pending", "sending", "unknown"]),
                name="channels_outbound_owner",
            ),
            models.Index(
                fields=["thread_key", "position"],
                condition=Q(status="sent") & ~Q(thread=""),
                name="channels_outbound_opened",
            ),
            # For lists of what could not be delivered.
            models.Index("org_id", F("position").desc(), condition=Q(status="dead"), name="channels_outbound_dead"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(status="sent") | Q(sent_at__isnull=False), name="channels_sent_has_a_time"
            ),
            models.CheckConstraint(
                condition=~Q(status="sending") | Q(claim_token__isnull=False, claimed_at__isnull=False),
                name="channels_sending_has_a_claim",
            ),
            models.CheckConstraint(condition=~Q(status="dead") | ~Q(error_code=""), name="channels_dead_has_a_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.status} to {self.platform}:{self.code}"


class Lane(models.Model):
    """The queue of one channel (`send_order`): when to look at it next, and which claim is in flight.

    `look_at` is null while nothing waits. `opens_at` enforces the pace (a post a second, or a platform's Retry-After).
    `holder` is the claim in flight on a paced channel.
    """

    lane = models.TextField(primary_key=True)
    org_id = models.TextField()
    opens_at = models.DateTimeField(db_default=Now())
    look_at = models.DateTimeField(null=True, blank=True)
    holder = models.UUIDField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["org_id", "look_at"],
                condition=Q(look_at__isnull=False),
                name="channels_lane_waiting",
            )
        ]

    def __str__(self) -> str:
        return self.lane


class InboundEvent(models.Model):
    """An act of a person, as it arrived (`inbound`): usually a message. Stored once, and kept also if unmatched."""

    class Status(models.TextChoices):
        WAITING = "waiting"
        ROUTED = "routed"
        PARKED = "parked"

    id = models.BigAutoField(primary_key=True)
    org_id = models.TextField()
    platform = models.TextField()
    event_id = models.TextField()
    team = models.TextField(blank=True, default="")
    code = models.TextField()
    thread = models.TextField(blank=True, default="")
    author = models.TextField(blank=True, default="")
    text = models.TextField()
    owner_key = models.TextField(blank=True, default="")
    is_direct = models.BooleanField(default=False)
    is_outsider = models.BooleanField(default=False, db_default=False)
    did = models.TextField(default=Did.SAID, db_default=Did.SAID)
    message_id = models.TextField(blank=True, default="", db_default="")
    sent_at = models.DateTimeField()
    received_at = models.DateTimeField(db_default=Now(), editable=False)
    lane = models.TextField()
    status = models.TextField(choices=Status.choices, db_default=Status.WAITING)
    due_at = models.DateTimeField(db_default=Now())
    failures = models.SmallIntegerField(db_default=0)
    looks = models.SmallIntegerField(db_default=0)
    is_matched = models.BooleanField(null=True, blank=True)
    routed_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, db_default="")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["org_id", "platform", "event_id"], name="channels_one_row_per_event")
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(status="waiting"), name="channels_inbound_due"),
            models.Index(fields=["lane", "sent_at", "id"], condition=Q(status="waiting"), name="channels_inbound_lane"),
            models.Index(
                fields=["org_id", "platform", "code", "thread"],
                condition=Q(status="waiting"),
                name="channels_inbound_thread",
            ),
            models.Index(
                fields=["org_id", "platform", "code", "received_at"],
                condition=Q(status="routed", is_matched=False),
                name="channels_inbound_unmatched",
            ),
            # For the last event of a workspace.
            models.Index("org_id", "team", F("id").desc(), condition=~Q(team=""), name="channels_inbound_team"),
        ]

    def __str__(self) -> str:
        return f"{self.status} from {self.author} in {self.platform}:{self.code}"
