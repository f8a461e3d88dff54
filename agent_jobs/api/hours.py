"""Hours: when agents may speak to an organisation, in a channel or to one person: `organizations/{org}/hours`.

The most specific statement applies and replaces the others entirely. `hours.deferral` applies it to jobs.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import OpenApiExample, PageMeta, operation
from agent_jobs.api.fields import Object, StrictSerializer
from agent_jobs.api.formatting import shown
from agent_jobs.errors import FieldError
from agent_jobs.hours import calendar, stated_hours
from agent_jobs.hours.stated_hours import Place, Statement
from agent_jobs.reads import queries

SORTING = paging.Sorting(
    "hours", {"platform": "platform", "name": "name", "updated_at": "updated_at"}, default="platform:asc,name:asc"
)
QUERY = SORTING.params()
_SPANS = {"type": "array", "items": {"type": "string", "example": "09:00-17:30"}, "maxItems": 12}
_EXAMPLES = [
    OpenApiExample(
        "Quiet nights", {"hours": {"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"]}}, request_only=True
    ),
    OpenApiExample(
        "Business hours",
        {
            "hours": {
                "time_zone": "America/New_York",
                "open": {"mon": ["09:00-12:00", "13:00-17:30"], "tue": ["09:00-17:30"]},
                "holidays": ["2026-12-25"],
            }
        },
        request_only=True,
    ),
    OpenApiExample("Always open", {"hours": {"time_zone": "UTC", "quiet": []}}, request_only=True),
]


# --- Requests and responses ------------------------------------------------------------------------------------
@extend_schema_field(
    {
        "type": "object",
        "description": "Either `open` (the hours of each day; a day that is not named is closed) or `quiet` (the same"
        " on every day; it may run over midnight). `holidays` are closed all day.",
        "required": ["time_zone"],
        "properties": {
            "time_zone": {"type": "string", "example": "Europe/Berlin"},
            "open": {"type": "object", "properties": dict.fromkeys(calendar.DAYS, _SPANS)},
            "quiet": _SPANS,
            "holidays": {
                "type": "array",
                "items": {"type": "string", "format": "date"},
                "maxItems": calendar.MAX_HOLIDAYS,
            },
        },
    }
)
class StatedHours(Object):
    """Hours as a client states them. Null for an optional key is the same as its absence."""

    def to_internal_value(self, data: Any) -> Any:
        stated = super().to_internal_value(data)
        return {key: value for key, value in stated.items() if value is not None or key not in calendar.OPTIONAL_FIELDS}


class HoursRequest(StrictSerializer):
    hours = StatedHours()


class HoursSerializer(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    kind = serializers.ChoiceField(["organization", "channel", "person"])
    platform = serializers.CharField(required=False, help_text="For a channel or a person.")
    name = serializers.CharField(required=False, help_text="The channel's code, or the person's id on the platform.")
    hours = StatedHours()
    is_open = serializers.BooleanField(help_text="Whether it is open now.")
    opens_at = serializers.DateTimeField(required=False, help_text="If it is closed now.")


class HoursMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()


HoursItem = inline_serializer("HoursItem", {"data": HoursSerializer(), "meta": HoursMeta()})
HoursPage = inline_serializer("HoursPage", {"data": HoursSerializer(many=True), "meta": PageMeta()})
RemovedHours = inline_serializer("RemovedHours", {"meta": HoursMeta(), "message": serializers.CharField()})


# --- Views -----------------------------------------------------------------------------------------------------
class _Hours(Resource):
    kind: ClassVar[str] = ""

    def item(self, statement: Statement) -> Response:
        return Response({"data": self.shown(statement), "meta": {"org_id": self.org_id}})

    def shown(self, statement: Statement) -> dict[str, Any]:
        opens_at: datetime = statement.hours.next_open(statement.now)
        is_open = opens_at <= statement.now
        place = statement.place
        return shown(
            HoursSerializer,
            {"platform": place.platform, "name": place.name},
            org_id=self.org_id,
            kind=place.kind or "organization",
            hours=statement.stated,
            is_open=is_open,
            opens_at=None if is_open else opens_at,
        )

    def retrieve(self, org_id: str, platform: str = "", name: str = "") -> Response:
        self.asked()
        self.require_org(org_id)
        return self.item(stated_hours.get(self.org_id, Place(self.kind, platform, name)))

    def state(self, org_id: str, platform: str = "", name: str = "") -> Response:
        stated = self.asked(body=HoursRequest, check=_problems).body["hours"]
        self.require_org(org_id)
        place = Place(self.kind, platform, name)
        return self.item(stated_hours.put(self.org_id, place, stated, actor=self.actor))

    def remove(self, org_id: str, platform: str = "", name: str = "") -> Response:
        self.asked()
        self.require_org(org_id)
        place = Place(self.kind, platform, name)
        stated_hours.remove(self.org_id, place, actor=self.actor)
        return Response({"meta": {"org_id": self.org_id}, "message": f"The hours of '{place}' are removed"})

    def page(self, org_id: str) -> Response:
        asked = self.asked(query=QUERY, sorting=SORTING)
        self.require_org(org_id)

        def stated(rows: list[queries.Row]) -> list[dict[str, Any]]:
            return [self.shown(statement) for statement in stated_hours.statements(rows)]

        return self.listed(asked, queries.hours_of_places(self.org_id, self.kind), queries.HOURS_COLUMNS, stated)


def _problems(fields: Mapping[str, Any]) -> list[FieldError]:
    return calendar.parse(fields["hours"], at="hours")[1]


class OrgHours(_Hours):
    @operation("hours_retrieve", "Get the organization's hours", answers={200: HoursItem}, refused=(404,))
    def get(self, request: Request, org_id: str) -> Response:
        return self.retrieve(org_id)

    @operation(
        "hours_state",
        "State the organization's hours",
        answers={200: HoursItem},
        refused=(404,),
        request=HoursRequest,
        examples=_EXAMPLES,
        description="Turns and messages that come up while it is closed wait until it opens. Those that wait already"
        " are checked again at once. Other processes notice an organization's first hours within 2 seconds.",
    )
    def put(self, request: Request, org_id: str) -> Response:
        return self.state(org_id)

    @operation("hours_remove", "Remove the organization's hours", answers={200: RemovedHours}, refused=(404,))
    def delete(self, request: Request, org_id: str) -> Response:
        return self.remove(org_id)


class _Channel(_Hours):
    kind = "channel"


class ChannelsHours(_Channel):
    @operation(
        "hours_of_channels_list",
        "List the channels that have hours",
        answers={200: HoursPage},
        refused=(404,),
        query=QUERY,
    )
    def get(self, request: Request, org_id: str) -> Response:
        return self.page(org_id)


class ChannelHours(_Channel):
    @operation("hours_of_channel_retrieve", "Get a channel's hours", answers={200: HoursItem}, refused=(404,))
    def get(self, request: Request, org_id: str, platform: str, code: str) -> Response:
        return self.retrieve(org_id, platform, code)

    @operation(
        "hours_of_channel_state",
        "State a channel's hours",
        answers={200: HoursItem},
        refused=(404,),
        request=HoursRequest,
        examples=_EXAMPLES,
        description="They apply in this channel instead of the organization's. It need not be registered.",
    )
    def put(self, request: Request, org_id: str, platform: str, code: str) -> Response:
        return self.state(org_id, platform, code)

    @operation("hours_of_channel_remove", "Remove a channel's hours", answers={200: RemovedHours}, refused=(404,))
    def delete(self, request: Request, org_id: str, platform: str, code: str) -> Response:
        return self.remove(org_id, platform, code)


class _Person(_Hours):
    kind = "person"


class PeopleHours(_Person):
    @operation(
        "hours_of_people_list", "List the people who have hours", answers={200: HoursPage}, refused=(404,), query=QUERY
    )
    def get(self, request: Request, org_id: str) -> Response:
        return self.page(org_id)


class PersonHours(_Person):
    @operation("hours_of_person_retrieve", "Get a person's hours", answers={200: HoursItem}, refused=(404,))
    def get(self, request: Request, org_id: str, platform: str, person: str) -> Response:
        return self.retrieve(org_id, platform, person)

    @operation(
        "hours_of_person_state",
        "State a person's hours",
        answers={200: HoursItem},
        refused=(404,),
        request=HoursRequest,
        examples=_EXAMPLES,
        description="They apply instead of the channel's and the organization's in jobs in which this person spoke last"
        " (the `author` of their messages; a user's id in Slack), or whose channel's code is the person's name.",
    )
    def put(self, request: Request, org_id: str, platform: str, person: str) -> Response:
        return self.state(org_id, platform, person)

    @operation("hours_of_person_remove", "Remove a person's hours", answers={200: RemovedHours}, refused=(404,))
    def delete(self, request: Request, org_id: str, platform: str, person: str) -> Response:
        return self.remove(org_id, platform, person)
