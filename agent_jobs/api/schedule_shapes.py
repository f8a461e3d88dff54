"""The shapes of schedules in requests and responses, and how a stored schedule becomes JSON."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_field, inline_serializer
from rest_framework import serializers

from agent_jobs import recurrence
from agent_jobs.api import formatting
from agent_jobs.api.docs import item_of, page_of, removal
from agent_jobs.api.fields import (
    Choice,
    Config,
    Flag,
    Metadata,
    Moment,
    Name,
    Object,
    Priority,
    StrictSerializer,
    Tags,
    Text,
    Whole,
)
from agent_jobs.api.formatting import filled, stamp, stamp_or_none
from agent_jobs.api.jobs import OutcomeChannel, TargetChannel
from agent_jobs.reads import schedule_rows
from agent_jobs.schedules import definition as definitions
from agent_jobs.specs import MAX_DELAY_MINUTES

MOST_PREVIEWED = 100


class Stamp(Moment):
    """A time that is stored within JSON: as text, in UTC."""

    def to_internal_value(self, value: Any) -> Any:
        return stamp(super().to_internal_value(value))


class ScheduleKey(Text):
    """A client's own name for a schedule. It stands in an address, so it has no slash."""

    FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}")
    COMPLAINT = (
        "must begin with a letter or digit and have up to 255 letters, digits, dots, colons, dashes, underscores"
    )

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if not self.FORM.fullmatch(text):
            raise serializers.ValidationError(self.COMPLAINT, code="invalid")
        return text


class ScheduleDst(StrictSerializer):
    gap = Choice(tuple(recurrence.GapPolicy), required=False)
    fold = Choice(tuple(recurrence.FoldPolicy), required=False)


class ScheduleMisfire(StrictSerializer):
    policy = Choice(tuple(definitions.Misfire), required=False)
    grace_seconds = Whole(required=False, min_value=1, max_value=86_400)
    max_runs = Whole(required=False, min_value=1, max_value=definitions.MAX_RUNS)


class SchedulePause(StrictSerializer):
    starts_at = Stamp()
    ends_at = Stamp(required=False)


class ScheduledJob(StrictSerializer):
    """The job that each firing makes: what a POST of a job takes, without its time."""

    job_type_id = Text(max_length=128)
    target_channel = TargetChannel(required=False)
    config = Config(required=False)
    params = Object(required=False)
    work = Object(required=False)
    tags = Tags(required=False)
    priority = Priority(required=False)
    metadata = Metadata(required=False)
    delay_minutes = Whole(required=False, min_value=0, max_value=MAX_DELAY_MINUTES)
    outcome_channel = OutcomeChannel(required=False)


class ScheduleTiming(StrictSerializer):
    """When a schedule fires. Exactly one of `cron`, `every_seconds` and `run_at`."""

    cron = Text(
        max_length=300,
        required=False,
        help_text="5 fields, or 6 with seconds first; `@daily` and its kin; `@every 90s`; `CRON_TZ=Zone …`.",
    )
    every_seconds = Whole(required=False, min_value=1, max_value=definitions.LONGEST_INTERVAL_SECONDS)
    run_at = Stamp(required=False)
    time_zone = Text(
        max_length=64, required=False, help_text="Of the IANA database, such as Europe/Berlin. Default UTC."
    )
    dst = ScheduleDst(required=False)
    starts_at = Stamp(required=False)
    ends_at = Stamp(required=False)
    pauses = serializers.ListField(child=SchedulePause(), required=False, max_length=definitions.MAX_PAUSES)
    jitter_seconds = Whole(required=False, min_value=0, max_value=definitions.MAX_JITTER_SECONDS)


class ScheduleRequest(ScheduleTiming):
    name = Name(max_length=255)
    description = Text(max_length=2_000, required=False, allow_blank=True)
    job = ScheduledJob()
    tags = Tags(required=False)
    misfire = ScheduleMisfire(required=False)
    overlap = Choice(tuple(definitions.Overlap), required=False)
    annotations = Object(required=False, help_text="Notes of clients, as texts; kept as they are.")


class NewSchedule(ScheduleRequest):
    key = ScheduleKey(required=False, help_text="Unique in the organization; `by-key` finds it.")
    is_paused = Flag(required=False)


class SchedulePatch(ScheduleRequest):
    is_paused = Flag(required=False)
    # A null removes these.
    cron = Text(max_length=300, required=False, allow_null=True)
    every_seconds = Whole(required=False, min_value=1, max_value=definitions.LONGEST_INTERVAL_SECONDS, allow_null=True)
    run_at = Stamp(required=False, allow_null=True)
    starts_at = Stamp(required=False, allow_null=True)
    ends_at = Stamp(required=False, allow_null=True)


class RunRequest(StrictSerializer):
    params = Object(required=False)
    config = Config(required=False)
    work = Object(required=False)
    tags = Tags(required=False)
    priority = Priority(required=False)
    target_channel = TargetChannel(required=False)
    outcome_channel = OutcomeChannel(required=False)
    overlap = Choice(tuple(definitions.Overlap), required=False)


class BackfillRequest(StrictSerializer):
    start = Moment()
    end = Moment()
    overlap = Choice(tuple(definitions.Overlap), required=False)
    dry_run = Flag(required=False)


class PreviewRequest(ScheduleTiming):
    count = Whole(required=False, min_value=1, max_value=MOST_PREVIEWED)
    after = Moment(required=False)


