"""Channels: the ones that an organisation has registered, its Slack installations, and the messages of web chats.

Secrets go in and never come out. A channel is known by platform and code within the token's organisation, so another
one's is simply not there.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.http import HttpResponseBase
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import queries
from agent_jobs.api import approvals, filters, parsing, streams
from agent_jobs.api.answers import filled, stamp
from agent_jobs.api.approvals import ApprovalItem
from agent_jobs.api.base import Resource, read_job_id
from agent_jobs.api.docs import operation
from agent_jobs.api.fields import StrictSerializer, Text
from agent_jobs.errors import NotFound
from agent_jobs.services import channels, presses
from channels_integration import directory, transcript, webchat
from channels_integration.messages import Target

SLACK = "slack"
POLL_SECONDS = 0.2
MAX_WAIT_SECONDS = 30
MESSAGES_QUERY = {
    "after": parsing.Param(
        filters.read_message_id,
        "The id of the last message seen: only later ones are shown.",
        {"type": "string", "format": "uuid"},
    ),
    "limit": parsing.whole(1, 100, default=50, about="How many to return at most, oldest first."),
    "wait": parsing.whole(
        0, MAX_WAIT_SECONDS, default=0, about="Seconds to wait for a message where there is none yet."
    ),
}
# Nobody stands in a long-poll of a process that is to end.
stopping = streams.stopping
_places = threading.BoundedSemaphore(settings.LONG_POLL_LIMIT)


# --- What is sent and answered ---------------------------------------------------------------------------------
class ChannelRequest(StrictSerializer):
    platform = Text(max_length=32)
    code = Text()
    name = Text(max_length=200, required=False)
    address = Text(max_length=2_000, required=False, help_text="Where messages are POSTed, as https://…")
    secret = Text(required=False, help_text="Signs what we send (Standard Webhooks). Never shown.")


class InstallationRequest(StrictSerializer):
    team_id = Text(max_length=64)
    bot_token = Text(max_length=500, help_text="Never shown.")
    signing_secret = Text(max_length=500, help_text="Never shown.")
    name = Text(max_length=200, required=False)


class MessageRequest(StrictSerializer):
    text = Text(max_length=40_000)
    author = Text()
    job_id = Text(max_length=64, required=False, help_text="The job that is answered; else the newest that waits.")


class PressRequest(StrictSerializer):
    value = Text(max_length=2_000, help_text="Of the button, as its message shows it.")
    author = Text(help_text="Who presses it.")


class Button(serializers.Serializer[Any]):
    label = serializers.CharField()  # type: ignore[assignment]
    value = serializers.CharField(help_text="What is sent to press it.")


class Channel(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    platform = serializers.CharField()
    code = serializers.CharField()
    name = serializers.CharField(required=False)
    address = serializers.CharField(required=False)
    secret = serializers.CharField(required=False, help_text="Only where it was made by this very request.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class Installation(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    platform = serializers.CharField()
    team_id = serializers.CharField()
    name = serializers.CharField(required=False)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class Message(serializers.Serializer[Any]):
    id = serializers.CharField()
    channel_code = serializers.CharField()
    direction = serializers.ChoiceField(["in", "out"])
    author = serializers.CharField()
    text = serializers.CharField()
    job_id = serializers.CharField(required=False)
    buttons = Button(many=True, required=False, help_text="While they can be pressed.")
    created_at = serializers.DateTimeField()


class OrgMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()


class CountMeta(OrgMeta):
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class MessagesMeta(OrgMeta):
    count = serializers.IntegerField()
    limit = serializers.IntegerField()


ChannelItem = inline_serializer("ChannelItem", {"data": Channel(), "meta": OrgMeta()})
ChannelList = inline_serializer("ChannelList", {"data": Channel(many=True), "meta": CountMeta()})
InstallationItem = inline_serializer("InstallationItem", {"data": Installation(), "meta": OrgMeta()})
InstallationList = inline_serializer("InstallationList", {"data": Installation(many=True), "meta": CountMeta()})
MessageItem = inline_serializer("MessageItem", {"data": Message(), "meta": OrgMeta()})
MessageList = inline_serializer("MessageList", {"data": Message(many=True), "meta": MessagesMeta()})
Unregistered = inline_serializer("Unregistered", {"meta": OrgMeta(), "message": serializers.CharField()})


def _channel(channel: Any) -> dict[str, Any]:
    return filled(
        {
            "org_id": channel.org_id,
            "platform": channel.platform,
            "code": channel.code,
            "name": channel.name,
            "address": channel.address,
            "created_at": stamp(channel.created_at),
            "updated_at": stamp(channel.updated_at),
        }
    )


def _installation(installation: Any) -> dict[str, Any]:
    return filled(
        {
            "org_id": installation.org_id,
            "platform": "slack",
            "team_id": installation.team_id,
            "name": installation.name,
            "created_at": stamp(installation.created_at),
            "updated_at": stamp(installation.updated_at),
        }
    )


def _message(message: Any, code: str) -> dict[str, Any]:
    return {
        "id": str(message.id),
        "channel_code": code,
        "direction": message.direction,
        "author": message.author,
        "text": message.text,
        **filled({"job_id": message.owner_key}),
        **({"buttons": [_button(*button) for button in message.buttons]} if message.buttons else {}),
        "created_at": stamp(message.created_at),
    }


def _button(label: str, value: str) -> dict[str, str]:
    return {"label": label, "value": value}


# --- Views -----------------------------------------------------------------------------------------------------
class _ByName(Resource):
    """Views whose address names a place: what no name can hold is the name of nothing."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if any("\x00" in name for name in kwargs.values()):
            raise NotFound("there is no channel of this name", code="channel_not_found")


