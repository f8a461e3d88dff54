"""Messages and button presses in a channel: clients read them, and write on behalf of a person.

`job_messages` shows the transcript of one job, in whichever channel it speaks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import approvals, parsing, streams
from agent_jobs.api.approvals import ApprovalItem
from agent_jobs.api.base import HAS_WAITED, read_job_id
from agent_jobs.api.channels import ByName, OrgMeta
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.fields import Author, Object, StrictSerializer, Text
from agent_jobs.api.formatting import filled, stamp
from agent_jobs.approvals import button_presses
from agent_jobs.approvers import Person
from agent_jobs.errors import NotFound
from agent_jobs.reads import queries
from agent_jobs.tenants import channel_admin
from channels_integration import directory, transcript, web_messages
from channels_integration.messages import Target

SLACK = "slack"
MAX_WAIT_SECONDS = 30
MESSAGES_QUERY = {
    "after": parsing.id_param("message", "The id of the last message seen: only later ones are shown."),
    "limit": parsing.whole(1, 100, default=50, about="How many to return at most, oldest first."),
    "wait": parsing.whole(
        0, MAX_WAIT_SECONDS, default=0, about="Seconds to wait for a message where there is none yet."
    ),
}


# --- Requests and responses ------------------------------------------------------------------------------------
class MessageRequest(StrictSerializer):
    text = Text(max_length=40_000)
    author = Author()
    job_id = Text(max_length=64, required=False, help_text="The job to answer; default: the newest that waits.")


class PressRequest(StrictSerializer):
    value = Text(max_length=2_000, help_text="The button's value, as its message shows it.")
    author = Author(help_text="The person who presses it.")
    arguments = Object(
        required=False,
        help_text="Replace the button's `arguments`, and must match its `arguments_schema`. Only for a button that has"
        " arguments.",
    )


class ButtonSerializer(serializers.Serializer[Any]):
    label = serializers.CharField()  # type: ignore[assignment]
    value = serializers.CharField(help_text="Send this to press it.")
    arguments = Object(required=False, help_text="The arguments that it approves. A press may send others.")
    arguments_schema = Object(required=False, help_text="The JSON schema for arguments sent instead.")


class MessageSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    channel_code = serializers.CharField()
    direction = serializers.ChoiceField(["in", "out"])
    author = serializers.CharField()
    text = serializers.CharField()
    job_id = serializers.CharField(required=False)
    buttons = ButtonSerializer(many=True, required=False, help_text="Only while they can be pressed.")
    created_at = serializers.DateTimeField()


class MessagesMeta(OrgMeta):
    count = serializers.IntegerField()
    limit = serializers.IntegerField()


def _answers(org_id: str, messages: Sequence[Any], code: str) -> list[dict[str, Any]]:
    values = [value for message in messages for _, value in message.buttons]
    editable = button_presses.editable(org_id, values)
    return [_message(message, code, editable) for message in messages]


def _message(message: Any, code: str, editable: Mapping[str, button_presses.Editable]) -> dict[str, Any]:
    buttons = [_button(label, value, editable.get(value)) for label, value in message.buttons]
    return {
        "id": str(message.id),
        "channel_code": code,
        "direction": message.direction,
        "author": message.author,
        "text": message.text,
        **filled({"job_id": message.owner_key}),
        **({"buttons": buttons} if buttons else {}),
        "created_at": stamp(message.created_at),
    }


def _button(label: str, value: str, editable: button_presses.Editable | None) -> dict[str, Any]:
    shown = {"label": label, "value": value}
    if editable is None:
        return shown
    return {**shown, "arguments": editable.arguments, "arguments_schema": editable.schema}


# --- Views -----------------------------------------------------------------------------------------------------
class Messages(ByName):
    @operation(
        "messages_list",
        "Read a channel's messages",
        answers={200: page_of("MessageList", MessageSerializer, MessagesMeta)},
        query=MESSAGES_QUERY,
        description="Oldest first. With `wait`, the request waits for a message if there is none.",
    )
    def get(self, request: Request, platform: str, code: str) -> HttpResponseBase:
        query = self.asked(query=MESSAGES_QUERY).query
        self.require_possible(platform, code)
        found = web_messages.read(self.org_id, platform, code, after=query["after"], limit=query["limit"])
        if not found and query["wait"] and request.method == "GET" and HAS_WAITED not in request.META:
            place = web_messages.Reader(self.org_id, platform, code, query["after"])
            opened = streams.MessagesWait(**self.owner, place_in_channel=place, seconds=query["wait"])
            return streams.OpenResponse(opened)
        meta = {"org_id": self.org_id, "count": len(found), "limit": query["limit"]}
        return Response({"data": _answers(self.org_id, found, code), "meta": meta})

    @operation(
        "messages_reply",
        "Say something as a person",
        answers={201: item_of("MessageItem", MessageSerializer, OrgMeta)},
        request=MessageRequest,
    )
    def post(self, request: Request, platform: str, code: str) -> HttpResponseBase:
        fields = self.asked(body=MessageRequest).body
        self.require_possible(platform, code)
        job_id = ""
        if stated := fields.get("job_id"):
            job_id = str(queries.own_job_id(self.org_id, read_job_id(stated)))

        def effect() -> tuple[int, Mapping[str, Any]]:
            said = channel_admin.say(
                self.org_id,
                platform,
                code,
                actor=self.actor,
                author=fields["author"],
                text=fields["text"],
                owner_key=job_id,
            )
            return 201, {"data": _message(said, code, {}), "meta": {"org_id": self.org_id}}

        return self.once(effect)

    def require_possible(self, platform: str, code: str) -> None:
        """A web chat needs no registration, but its code must be valid for a channel."""
        if platform == transcript.WEB and (reason := directory.unreachable_reason(Target(self.org_id, platform, code))):
            raise NotFound(f"there can be no channel of this name: its code {reason[1]}", code="channel_not_found")


class Presses(ByName):
    @operation(
        "buttons_press",
        "Press a button as a person",
        answers={200: ApprovalItem},
        request=PressRequest,
        description="For messages of a web chat, a webhook or a bridge. Answers with the approval that the press"
        " decides. 403 if the person is not an approver; 409 if it is decided already, or if its question does not show"
        " the whole action (`approval_by_api_only`). With `arguments` the tool is called with"
        " these instead of the button's.",
    )
    def post(self, request: Request, platform: str, code: str) -> HttpResponseBase:
        fields = self.asked(body=PressRequest).body
        if platform == SLACK:
            raise NotFound("only Slack itself can report a button press in Slack", code="channel_not_found")

        def effect() -> tuple[int, Mapping[str, Any]]:
            decided = button_presses.press(
                self.org_id,
                platform=platform,
                code=code,
                value=fields["value"],
                by=Person(platform, fields["author"]),
                actor=self.actor,
                arguments=fields.get("arguments"),
            )
            return 200, approvals.item(self.org_id, decided)

        return self.once(effect)
