"""Credentials of an organisation's tools."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models.orgs import Org


class ToolSecret(models.Model):
    """A value for tools' headers, which name it as `{secret:name}`. Sealed to this very row; never shown.

    It is sent only to `hosts`, such as `api.example.com` or `*.example.com`. If empty, it goes nowhere.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    org = models.ForeignKey(Org, on_delete=models.PROTECT)
    name = models.CharField(max_length=64)
    sealed_value = models.TextField()
    hosts = ArrayField(models.CharField(max_length=253), default=list, db_default=[], blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["org", "name"], name="tool_secret_once")]

    def __str__(self) -> str:
        return f"{self.org_id}/{self.name}"
