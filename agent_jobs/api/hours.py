"""Hours: when agents may speak to an organisation, in a channel or to one person: `organizations/{org}/hours`.

The most specific statement applies and replaces the others entirely. `hours.deferral` applies it to jobs.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import item_of, operation, page_of, removal
from agent_jobs.api.fields import Object, StrictSerializer
from agent_jobs.api.formatting import shown
from agent_jobs.errors import FieldError
from agent_jobs.hours import calendar, stated_hours
from agent_jobs.hours.stated_hours import Place, Statement
from agent_jobs.reads import queries

SORTING = paging.Sorting(
    "hours", {"platform": "platform", "name": "name", "updated_at": "updated_at"}, default="platform:asc,name:asc"
)
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


HoursItem = item_of("HoursItem", HoursSerializer, HoursMeta)
RemovedHours = removal("RemovedHours", HoursMeta)
HoursPage = page_of("HoursPage", HoursSerializer)


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


class _PlaceHours(_Hours):
    """The hours of one place. `names`: its platform and name in the address; the organisation has none."""

    def get(self, request: Request, org_id: str, **names: str) -> Response:
        self.asked()
        self.require_org(org_id)
        return self.item(stated_hours.get(self.org_id, Place(self.kind, *names.values())))

    def put(self, request: Request, org_id: str, **names: str) -> Response:
        stated = self.asked(body=HoursRequest, check=_problems).body["hours"]
        self.require_org(org_id)
        place = Place(self.kind, *names.values())
        return self.item(stated_hours.put(self.org_id, place, stated, actor=self.actor))

    def delete(self, request: Request, org_id: str, **names: str) -> Response:
        self.asked()
        self.require_org(org_id)
        place = Place(self.kind, *names.values())
        stated_hours.remove(self.org_id, place, actor=self.actor)
        return Response({"meta": {"org_id": self.org_id}, "message": f"The hours of '{place}' are removed"})


class _HoursList(_Hours):
    def get(self, request: Request, org_id: str) -> Response:
        asked = self.asked(sorting=SORTING)
        self.require_org(org_id)

        def stated(rows: list[queries.Row]) -> list[dict[str, Any]]:
            return [self.shown(statement) for statement in stated_hours.statements(rows)]

        return self.listed(asked, queries.hours_of_places(self.org_id, self.kind), queries.HOURS_COLUMNS, stated)


def _problems(fields: Mapping[str, Any]) -> list[FieldError]:
    return calendar.parse(fields["hours"], at="hours")[1]


def _described(name: str, whose: str, about: str) -> Callable[[type[_Hours]], type[_Hours]]:
    """Describes the operations on the hours of one kind of place."""
    return extend_schema_view(
        get=operation(f"{name}_retrieve", f"Get {whose} hours", answers={200: HoursItem}),
        put=operation(
            f"{name}_state",
            f"State {whose} hours",
            answers={200: HoursItem},
            request=HoursRequest,
            examples=_EXAMPLES,
            description=about,
        ),
        delete=operation(f"{name}_remove", f"Remove {whose} hours", answers={200: RemovedHours}),
    )


@_described(
    "hours",
    "the organization's",
    "Turns and messages that come up while it is closed wait until it opens. Those that wait already are checked again"
    " at once. Other processes notice an organization's first hours within 2 seconds.",
)
class OrgHours(_PlaceHours):
    pass


@_described(
    "hours_of_channel",
    "a channel's",
    "They apply in this channel instead of the organization's. It need not be registered.",
)
class ChannelHours(_PlaceHours):
    kind = "channel"


@_described(
    "hours_of_person",
    "a person's",
    "They apply instead of the channel's and the organization's in jobs in which this person spoke last (the `author`"
    " of their messages; a user's id in Slack), or whose channel's code is the person's name.",
)
class PersonHours(_PlaceHours):
    kind = "person"


def _listing(name: str, summary: str) -> Callable[[type[_Hours]], type[_Hours]]:
    described = operation(name, summary, answers={200: HoursPage}, sorting=SORTING)
    return extend_schema_view(get=described)


@_listing("hours_of_channels_list", "List the channels that have hours")
class ChannelsHours(_HoursList):
    kind = "channel"


@_listing("hours_of_people_list", "List the people who have hours")
class PeopleHours(_HoursList):
    kind = "person"
