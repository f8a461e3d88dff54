"""Live events of a job: `/services/agent-jobs/{id}/events`, as Server-Sent Events."""

from typing import Any

from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import parsing, sse, streams
from agent_jobs.api.base import Resource, read_job_id
from agent_jobs.api.docs import operation
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import changed_jobs, queries
from agent_jobs.states import TERMINAL

QUERY = {"last_event_id": parsing.Param(str, "For clients that cannot send the header Last-Event-ID; the header wins.")}
_LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID",
    {"type": "string"},
    OpenApiParameter.HEADER,
    description="The `id` of the last event that the client has; the stream goes on after it. Browsers send it.",
)


class JobEvent(serializers.Serializer[Any]):
    """The lines of one event."""

    id = serializers.CharField(required=False, help_text="The activity's number in the job, for `Last-Event-ID`.")
    event = serializers.ChoiceField(["activity", "end", "closed"])
    data = serializers.CharField(help_text="JSON, in one line.")  # type: ignore[assignment]


class _LiveEvents(Resource):
    def last_event_id(self) -> tuple[str, int | None]:
        """The id of the last event that the client has, after the name of the header or parameter that states it."""
        name, stated = "Last-Event-ID", self.request.META.get("HTTP_LAST_EVENT_ID", "")
        parameter = self.asked(query=QUERY).query["last_event_id"]
        if parameter and not stated:
            name, stated = "last_event_id", parameter
        try:
            return name, sse.read_id(stated) if stated else None
        except ValueError as error:
            raise Invalid(FieldError(name, "invalid", str(error))) from None


class JobEvents(_LiveEvents):
    @operation(
        "job_events",
        "Follow a job",
        answers={
            (200, "text/event-stream"): OpenApiResponse(JobEvent, description="A stream of events."),
            204: OpenApiResponse(None, description="The client has every activity, and the job has ended."),
        },
        query=QUERY,
        headers=(_LAST_EVENT_ID,),
        description=(
            "Server-Sent Events. Sends one `activity` for each activity of the job, as `/services/activities` shows it:"
            " first those after `Last-Event-ID` (default: all), then new ones as they are committed. Its `id` is its"
            " number within the job: 1, 2, 3 ... The last event is `end`, with the final status of the job; it has no"
            " `id`. A client that asks again after it gets a 204, which means the same. `closed` says why the server"
            " breaks off a stream, for example because its token was revoked. A stream can also end without either,"
            " because the server stops or its time is over; the next request continues it. After 15 s without an"
            " event the server sends a comment."
        ),
    )
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        name, told = self.last_event_id()
        wanted = read_job_id(job_id)
        queries.job(self.org_id, wanted)
        if request.method == "HEAD":
            return HttpResponse(content_type="text/event-stream")
        if told and (progress := queries.progress_of([(self.org_id, wanted)]).get((self.org_id, wanted))):
            if told > progress.activities:
                raise Invalid(FieldError(name, "invalid", f"the job has only {progress.activities} activities"))
            if told == progress.activities and progress.status in TERMINAL:
                return Response(status=204)
        return streams.OpenResponse(streams.EventStream(**self.owner, job_id=wanted, told=told or 0))


class ChangesEvent(serializers.Serializer[Any]):
    """The lines of one event."""

    id = serializers.CharField(help_text="For `Last-Event-ID`.")
    event = serializers.ChoiceField(["changes", "closed"])
    data = serializers.CharField(help_text='JSON, in one line: `{"job_ids": ["…"]}`.')  # type: ignore[assignment]


class OrgJobChanges(_LiveEvents):
    @operation(
        "job_changes",
        "Follow all jobs",
        answers={(200, "text/event-stream"): OpenApiResponse(ChangesEvent, description="A stream of events.")},
        query=QUERY,
        headers=(_LAST_EVENT_ID,),
        description=(
            "Server-Sent Events. Sends the ids of the organization's jobs as they change: those that were created, and"
            " those whose `updated_at` moved. Begins after `Last-Event-ID`, at most an hour ago,"
            f" with up to {changed_jobs.MOST:,} ids at a time; without it, from now on. A job may be named twice."
        ),
    )
    def get(self, request: Request) -> HttpResponseBase:
        _, since = self.last_event_id()
        if request.method == "HEAD":
            return HttpResponse(content_type="text/event-stream")
        changes = changed_jobs.ChangesReader(self.org_id, since)
        return streams.OpenResponse(streams.OrgChanges(**self.owner, changes=changes))
