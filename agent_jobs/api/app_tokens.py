"""App tokens: `/services/app-tokens`, for admins. Only the response that creates a token contains its plain text."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.fields import Name, StrictSerializer, Text, Whole
from agent_jobs.api.filters import AppTokenFilters
from agent_jobs.api.formatting import shown
from agent_jobs.reads import queries
from agent_jobs.tenants import app_tokens

SORTING = paging.Sorting("app_tokens", {"created_at": "created_at", "app": "app"}, default="created_at:desc")


class AppTokenRequest(StrictSerializer):
    app = Name(max_length=200, help_text="The app that uses it. It has two active tokens at most: the old and the new.")
    name = Name(max_length=200, required=False, help_text="The token's purpose; default: the app's name.")
    scopes = serializers.ListField(
        child=Text(max_length=32),
        min_length=1,
        max_length=10,
        help_text=f"Some of {', '.join(scopes.ALL_SCOPES)}; none that the requesting token does not hold itself.",
    )
    expires_in_days = Whole(
        min_value=1,
        max_value=app_tokens.MAX_DAYS_FOR_APPS,
        required=False,
        help_text=f"Default {app_tokens.DEFAULT_DAYS}.",
    )


class AppTokenSerializer(serializers.Serializer[Any]):
    public_id = serializers.CharField(help_text="The token's first characters; may be shown and logged.")
    org_id = serializers.CharField()
    app = serializers.CharField()
    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    created_by = serializers.CharField(required=False)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(required=False)
    last_used_at = serializers.DateTimeField(required=False, help_text="Accurate to the minute.")
    revoked_at = serializers.DateTimeField(required=False)


class NewAppToken(AppTokenSerializer):
    token = serializers.CharField(required=False, help_text="Shown once: a repeated Idempotency-Key does not get it.")


AppTokenItem = item_of("AppTokenItem", AppTokenSerializer)


def answer(row: queries.Row) -> dict[str, Any]:
    return shown(AppTokenSerializer, row)


class _AppTokenAdmin(Resource):
    level = scopes.Level.ADMIN

    def item(self, token: Any) -> dict[str, Any]:
        return {"data": answer(vars(token)), "meta": self.meta(token.public_id)}


class AppTokens(_AppTokenAdmin):
    @operation(
        "app_tokens_list",
        "List app tokens",
        answers={200: page_of("AppTokenPage", AppTokenSerializer)},
        sorting=SORTING,
        filtered=AppTokenFilters,
        description="Includes expired and revoked tokens. Never shows the plain tokens.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=SORTING, rows=queries.app_tokens(self.org_id), filtered=AppTokenFilters)
        return self.listed(asked, asked.rows, queries.APP_TOKEN_COLUMNS, each(answer))

    @operation(
        "app_tokens_create",
        "Make an app token",
        answers={201: item_of("NewAppTokenItem", NewAppToken)},
        request=AppTokenRequest,
        description="409 `too_many_active_tokens` if the app has two already. To rotate: make the second, deploy it,"
        " revoke the first.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=AppTokenRequest).body
        made: dict[str, str] = {}

        def effect() -> tuple[int, Mapping[str, Any]]:
            token, made["token"] = app_tokens.issue_for_app(
                self.org_id,
                app=fields["app"],
                name=fields.get("name", fields["app"]),
                scopes=fields["scopes"],
                days=fields.get("expires_in_days", app_tokens.DEFAULT_DAYS),
                held=self.token.scopes,
                actor=self.actor,
            )
            return 201, self.item(token)

        return self.once(effect, secrets=made)


class AppTokenDetail(_AppTokenAdmin):
    @operation("app_tokens_retrieve", "Get an app token", answers={200: AppTokenItem})
    def get(self, request: Request, public_id: str) -> Response:
        self.asked()
        return Response(self.item(app_tokens.find(self.org_id, public_id)))

    @operation(
        "app_tokens_revoke",
        "Revoke an app token",
        answers={200: item_of("RevokedAppToken", AppTokenSerializer, has_message=True)},
        description="Takes effect at once and for good. Revoking it again answers the same and keeps the first time.",
    )
    def delete(self, request: Request, public_id: str) -> Response:
        self.asked()
        token = app_tokens.revoke_by_id(self.org_id, public_id, actor=self.actor)
        return Response({**self.item(token), "message": f"App token '{public_id}' revoked"})