class Channels(Resource):
    @operation("channels_list", "List registered channels", answers={200: ChannelList})
    def get(self, request: Request) -> Response:
        self.asked()
        return Response(self.whole([_channel(channel) for channel in directory.channels(self.org_id)]))

    @operation(
        "channels_register",
        "Register a channel",
        answers={201: ChannelItem},
        request=ChannelRequest,
        is_post=True,
        description="Registering it again changes what is registered. A secret that is made here is in this answer"
        " and in no other, also not in the one to a repeated Idempotency-Key.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=ChannelRequest).body
        made: dict[str, str] = {}

        def effect() -> tuple[int, Mapping[str, Any]]:
            channel, secret = channels.register(self.org_id, actor=self.actor, **fields)
            if secret:
                made["secret"] = secret
            return 201, {"data": _channel(channel), "meta": {"org_id": self.org_id}}

        def with_secret(answer: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**answer, "data": {**answer["data"], **made}}

        return self.once(effect, finish=with_secret)

    def whole(self, shown: Sequence[Any]) -> dict[str, Any]:
        return {"data": shown, "meta": {"org_id": self.org_id, "count": len(shown), "total": len(shown)}}


class ChannelDetail(_ByName):
    @operation("channels_unregister", "Unregister a channel", answers={200: Unregistered}, refused=(404,))
    def delete(self, request: Request, platform: str, code: str) -> Response:
        self.asked()
        if not channels.unregister(self.org_id, platform, code, actor=self.actor):
            raise NotFound(f"there is no channel {platform[:32]}:{code[:64]!r}", code="channel_not_found")
        return Response({"meta": {"org_id": self.org_id}, "message": f"Channel '{platform}:{code}' unregistered"})


class Installations(Resource):
    @operation("slack_installations_list", "List Slack installations", answers={200: InstallationList})
    def get(self, request: Request) -> Response:
        self.asked()
        shown = [_installation(found) for found in directory.installations(self.org_id)]
        return Response({"data": shown, "meta": {"org_id": self.org_id, "count": len(shown), "total": len(shown)}})

    @operation(
        "slack_installations_install",
        "Install Slack for a team",
        answers={201: InstallationItem},
        request=InstallationRequest,
        is_post=True,
        description="Token and secret are sealed and never shown. Installing again replaces them.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = dict(self.asked(body=InstallationRequest).body)

        def effect() -> tuple[int, Mapping[str, Any]]:
            made = channels.install_slack(self.org_id, actor=self.actor, **fields)
            return 201, {"data": _installation(made), "meta": {"org_id": self.org_id}}

        return self.once(effect)


class InstallationDetail(_ByName):
    @operation("slack_installations_remove", "Remove a Slack installation", answers={200: Unregistered}, refused=(404,))
    def delete(self, request: Request, team_id: str) -> Response:
        self.asked()
        if not channels.uninstall_slack(self.org_id, team_id, actor=self.actor):
            raise NotFound(f"there is no Slack installation for the team {team_id[:64]!r}", code="team_not_found")
        return Response({"meta": {"org_id": self.org_id}, "message": f"Slack team '{team_id}' removed"})


class Messages(_ByName):
    @operation(
        "messages_list",
        "Read a channel's messages",
        answers={200: MessageList},
        refused=(404,),
        query=MESSAGES_QUERY,
        description="Oldest first. With `wait`, an empty answer is held back until a message comes.",
    )
    def get(self, request: Request, platform: str, code: str) -> Response:
        query = self.asked(query=MESSAGES_QUERY).query
        found = self.read(platform, code, query)
        if not found and query["wait"]:
            found = self.wait(platform, code, query)
        meta = {"org_id": self.org_id, "count": len(found), "limit": query["limit"]}
        return Response({"data": [_message(message, code) for message in found], "meta": meta})

    @operation(
        "messages_reply",
        "Say something as a person",
        answers={201: MessageItem},
        refused=(404,),
        request=MessageRequest,
        is_post=True,
    )
    def post(self, request: Request, platform: str, code: str) -> HttpResponseBase:
        fields = self.asked(body=MessageRequest).body
        if platform == transcript.WEB and (reason := directory.unreachable_reason(Target(self.org_id, platform, code))):
            raise NotFound(f"there can be no channel of this name: its code {reason[1]}", code="channel_not_found")
        job_id = ""
        if stated := fields.get("job_id"):
            job_id = str(queries.own_job_id(self.org_id, read_job_id(stated)))

        def effect() -> tuple[int, Mapping[str, Any]]:
            said = channels.say(
                self.org_id,
                platform,
                code,
                actor=self.actor,
                author=fields["author"],
                text=fields["text"],
                owner_key=job_id,
            )
            return 201, {"data": _message(said, code), "meta": {"org_id": self.org_id}}

        return self.once(effect)

    def read(self, platform: str, code: str, query: Mapping[str, Any]) -> Sequence[Any]:
        return list(webchat.read(self.org_id, platform, code, after=query["after"], limit=query["limit"]))

    def wait(self, platform: str, code: str, query: Mapping[str, Any]) -> Sequence[Any]:
        """Look again until there is a message. Only so many of a process's threads may stand here at once."""
        if not _places.acquire(blocking=False):
            return ()
        try:
            until = time.monotonic() + query["wait"]
            found: Sequence[Any] = ()
            while not found and not stopping.is_set() and (left := until - time.monotonic()) > 0:
                stopping.wait(min(POLL_SECONDS, left))
                found = self.read(platform, code, query)
            return found
        finally:
            _places.release()


class Presses(_ByName):
    @operation(
        "buttons_press",
        "Press a button as a person",
        answers={200: ApprovalItem},
        refused=(404,),
        request=PressRequest,
        is_post=True,
        description="Under a message of a web chat, a webhook or a bridge. Answers the approval that it decides;"
        " a 403 says that somebody else has to, a 409 that it is decided.",
    )
    def post(self, request: Request, platform: str, code: str) -> HttpResponseBase:
        fields = self.asked(body=PressRequest).body
        if platform == SLACK:
            raise NotFound("what is pressed in Slack is heard from Slack alone", code="channel_not_found")

        def effect() -> tuple[int, Mapping[str, Any]]:
            decided = presses.press(
                self.org_id,
                platform=platform,
                code=code,
                value=fields["value"],
                by=fields["author"],
                actor=self.actor,
            )
            return 200, approvals.item(self.org_id, decided)

        return self.once(effect)
