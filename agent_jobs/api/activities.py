"""Activities: `/services/activities`, and the JSON form of an activity, which other endpoints use too."""

from typing import Any

from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import PageMeta, operation
from agent_jobs.api.filters import ActivityFilters
from agent_jobs.api.formatting import filled, number, stamp, stamp_or_none
from agent_jobs.reads import pages, queries
from agent_jobs.states import ActivityStatus, SourceType

SORTING = paging.Sorting(
    "activities",
    {"created_at": "created_at", "updated_at": "updated_at", "activity_type_code": "code", "status": "status"},
    default="created_at:desc",
)
QUERY = SORTING.params()


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


ActivityPage = inline_serializer("ActivityPage", {"data": ActivitySerializer(many=True), "meta": PageMeta()})


def chat_id(platform: str | None, channel_code: str | None, thread: str | None) -> str | None:
    """The public id of a conversation; None until its thread is known."""
    return f"{platform}:{channel_code}:{thread}" if thread else None


def answer(row: queries.Row) -> dict[str, Any]:
    return filled(
        {
            "id": str(row["id"]),
            "org_id": row["org_id"],
            "activity_type_code": row["code"],
            "status": row["status"],
            "note": row["note"],
            "actor": row["actor"],
            "allocated_credits": number(row["allocated_credits"]),
            "consumed_credits": number(row["consumed_credits"]),
            "credits_rule_id": row["credits_rule_id"],
            "payloads": filled({"input": row["input"], "output": row["output"]}),
            "processed_at": stamp_or_none(row["processed_at"]),
            "created_at": stamp(row["created_at"]),
            "updated_at": stamp(row["updated_at"]),
            "source": filled(
                {
                    "type": row["source_type"],
                    "job_id": str(row["job_id"]) if row["job_id"] else None,
                    "execution_id": str(row["execution_id"]) if row["execution_id"] else None,
                    "chat_id": chat_id(row["job__platform"], row["job__channel_code"], row["job__thread"]),
                    "agent_job_type_id": row["job__job_type_key"],
                    "channel_code": row["job__channel_code"],
                }
            ),
        }
    )


class Activities(Resource):
    @operation(
        "activities_list",
        "List activities",
        answers={200: ActivityPage},
        query=QUERY,
        filtered=ActivityFilters,
        description="Each move, model call, tool call and message leaves one activity.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(query=QUERY, rows=queries.activities(self.org_id), filtered=ActivityFilters)
        page = self.listed(asked, SORTING)
        rows, has_more = pages.page(asked.rows, page.window, queries.ACTIVITY_COLUMNS)
        meta = page.meta(rows, total=asked.rows.count(), has_more=has_more)
        return Response({"data": [answer(row) for row in rows], "meta": {"org_id": self.org_id, **meta}})
