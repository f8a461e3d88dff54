"""The shapes of jobs in responses, for the OpenAPI document, and the examples from the API's document."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_field
from rest_framework import serializers

from agent_jobs.api.activities import ActivitySerializer
from agent_jobs.api.approvals import ApprovalSerializer
from agent_jobs.api.docs import ItemMeta, PageMeta, item_of, page_of
from agent_jobs.api.fields import Metadata, Object
from agent_jobs.states import TIME_KINDS, JobStatus, TaskStatus

_SCHEDULED_REQUEST = {
    "target_channel": {
        "org_id": "org123",
        "platform": "slack",
        "type": "channel",
        "code": "C123456",
        "data": {"channel_id": "C123456", "team_id": "T123456"},
    },
    "job_type_id": "daily-report",
    "config": {
        "max_follow_ups": 3,
        "max_task_retries": 2,
        "task_retry_interval": 5,
        "max_time_to_complete": 60,
        "profile_id": "profile123",
    },
    "params": {"report_type": "daily", "include_metrics": True},
    "scheduled_at": "2027-01-31T09:00:00Z",
}
_IMMEDIATE_REQUEST = {key: value for key, value in _SCHEDULED_REQUEST.items() if key != "scheduled_at"}
CREATE_EXAMPLES = [
    OpenApiExample("For immediate execution", _IMMEDIATE_REQUEST, request_only=True),
    OpenApiExample("Scheduled", _SCHEDULED_REQUEST, request_only=True),
]


class JobTask(serializers.Serializer[Any]):
    task_id = serializers.CharField()
    created_at = serializers.DateTimeField()
    status = serializers.ChoiceField(list(TaskStatus))
    result = serializers.CharField(allow_null=True)
    executor_id = serializers.CharField(required=False, help_text="Of an attempt by an executor.")
    executor_address = serializers.CharField(required=False)


class JobFlags(serializers.Serializer[Any]):
    is_new_channel = serializers.BooleanField()
    has_human_reply = serializers.BooleanField()
    first_reply_at = serializers.DateTimeField(allow_null=True)
    ignore_cooldown = serializers.BooleanField()


class JobSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The same as job_id.")
    job_id = serializers.CharField()
    org_id = serializers.CharField()
    platform = serializers.CharField()
    channel_code = serializers.CharField()
    channel_type = serializers.CharField(required=False)
    channel_data = serializers.DictField(
        help_text="The `data` as posted, then `platform`, `channel_id`, `name` and `thread_id` where known."
    )
    chat_id = serializers.CharField(required=False, help_text="Once the job's thread is known.")
    job_type_id = serializers.CharField()
    job_status = serializers.ChoiceField(list(JobStatus))
    priority = serializers.IntegerField(min_value=0, max_value=9)
    priority_name = serializers.ChoiceField(["urgent", "high", "normal", "low"])
    metadata = Metadata(help_text="The client's own labels.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    scheduled_at = serializers.DateTimeField(help_text="The effective time, the drawn delay included.")
    started_at = serializers.DateTimeField(required=False)
    finished_at = serializers.DateTimeField(required=False)
    deadline_at = serializers.DateTimeField(required=False)
    waiting_for = serializers.CharField(required=False)
    wake_at = serializers.DateTimeField(required=False)
    last_task_created_at = serializers.DateTimeField(allow_null=True)
    tasks = JobTask(many=True)
    result = serializers.CharField(allow_null=True)
    result_data = serializers.JSONField(required=False)
    error_code = serializers.CharField(required=False)
    error_message = serializers.CharField(required=False)
    params = serializers.DictField()
    config = serializers.DictField(help_text="The job type's defaults overlaid with the job's own.")
    job_config = serializers.DictField(help_text="The same as config.")
    tags = serializers.CharField(help_text="Separated by commas.")
    flags = JobFlags()
    execution_log = serializers.ListField(
        child=serializers.CharField(), help_text="The notes of the last 100 activities that have one, oldest first."
    )
    activities_count = serializers.IntegerField()
    time_spent = serializers.DictField(
        child=serializers.FloatField(),
        help_text="Seconds by kind of time, the present kind until `state_since` only: " + ", ".join(TIME_KINDS) + ".",
    )
    state_since = serializers.DateTimeField(help_text="When the present kind of time began; the end of an ended job.")
    outcome_channel = serializers.DictField(required=False, help_text="The channel that is told the outcome.")
    work = serializers.DictField(
        required=False, help_text="What the job does, where its runner has no agent. Secrets are shown as `******`."
    )
    schedule_id = serializers.CharField(required=False, help_text="The schedule that made the job.")
    fire_at = serializers.DateTimeField(required=False, help_text="The time of the firing that made the job.")
    executor_id = serializers.CharField(required=False, help_text="The executor that claimed it last.")
    progress_percent = serializers.IntegerField(required=False, help_text="As its executor reported it.")
    progress_message = serializers.CharField(required=False)
    progress_at = serializers.DateTimeField(required=False)
    unique_key = serializers.CharField(required=False, help_text="The client's key, if it sent one.")
    unique_scope = serializers.ChoiceField(["type", "org"], required=False)
    expires_at = serializers.DateTimeField(
        required=False, help_text="With `queue_ttl_minutes`: a job that was not begun by then fails as `expired`."
    )
    replay_of = serializers.CharField(required=False, help_text="The job that this one replays.")
    retry_count = serializers.IntegerField(required=False, help_text="How many times it was retried, if ever.")
    Activities = ActivitySerializer(many=True, required=False)


class HolderSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["job", "message"])
    id = serializers.CharField()
    state = serializers.CharField(help_text="The job's status, or the message's status in the outbox.")
    next_try_at = serializers.DateTimeField(required=False, help_text="For a message.")
    error_code = serializers.CharField(required=False, help_text="For a message: why its last try failed.")


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string"}], "nullable": True})
class PlaceInQueue(serializers.Field):  # type: ignore[type-arg]
    pass


class LeftOutToolSerializer(serializers.Serializer[Any]):
    server = serializers.CharField()
    tool = serializers.CharField(allow_blank=True, help_text="Empty: the whole server.")
    reason = serializers.CharField()


class ExplanationSerializer(serializers.Serializer[Any]):
    state = serializers.CharField(help_text="Why it is not running, or what it waits for: one sentence for people.")
    rule = serializers.CharField(
        help_text="scheduled, cooldown, no_workers, unknown_runner, unknown_wait, org_cap, job_type_cap, channel_cap,"
        " queue, executor, running, lease_lapsed, waiting_for_reply, retry, delivery, approval, quiet_hours or ended;"
        " later releases may add more."
    )
    blocked_by = HolderSerializer(
        many=True, help_text="At most 20: the jobs that use up a cap, or the messages that are not delivered."
    )
    place_in_queue = PlaceInQueue(
        help_text='Among the organization\'s ready jobs in the same queue: 1 is next; "10000+" if it is further back.'
    )
    estimated_start = serializers.DateTimeField(
        allow_null=True,
        help_text="When it is due. For a job in the queue, estimated from its place and the starts per minute since"
        " the queue was last empty (5 minutes at most). null: unknown.",
    )
    unblocks = serializers.ListField(child=serializers.CharField(), help_text="Events that would each let it go on.")
    left_out_tools = LeftOutToolSerializer(
        many=True, help_text="Tools of MCP servers that its agent was not offered in this life, at most 50."
    )


class JobInDetail(JobSerializer):
    explanation = ExplanationSerializer(required=False, help_text="With include=explanation.")
    delay_minutes = serializers.IntegerField()
    delay_seconds = serializers.IntegerField(help_text="The random delay that was drawn.")
    requested_scheduled_at = serializers.DateTimeField(required=False)
    approvals = ApprovalSerializer(many=True, required=False, help_text="Pending approvals that it waits for.")
    budget_granted = Object(
        required=False, help_text="Amounts that people added to its own caps, if any: `max_tokens`, `max_cost`."
    )


class ActivitiesMeta(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="How many activities the job has in all.")
    limit = serializers.IntegerField()


class JobMeta(ItemMeta):
    is_existing = serializers.BooleanField(required=False, help_text="With a 200: the job was there before.")
    activities_meta = ActivitiesMeta(required=False)


JobItem = item_of("JobItem", JobInDetail, JobMeta)


class StatusCounts(serializers.Serializer[Any]):
    waiting = serializers.IntegerField()
    scheduled = serializers.IntegerField()
    running = serializers.IntegerField()
    completed = serializers.IntegerField()
    failed = serializers.IntegerField()
    canceled = serializers.IntegerField()


class JobStats(serializers.Serializer[Any]):
    status = StatusCounts()
    waiting_for = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="RUNNING jobs by what they wait for; `worker`: at work, `queue`: ready for their next turn.",
    )


class JobPageMeta(PageMeta):
    stats = JobStats(required=False)
    activities_total_returned = serializers.IntegerField(required=False)
    activities_total_available = serializers.IntegerField(required=False)
    activities_truncated = serializers.BooleanField(required=False)


JobPage = page_of("JobPage", JobSerializer, JobPageMeta)


class CanceledMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    job_id = serializers.CharField()


CanceledJob = item_of("CanceledJob", JobInDetail, CanceledMeta, has_message=True)
