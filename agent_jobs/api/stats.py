"""Statistics of an organisation's jobs, `/services/stats`, and the service's workers, `/services/workers`."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import parsing
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.formatting import shown, stamp
from agent_jobs.api.job_docs import StatusCounts
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.lifecycle import queues
from agent_jobs.reads import job_statistics
from agent_jobs.specs import priority_name
from infra import database

DEFAULT_RANGE = timedelta(days=7)
QUERY = {
    "created_at_gte": parsing.time_param("Jobs created at this time or later; default: 7 days before the end."),
    "created_at_lte": parsing.until_param("Jobs created at this time or before; default: now."),
}


class TypeCount(serializers.Serializer[Any]):
    job_type_id = serializers.CharField()
    count = serializers.IntegerField()


class ChannelCount(serializers.Serializer[Any]):
    platform = serializers.CharField()
    channel_code = serializers.CharField()
    count = serializers.IntegerField()


class PriorityCount(serializers.Serializer[Any]):
    priority = serializers.IntegerField()
    priority_name = serializers.CharField()
    count = serializers.IntegerField()


class DayCount(serializers.Serializer[Any]):
    day = serializers.DateField(help_text="In UTC. Days without jobs are left out.")
    count = serializers.IntegerField()


class QueueCount(serializers.Serializer[Any]):
    queue = serializers.CharField()
    waiting = serializers.IntegerField()
    oldest_at = serializers.DateTimeField(help_text="Since when the job that waits longest is ready.")


class JobStatisticsItem(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    by_status = StatusCounts()
    by_type = TypeCount(many=True, help_text=f"The {job_statistics.MOST_LISTED} with the most jobs.")
    by_channel = ChannelCount(many=True, help_text=f"The {job_statistics.MOST_LISTED} with the most jobs.")
    by_priority = PriorityCount(many=True)
    by_day = DayCount(many=True)
    success_rate = serializers.FloatField(allow_null=True, help_text="COMPLETED of COMPLETED and FAILED.")
    p50_seconds = serializers.FloatField(allow_null=True, help_text="From the first start to the end; ended jobs.")
    p95_seconds = serializers.FloatField(allow_null=True)
    follow_ups = serializers.IntegerField()
    replies = serializers.IntegerField(help_text="Messages of people to jobs.")
    jobs_with_reply = serializers.IntegerField()
    cost = serializers.FloatField(help_text="Of the model calls on the days of the range.")
    queues = QueueCount(many=True, help_text="The queues as they are now, whatever the range.")


class _StatsMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    created_at_gte = serializers.DateTimeField()
    created_at_lte = serializers.DateTimeField()


class WorkerItem(serializers.Serializer[Any]):
    worker_id = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    runners = serializers.ListField(child=serializers.CharField())
    holds = serializers.IntegerField(help_text="The organization's jobs that it works on.")
    jobs_done = serializers.IntegerField(help_text="The organization's jobs that it has ended, counted every 5 s.")


class _WorkersMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    count = serializers.IntegerField()
    holds = serializers.IntegerField(help_text="The organization's jobs that workers work on.")


class Stats(Resource):
    @operation(
        "stats_retrieve",
        "Get statistics of jobs",
        answers={200: item_of("StatsAnswer", JobStatisticsItem, _StatsMeta)},
        query=QUERY,
        description="Counts, durations and cost of the organization's jobs by their time of creation. Deleted jobs do"
        " not count.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(query=QUERY).query
        until = asked["created_at_lte"] or database.now()
        since = asked["created_at_gte"] or until - DEFAULT_RANGE
        if since > until:
            raise Invalid(FieldError("created_at_gte", "invalid", "is after created_at_lte"))
        after = until + timedelta.resolution  # the parameter's bound is inclusive
        found = job_statistics.of(self.org_id, since=since, until=after, lanes=queues.LANES)
        meta = {"org_id": self.org_id, "created_at_gte": stamp(since), "created_at_lte": stamp(until)}
        return Response({"data": _answer(found), "meta": meta})


class Workers(Resource):
    @operation(
        "workers_list",
        "List worker processes",
        answers={200: page_of("WorkersAnswer", WorkerItem, _WorkersMeta)},
        description="The living worker processes of the service. Of other organizations' jobs nothing is shown.",
    )
    def get(self, request: Request) -> Response:
        self.asked()
        found = job_statistics.workers(self.org_id)
        data = [shown(WorkerItem, worker, worker_id=worker["id"], last_seen_at=worker["seen_at"]) for worker in found]
        meta = {"org_id": self.org_id, "count": len(data), "holds": sum(worker["holds"] for worker in found)}
        return Response({"data": data, "meta": meta})


def _answer(found: job_statistics.JobStatistics) -> Mapping[str, Any]:
    return shown(
        JobStatisticsItem,
        asdict(found),
        by_type=[{"job_type_id": key, "count": count} for key, count in found.by_type],
        by_channel=[
            {"platform": platform, "channel_code": code, "count": count} for platform, code, count in found.by_channel
        ],
        by_priority=[
            {"priority": priority, "priority_name": priority_name(priority), "count": count}
            for priority, count in found.by_priority.items()
        ],
        by_day=[{"day": day.isoformat(), "count": count} for day, count in found.by_day.items()],
        success_rate=found.success_rate,
        queues=[shown(QueueCount, asdict(queue)) for queue in found.queues],
    )
