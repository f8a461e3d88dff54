"""Retries and replays of jobs: `POST /services/agent-jobs/{id}/retry` and `/replay`."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers
from rest_framework.request import Request

from agent_jobs.api import job_json, jobs
from agent_jobs.api.base import Resource, read_job_id
from agent_jobs.api.docs import item_of, operation
from agent_jobs.api.fields import Metadata, Moment, Object, Priority, StrictSerializer, Tags, Text, Whole
from agent_jobs.api.job_docs import JobInDetail, JobItem
from agent_jobs.errors import FieldError
from agent_jobs.jobs import repeats
from agent_jobs.specs import CONFIG_RULES


class RetryRequest(StrictSerializer):
    reason = Text(max_length=1_000, required=False, allow_blank=True)


class ReplayRequest(StrictSerializer):
    target_channel = jobs.TargetChannel(required=False)
    config = Object(required=False, help_text="Merged into the old config by key; null: the job type's default.")
    params = Object(required=False, help_text="Merged into the old params by key; null removes the key.")
    from_step = Whole(
        required=False,
        min_value=1,
        max_value=10_000,
        help_text="The replay reuses recorded model and tool calls below this number instead of making them again.",
    )
    scheduled_at = Moment(required=False, help_text="Default: now, even if the old job was scheduled.")
    tags = Tags(required=False)
    priority = Priority(required=False)
    metadata = Metadata(required=False, help_text="Replaces the old metadata.")


class _RetriedMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    job_id = serializers.CharField()


_CHANGED = OpenApiExample(
    "With another channel and one changed parameter",
    {
        "target_channel": {"org_id": "org123", "platform": "slack", "type": "channel", "code": "C654321"},
        "params": {"report_type": "weekly"},
    },
    request_only=True,
)


class Retry(Resource):
    @operation(
        "jobs_retry",
        "Retry a job",
        answers={200: item_of("RetriedJob", JobInDetail, _RetriedMeta, has_message=True)},
        request=RetryRequest,
        description="Reopens a FAILED or CANCELED job: the same job is WAITING again, with `retry_count` one higher,"
        " a fresh deadline, and the transcript that people know. Messages that it had not sent yet are dropped."
        " Earlier model usage still counts against its own caps (`max_tokens`, `max_cost`)."
        " 409 for a job in any other status. The body is optional.",
    )
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        asked = self.asked(body=RetryRequest)
        found = read_job_id(job_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            job = repeats.retry(self.org_id, found, actor=self.actor, reason=asked.body.get("reason", ""))
            return 200, job_json.moved(self.org_id, job.pk, "reopened")

        return self.once(effect)


class Replay(Resource):
    @operation(
        "jobs_replay",
        "Replay a job",
        answers={201: JobItem},
        request=ReplayRequest,
        query=jobs.CREATE_QUERY,
        examples=[_CHANGED],
        description="Creates a new job from the input of this one, in any status, by the rules of a new job. The"
        " optional body states the differences. The new job names this one in `replay_of`.",
    )
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        asked = self.asked(query=jobs.CREATE_QUERY, body=ReplayRequest, check=_problems)
        fields, channel = asked.body, asked.body.get("target_channel")
        if channel:
            self.require_org(channel["org_id"])
        changes = repeats.Changes(
            params=fields.get("params", {}),
            config=fields.get("config", {}),
            channel=jobs.channel_spec(channel) if channel else None,
            scheduled_at=fields.get("scheduled_at"),
            delay_minutes=asked.query["delay"],
            tags=tuple(fields["tags"]) if "tags" in fields else None,
            priority=fields.get("priority"),
            metadata=fields.get("metadata"),
            from_step=fields.get("from_step", 1),
        )
        found = read_job_id(job_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            job = repeats.replay(self.org_id, found, changes, actor=self.actor, token_pk=self.token.pk)
            return 201, job_json.created(job)

        return self.once(effect)


def _problems(fields: Mapping[str, Any]) -> list[FieldError]:
    """Validates as for a new job, but allows null for a known key of the config: it removes the key."""
    config = fields.get("config", {})
    stated = {key: value for key, value in config.items() if value is not None or key not in CONFIG_RULES}
    return jobs.problems({**fields, "config": stated})
