"""The audit: `/services/audit`. Admins read the entries of their own organisation."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each
from agent_jobs.api.docs import operation, page_of
from agent_jobs.api.fields import Object
from agent_jobs.api.filters import AuditFilters
from agent_jobs.api.formatting import shown
from agent_jobs.reads import queries

SORTING = paging.Sorting("audit", {"at": "at"}, default="at:desc")


class AuditEntrySerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    at = serializers.DateTimeField()
    actor = serializers.CharField(required=False, help_text="`token:ajt_live_…`, `user:…`, `command:…` or `system:…`.")
    request_id = serializers.CharField(required=False, help_text="The X-Request-ID of the request that did it.")
    action = serializers.CharField(help_text="As `job.canceled`, `job_type.updated` or `access.denied`.")
    object_type = serializers.CharField()
    object_id = serializers.CharField(required=False)
    before = Object(required=False, help_text="Changed fields before the change. Secrets are `******`.")
    after = Object(required=False, help_text="Changed fields after the change.")


def answer(row: queries.Row) -> dict[str, Any]:
    return shown(AuditEntrySerializer, row, id=str(row["id"]))


class Audit(Resource):
    level = scopes.Level.ADMIN

    @operation(
        "audit_list",
        "List audit entries",
        answers={200: page_of("AuditPage", AuditEntrySerializer)},
        sorting=SORTING,
        filtered=AuditFilters,
        description="Every change of a job's status, every write by a token, a person or a command, and every refused"
        " access to another organization's objects.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=SORTING, rows=queries.audit_entries(self.org_id), filtered=AuditFilters)
        return self.listed(asked, asked.rows, queries.AUDIT_COLUMNS, each(answer))
