"""Registered channels of an organisation, and its Slack installations. `channel_messages` handles the messages in them.

Clients send secrets, and no response shows them later. Platform and code identify a channel within the token's
organisation; channels of other organisations are not found.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each
from agent_jobs.api.docs import item_of, operation, page_of, removal
from agent_jobs.api.fields import Name, StrictSerializer, Text
from agent_jobs.api.formatting import shown
from agent_jobs.errors import NotFound
from agent_jobs.tenants import channel_admin
from channels_integration import directory

_TIMES = {"created_at": "created_at", "updated_at": "updated_at"}
CHANNELS_BY = paging.Sorting("channels", {"platform": "platform", "code": "code", **_TIMES}, "platform:asc,code:asc")
INSTALLATIONS_BY = paging.Sorting("installations", {"team_id": "team_id", **_TIMES}, "team_id:asc")


# --- Requests and responses ------------------------------------------------------------------------------------
class ChannelRequest(StrictSerializer):
    platform = Text(max_length=32)
    code = Text(
        help_text="For a webhook or a bridge, `*` matches every code of the platform that is not registered itself."
    )
    name = Name(max_length=200, required=False)
    address = Text(max_length=2_000, required=False, help_text="The address to POST messages to, as https://…")
    secret = Text(required=False, help_text="Signs what we send (Standard Webhooks). Never shown.")


class InstallationRequest(StrictSerializer):
    team_id = Text(max_length=64)
    bot_token = Text(max_length=500, help_text="Never shown.")
    signing_secret = Text(max_length=500, help_text="Never shown.")
    name = Name(max_length=200, required=False)


class ChannelSerializer(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    platform = serializers.CharField()
    code = serializers.CharField()
    name = serializers.CharField(required=False)
    address = serializers.CharField(required=False)
    secret = serializers.CharField(required=False, help_text="Only if this request generated it.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class InstallationSerializer(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    platform = serializers.CharField()
    team_id = serializers.CharField()
    name = serializers.CharField(required=False)
    events_path = serializers.CharField(
        help_text="The path on this host for the app's Event Subscriptions, for this installation only."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class OrgMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()


Unregistered = removal("Unregistered", OrgMeta)


def _channel(channel: Any) -> dict[str, Any]:
    return shown(ChannelSerializer, vars(channel))


def _installation(installation: Any) -> dict[str, Any]:
    events_path = f"/channels/slack/events/{installation.id}"
    return shown(InstallationSerializer, vars(installation), platform="slack", events_path=events_path)


# --- Views -----------------------------------------------------------------------------------------------------
class ByName(Resource):
    """Views whose URL names a channel or a team: a name with a NUL character gets a 404."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if any("\x00" in name for name in kwargs.values()):
            raise NotFound("there is no channel of this name", code="channel_not_found")


class _Registered(Resource):
    """Settings that decide where an organisation's messages go, and with which secrets.

    Writing needs ADMIN, because it allows answering in the place of people. READ shows everything but the secrets.
    """

    write_level = scopes.Level.ADMIN

    def cut(self, found: Any, sorting: paging.Sorting, shown: Callable[[Any], dict[str, Any]]) -> Response:
        asked = self.asked(sorting=sorting)
        columns = [column.name for column in found.model._meta.concrete_fields]
        return self.listed(asked, found, columns, each(lambda row: shown(SimpleNamespace(**row))))


class Channels(_Registered):
    @operation(
        "channels_list",
        "List registered channels",
        answers={200: page_of("ChannelList", ChannelSerializer)},
        sorting=CHANNELS_BY,
    )
    def get(self, request: Request) -> Response:
        return self.cut(directory.channels(self.org_id), CHANNELS_BY, _channel)

    @operation(
        "channels_register",
        "Register a channel",
        answers={201: item_of("ChannelItem", ChannelSerializer, OrgMeta)},
        request=ChannelRequest,
        description="Needs SERVICES:ADMIN. Registering it again changes the registration. Only this answer shows a"
        " secret that the service generates; a repeated Idempotency-Key does not get it.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=ChannelRequest).body
        made: dict[str, str] = {}

        def effect() -> tuple[int, Mapping[str, Any]]:
            channel, secret = channel_admin.register(self.org_id, actor=self.actor, **fields)
            if secret:
                made["secret"] = secret
            return 201, {"data": _channel(channel), "meta": {"org_id": self.org_id}}

        return self.once(effect, secrets=made)


class ChannelDetail(_Registered, ByName):
    @operation(
        "channels_unregister",
        "Unregister a channel",
        answers={200: Unregistered},
        description="Needs SERVICES:ADMIN.",
    )
    def delete(self, request: Request, platform: str, code: str) -> Response:
        self.asked()
        if not channel_admin.unregister(self.org_id, platform, code, actor=self.actor):
            raise NotFound(f"there is no channel {platform[:32]}:{code[:64]!r}", code="channel_not_found")
        return Response({"meta": {"org_id": self.org_id}, "message": f"Channel '{platform}:{code}' unregistered"})


class Installations(_Registered):
    @operation(
        "slack_installations_list",
        "List Slack installations",
        answers={200: page_of("InstallationList", InstallationSerializer)},
        sorting=INSTALLATIONS_BY,
    )
    def get(self, request: Request) -> Response:
        return self.cut(directory.installations(self.org_id), INSTALLATIONS_BY, _installation)

    @operation(
        "slack_installations_install",
        "Install Slack for a team",
        answers={201: item_of("InstallationItem", InstallationSerializer, OrgMeta)},
        request=InstallationRequest,
        description="Needs SERVICES:ADMIN. Token and secret are sealed, never shown. Installing again replaces them.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = dict(self.asked(body=InstallationRequest).body)

        def effect() -> tuple[int, Mapping[str, Any]]:
            made = channel_admin.install_slack(self.org_id, actor=self.actor, **fields)
            return 201, {"data": _installation(made), "meta": {"org_id": self.org_id}}

        return self.once(effect)


class InstallationDetail(_Registered, ByName):
    @operation(
        "slack_installations_remove",
        "Remove a Slack installation",
        answers={200: Unregistered},
        description="Needs SERVICES:ADMIN.",
    )
    def delete(self, request: Request, team_id: str) -> Response:
        self.asked()
        if not channel_admin.uninstall_slack(self.org_id, team_id, actor=self.actor):
            raise NotFound(f"there is no Slack installation for the team {team_id[:64]!r}", code="team_not_found")
        return Response({"meta": {"org_id": self.org_id}, "message": f"Slack team '{team_id}' removed"})
