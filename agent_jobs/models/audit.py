"""Audit entries, which are append-only, and the seals that chain them (`audit.audit_log`).

No column refers to another table, because an entry outlives its subject. The migration adds parts that Django cannot
express: generated ids that a client cannot choose, triggers against changes, and the trigger that records moves.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now


class CurrentTransaction(models.Func):
    """The number of the transaction that writes the row; the same for all entries of one transaction."""

    template = "pg_current_xact_id()::text::bigint"
    output_field = models.BigIntegerField()


class AuditEntry(models.Model):
    """One change of a job's status, one write through the API, or one refused access to another organisation's object.

    `org_id` is the actor's organisation. `before` and `after` hold the changes, with secrets as `******`.
    """

    id = models.BigAutoField(primary_key=True)
    org_id = models.CharField(max_length=64)
    at = models.DateTimeField(db_default=Now())  # a trigger overwrites the value of an INSERT
    txid = models.BigIntegerField(db_default=CurrentTransaction())
    actor = models.CharField(max_length=255, blank=True, db_default="")
    request_id = models.CharField(max_length=128, blank=True, db_default="")
    action = models.CharField(max_length=64)
    object_type = models.CharField(max_length=32)
    object_id = models.CharField(max_length=600)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        indexes = [
            models.Index("org_id", F("at").desc(), F("id").desc(), name="audit_at"),
            models.Index(fields=["org_id", "object_id"], name="audit_object"),
            models.Index(fields=["org_id", "at"], condition=Q(action="access.denied"), name="audit_denied"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id}"


class AuditSeal(models.Model):
    """A link of an organisation's chain: its entries, and the seal before it. A transaction that commits late is in a
    later seal, so the chain is in the order of seals, not of ids."""

    id = models.BigAutoField(primary_key=True)
    org_id = models.CharField(max_length=64)
    seq = models.BigIntegerField()
    at = models.DateTimeField(db_default=Now())
    entry_ids = ArrayField(models.BigIntegerField())
    digests = models.BinaryField()  # the entries' SHA-256, concatenated: they show which one was changed
    last_id = models.BigIntegerField(db_index=True)
    prev_hash = models.BinaryField(max_length=32)
    hash = models.BinaryField(max_length=32)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org_id", "seq"], name="audit_seal_once")]

    def __str__(self) -> str:
        return f"{self.org_id} {self.seq}"


class AuditMark(models.Model):
    """The progress of sealing, in the one row with id 1. It helps to find new entries, and is no evidence.

    Every entry up to `floor` is sealed, and none can still appear there. `candidate_id` becomes the floor once every
    transaction older than `candidate_txid` has ended.
    """

    id = models.PositiveSmallIntegerField(primary_key=True)
    floor = models.BigIntegerField(default=0)
    candidate_id = models.BigIntegerField(default=0)
    candidate_txid = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.floor)
