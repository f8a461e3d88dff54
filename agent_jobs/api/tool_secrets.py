"""Secrets of tools: `/services/tool-secrets`, for admins. No response shows a secret's value."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each
from agent_jobs.api.docs import item_of, operation, page_of, removal
from agent_jobs.api.fields import StrictSerializer, Text
from agent_jobs.api.formatting import shown
from agent_jobs.reads import queries
from agent_jobs.tools import tool_secrets

SORTING = paging.Sorting("tool_secrets", {"name": "name", "updated_at": "updated_at"}, default="name:asc", key="name")
MASK = "******"


class ToolSecretRequest(StrictSerializer):
    value = Text(
        max_length=tool_secrets.MAX_VALUE,
        min_length=tool_secrets.MIN_VALUE,
        help_text="Printable ASCII. Headers of tools name it as {secret:name}. Never shown.",
    )
    hosts = serializers.ListField(
        child=Text(max_length=253),
        help_text="The only hosts that it is sent to, as `api.example.com` or `*.example.com`: 1 to 50.",
    )


class ToolSecretSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    org_id = serializers.CharField()
    value = serializers.CharField(help_text="Always ******.")
    hosts = serializers.ListField(
        child=serializers.CharField(), help_text="Hosts that it is sent to. Empty: none, until it is stored with hosts."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


ToolSecretItem = item_of("ToolSecretItem", ToolSecretSerializer)


def answer(row: queries.Row) -> dict[str, Any]:
    return shown(ToolSecretSerializer, row, value=MASK)


class _ToolSecretAdmin(Resource):
    level = scopes.Level.ADMIN

    def item(self, secret: Any) -> dict[str, Any]:
        row = {column: getattr(secret, column) for column in queries.TOOL_SECRET_COLUMNS}
        return {"data": answer(row), "meta": self.meta(row["name"])}


class ToolSecrets(_ToolSecretAdmin):
    @operation(
        "tool_secrets_list",
        "List the secrets of tools",
        answers={200: page_of("ToolSecretPage", ToolSecretSerializer)},
        sorting=SORTING,
        description="Shows their names, never their values.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=SORTING)
        return self.listed(asked, queries.tool_secrets(self.org_id), queries.TOOL_SECRET_COLUMNS, each(answer))


class ToolSecretDetail(_ToolSecretAdmin):
    @operation("tool_secrets_retrieve", "Get a secret's name", answers={200: ToolSecretItem})
    def get(self, request: Request, name: str) -> Response:
        self.asked()
        return Response(self.item(tool_secrets.find(self.org_id, name)))

    @operation(
        "tool_secrets_put",
        "Store a secret",
        may_be_missing=False,
        answers={200: ToolSecretItem, 201: ToolSecretItem},
        refused=(409,),
        request=ToolSecretRequest,
        description="201 if it is new. It is sent only to its `hosts`: a job type whose tool names it for another host"
        " is refused, and so is such a call. 409 `too_many_secrets` if the organization has reached its limit.",
    )
    def put(self, request: Request, name: str) -> Response:
        fields = self.asked(body=ToolSecretRequest).body
        secret, is_new = tool_secrets.store(self.org_id, name, fields["value"], hosts=fields["hosts"], actor=self.actor)
        return Response(self.item(secret), status=201 if is_new else 200)

    @operation(
        "tool_secrets_delete",
        "Delete a secret",
        answers={200: removal("RemovedToolSecret")},
        description="Tools that name it fail from now on.",
    )
    def delete(self, request: Request, name: str) -> Response:
        self.asked()
        tool_secrets.remove(self.org_id, name, actor=self.actor)
        return Response({"meta": self.meta(name), "message": f"Secret '{name}' deleted"})
