"""Activities: `/services/activities`, and the JSON form of an activity, which other endpoints use too."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each
from agent_jobs.api.docs import operation, page_of
from agent_jobs.api.filters import ActivityFilters
from agent_jobs.api.formatting import shown
from agent_jobs.reads import queries
from agent_jobs.states import ActivityStatus, SourceType

SORTING = paging.Sorting(
    "activities",
    {"created_at": "created_at", "updated_at": "updated_at", "activity_type_code": "code", "status": "status"},
    default="created_at:desc",
)


class ActivityPayloads(serializers.Serializer[Any]):
    input = serializers.JSONField(required=False)
    output = serializers.JSONField(required=False)


class ActivitySource(serializers.Serializer[Any]):
    type = serializers.ChoiceField(list(SourceType))
    job_id = serializers.CharField(required=False)
    execution_id = serializers.CharField(required=False)
    chat_id = serializers.CharField(required=False)
    agent_job_type_id = serializers.CharField(required=False)
    channel_code = serializers.CharField(required=False)


class ActivitySerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    activity_type_code = serializers.CharField()
    status = serializers.ChoiceField(list(ActivityStatus))
    note = serializers.CharField(required=False)
    actor = serializers.CharField(required=False)
    allocated_credits = serializers.FloatField()
    consumed_credits = serializers.FloatField()
    credits_rule_id = serializers.IntegerField(min_value=0, max_value=3)
    payloads = ActivityPayloads()
    processed_at = serializers.DateTimeField(required=False)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    source = ActivitySource()  # type: ignore[assignment]


def chat_id(platform: str | None, channel_code: str | None, thread: str | None) -> str | None:
    """The public id of a conversation; None until its thread is known."""
    return f"{platform}:{channel_code}:{thread}" if thread else None


def answer(row: queries.Row) -> dict[str, Any]:
    source = shown(
        ActivitySource,
        row,
        type=row["source_type"],
        chat_id=chat_id(row["job__platform"], row["job__channel_code"], row["job__thread"]),
        agent_job_type_id=row["job__job_type_key"],
        channel_code=row["job__channel_code"],
    )
    payloads = shown(ActivityPayloads, row)
    return shown(ActivitySerializer, row, activity_type_code=row["code"], payloads=payloads, source=source)


class Activities(Resource):
    @operation(
        "activities_list",
        "List activities",
        answers={200: page_of("ActivityPage", ActivitySerializer)},
        sorting=SORTING,
        filtered=ActivityFilters,
        description="Each move, model call, tool call and message leaves one activity.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=SORTING, rows=queries.activities(self.org_id), filtered=ActivityFilters)
        return self.listed(asked, asked.rows, queries.ACTIVITY_COLUMNS, each(answer))