# --- Responses -------------------------------------------------------------------------------------------------
@extend_schema_field({"type": "object", "additionalProperties": {}})
class AnyObject(serializers.Field):  # type: ignore[type-arg]
    pass


class PreviewedFiring(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    local = serializers.CharField(help_text="The same moment on the clocks of the schedule's zone.")
    starts_at = serializers.DateTimeField(help_text="With the jitter, when the job starts.")
    dst = serializers.ChoiceField(
        ["gap", "fold_first", "fold_second"],
        required=False,
        help_text="It is moved to the end of a gap, or lies in the first or second pass of a repeated hour.",
    )


class LastFiring(serializers.Serializer[Any]):
    fire_at = serializers.DateTimeField()
    kind = serializers.ChoiceField(schedule_rows.KINDS)
    outcome = serializers.ChoiceField(schedule_rows.OUTCOMES)
    reason = serializers.CharField(required=False)
    job_id = serializers.CharField(required=False)
    job_status = serializers.CharField(required=False)
    created_at = serializers.DateTimeField()


class ScheduleShape(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    key = serializers.CharField(required=False)
    name = serializers.CharField()
    status = serializers.ChoiceField(schedule_rows.STATUSES)
    version = serializers.IntegerField()
    runner = serializers.CharField()
    cron = serializers.CharField(required=False)
    every_seconds = serializers.IntegerField(required=False)
    run_at = serializers.DateTimeField(required=False)
    time_zone = serializers.CharField()
    description = serializers.CharField(required=False)
    describes = serializers.CharField(help_text="The timing in words.")
    job = AnyObject(help_text="Secrets of its work are shown as `******`.")
    tags = serializers.ListField(child=serializers.CharField())
    next_run_at = serializers.DateTimeField(required=False)
    next_runs = PreviewedFiring(many=True, required=False)
    last_firing = LastFiring(required=False)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class VersionShape(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    definition = AnyObject()
    is_paused = serializers.BooleanField()
    diff = serializers.ListField(child=AnyObject())
    author = serializers.CharField()
    note = serializers.CharField(required=False)
    created_at = serializers.DateTimeField()


class BackfillShape(serializers.Serializer[Any]):
    times = serializers.ListField(child=serializers.DateTimeField())
    skipped = serializers.IntegerField(help_text="Times of the range that have a firing already.")
    firings = LastFiring(many=True)


class PreviewShape(serializers.Serializer[Any]):
    describes = serializers.CharField()
    next_runs = PreviewedFiring(many=True)


ScheduleItem = item_of("ScheduleItem", ScheduleShape)
SchedulePage = page_of("SchedulePage", ScheduleShape)
FiringItem = item_of("FiringItem", LastFiring)
FiringPage = page_of("FiringPage", LastFiring)
VersionItem = item_of("ScheduleVersionItem", VersionShape)
VersionPage = page_of("ScheduleVersionPage", VersionShape)
PreviewItem = item_of("SchedulePreview", PreviewShape)
NewPreview = inline_serializer("NewSchedulePreview", {"data": PreviewShape()})
BackfillItem = item_of("ScheduleBackfill", BackfillShape)
RemovedSchedule = removal("RemovedSchedule")
EXAMPLES = [
    OpenApiExample(
        "Every night at half past two in Berlin",
        {
            "name": "Nightly report",
            "cron": "30 2 * * *",
            "time_zone": "Europe/Berlin",
            "job": {
                "job_type_id": "daily-report",
                "target_channel": {"org_id": "org123", "platform": "slack", "code": "C123456"},
                "params": {"report_type": "daily"},
            },
            "overlap": "forbid",
        },
        request_only=True,
    )
]


def shown(row: Mapping[str, Any], last: Mapping[str, Any] | None = None) -> dict[str, Any]:
    definition = row["definition"]
    return filled(
        {
            "id": str(row["id"]),
            "org_id": row["org_id"],
            "key": row["key"],
            "status": schedule_rows.status(row),
            "version": row["version"],
            "runner": row["runner"],
            **definition,
            "describes": definitions.timing(definition, anchor=row["created_at"]).rule.describe(),
            "next_run_at": stamp_or_none(row["next_at"]),
            "last_firing": firing(last) if last else None,
            "created_by": row["created_by"],
            "created_at": stamp(row["created_at"]),
            "updated_at": stamp(row["updated_at"]),
        }
    )


def firing(row: Mapping[str, Any]) -> dict[str, Any]:
    return formatting.shown(LastFiring, row)


def version(row: Mapping[str, Any]) -> dict[str, Any]:
    return formatting.shown(VersionShape, row)


def previewed(
    definition: Mapping[str, Any], *, anchor: datetime, after: datetime, count: int, key: str
) -> list[dict[str, Any]]:
    """The next firings, with their jitter, as JSON. Raises BadExpression."""
    timing = definitions.timing(definition, anchor=anchor)
    found = recurrence.within(timing.rule, timing.bounds, after=after, limit=count)
    return [
        filled(
            {
                "at": stamp(one.at),
                "local": one.local.isoformat(sep=" ", timespec="seconds"),
                "starts_at": stamp(recurrence.jittered(one.at, key=key, max_seconds=timing.jitter_seconds)),
                "dst": one.note,
            }
        )
        for one in found
    ]
