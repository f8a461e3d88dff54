"""Jobs: `/services/agent-jobs[/{id}]`. Creates, lists, shows and cancels them as the API's document says."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import jobs, specs
from agent_jobs.api import activities, job_json, paging, parsing, streams
from agent_jobs.api.base import HAS_WAITED, Asked, Resource, read_job_id
from agent_jobs.api.docs import operation
from agent_jobs.api.fields import (
    Choice,
    Config,
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
from agent_jobs.api.filters import MOST_METADATA_FILTERS, JobFilters
from agent_jobs.api.job_docs import CREATE_EXAMPLES, CanceledJob, JobItem, JobPage
from agent_jobs.errors import DuplicateJob, FieldError, Invalid
from agent_jobs.reads import explanations, job_lists, pages, queries
from agent_jobs.reads.pages import Window
from agent_jobs.specs import DEFAULT_PRIORITY, MAX_DELAY_MINUTES, ChannelSpec, JobSpec, Uniqueness
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.webhooks import outcome_messages

SORTING = paging.Sorting(
    "jobs",
    {
        "created_at": "created_at",
        "updated_at": "updated_at",
        "scheduled_at": "scheduled_at",
        "queued_at": "state_since",
        "job_status": "status",
        "status": "status",
        "job_type_id": "job_type_key",
        "channel_code": "channel_code",
        "priority": "priority",
    },
    default="created_at:desc",
    then=dict.fromkeys(("status", "job_type_key", "channel_code"), "created_at"),
    not_first=frozenset({"priority"}),
)
MAX_WAIT_SECONDS = 60
_VERSION = re.compile(r'(?:W/)?"?([0-9a-f]{1,16}-[0-9a-f]{1,8})"?')


def _read_since(text: str) -> str | datetime:
    if found := _VERSION.fullmatch(text):
        return found[1]
    try:
        return parsing.moment(text)
    except ValueError:
        raise ValueError("must be the ETag or the updated_at of an earlier answer for this job") from None


_DIRECTION = ("created_at", "-created_at")
LIST_QUERY = {
    "include": parsing.words("stats", "activities", about="Adds these to the answer; both with a comma."),
    "activities_limit_per_job": parsing.whole(1, 100, default=15, about="With include=activities."),
    "activities_total_limit": parsing.whole(1, 3_000, default=500, about="With include=activities."),
    "activities_sort": parsing.one_of(*_DIRECTION, default="-created_at", about="With include=activities."),
}
DETAIL_QUERY = {
    "include": parsing.words("activities", "explanation", about="Adds these to the answer; both with a comma."),
    "include_limit": parsing.whole(1, 100, default=50, about="With include=activities."),
    "include_sort": parsing.one_of(*_DIRECTION, default="-created_at", about="With include=activities."),
    "wait": parsing.whole(
        0, MAX_WAIT_SECONDS, default=0, about="Seconds to wait for the job to change or end before answering."
    ),
    "since": parsing.Param(
        _read_since,
        "With wait: the state that the client knows, as the `ETag` of an answer or (less exact) its `updated_at`. A job"
        " that has changed since is shown at once. Without it the request waits for the next change.",
        {"type": "string"},
    ),
}
CREATE_QUERY = {
    "delay": parsing.whole(
        0,
        MAX_DELAY_MINUTES,
        default=0,
        about="The longest random delay, in minutes, to add to the scheduled time. Drawn once.",
    )
}


# --- Requests --------------------------------------------------------------------------------------------------
class TargetChannel(StrictSerializer):
    org_id = Text(max_length=64)
    platform = Text(max_length=32)
    code = Text()
    type = Name(max_length=64, required=False)
    data = Object(required=False)  # type: ignore[assignment]


class OutcomeChannel(StrictSerializer):
    """The channel that gets one message when the job has ended, whatever the end."""

    platform = Text(max_length=32)
    code = Text()
    type = Name(max_length=64, required=False)
    data = Object(required=False)  # type: ignore[assignment]
    template = Text(
        max_length=outcome_messages.MAX_TEMPLATE,
        required=False,
        help_text="The text, as a template with the job's params and job_id, job_type, status, result, error_code and"
        " error_message. Default: one plain sentence.",
    )


class JobRequest(StrictSerializer):
    """A job. Its type's runner decides whether it needs a channel or a work (`jobs.creation`)."""

    target_channel = TargetChannel(required=False)
    job_type_id = Text(max_length=128)
    config = Config(required=False)
    params = Object(required=False)
    work = Object(required=False)
    outcome_channel = OutcomeChannel(required=False)
    scheduled_at = Moment(required=False)
    tags = Tags(required=False)
    priority = Priority(required=False)
    metadata = Metadata(required=False)
    unique_key = Text(
        max_length=specs.MAX_UNIQUE_KEY,
        required=False,
        help_text="Your own key. While a job with it lives, `on_conflict` decides what becomes of another one.",
    )
    unique_scope = Choice(
        specs.UNIQUE_SCOPES,
        required=False,
        help_text="Which jobs count: those of the same type (the default), or all of the organization.",
    )
    unique_window_minutes = Whole(
        required=False,
        min_value=1,
        max_value=specs.MAX_UNIQUE_MINUTES,
        help_text="A COMPLETED job also counts, for so long after its creation. Default: it does not.",
    )
    on_conflict = Choice(
        specs.ON_CONFLICT,
        required=False,
        help_text="`reject` (the default): 409 `duplicate_job`, with the other job's id in `meta.job_id`. `return`: 200"
        " with the other job. `replace`: the other job is canceled; 409 if it is COMPLETED.",
    )


class CancelRequest(StrictSerializer):
    reason = Text(max_length=1_000, required=False, allow_blank=True)


def problems(fields: Mapping[str, Any]) -> list[FieldError]:
    """Errors that show without a look-up: a wrong field is a 400 even if the organisation or the job type is
    unknown.
    """
    found = jobs.input_errors(fields.get("config", {}), fields.get("scheduled_at"), now=datetime.now(UTC))
    if "unique_key" not in fields:
        alone = (name for name in ("unique_scope", "unique_window_minutes", "on_conflict") if name in fields)
        found += [FieldError(name, "invalid", "needs unique_key") for name in alone]
    return found


def job_spec(fields: Mapping[str, Any], *, delay_minutes: int, token_pk: int | None) -> JobSpec:
    """The spec of a valid JobRequest."""
    channel = fields.get("target_channel")
    unique = None
    if "unique_key" in fields:
        unique = Uniqueness(
            fields["unique_key"],
            fields.get("unique_scope", "type"),
            fields.get("unique_window_minutes", 0),
            fields.get("on_conflict", "reject"),
        )
    return JobSpec(
        job_type_id=fields["job_type_id"],
        channel=channel_spec(channel) if channel else None,
        work=fields.get("work", {}),
        outcome_channel=fields.get("outcome_channel", {}),
        config=fields.get("config", {}),
        params=fields.get("params", {}),
        scheduled_at=fields.get("scheduled_at"),
        delay_minutes=delay_minutes,
        tags=tuple(fields.get("tags", ())),
        priority=fields.get("priority", DEFAULT_PRIORITY),
        metadata=fields.get("metadata", {}),
        unique=unique,
        token_pk=token_pk,
    )


def channel_spec(channel: Mapping[str, Any]) -> ChannelSpec:
    return ChannelSpec(channel["platform"], channel["code"], channel.get("type", ""), channel.get("data", {}))


def sortable(rows: QuerySet[Any], window: Window) -> QuerySet[Any]:
    """The jobs that can be sorted this way: by `queued_at`, only those that are in a queue."""
    is_by_queue = any(by.column == SORTING.columns["queued_at"] for by in window.order)
    return queries.in_queue(rows) if is_by_queue else rows


# --- Views -----------------------------------------------------------------------------------------------------
class Jobs(Resource):
    @operation(
        "jobs_list",
        "List jobs",
        answers={200: JobPage},
        query=LIST_QUERY,
        sorting=SORTING,
        filtered=JobFilters,
        description="The jobs of the token's organization. Times in filters are inclusive; a plain date"
        " means its midnight in `_gte`, and the end of that day in `_lte`. `metadata.region=eu` keeps the jobs whose"
        " metadata has this value for this key, as a text, a number or a boolean; up to"
        f" {MOST_METADATA_FILTERS} such parameters. The sort `queued_at` lists only the jobs that are in a queue, by"
        " the time at which they came into it: their `state_since`.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(query=LIST_QUERY, sorting=SORTING, rows=queries.jobs(self.org_id), filtered=JobFilters)
        _require_include(asked, "activities_limit_per_job", "activities_total_limit", "activities_sort")
        page = asked.page
        listed = sortable(asked.rows, page.window)
        include = asked.query["include"]
        counts = job_lists.exact_counts(listed) if "stats" in include else None
        total = sum(counts.values()) if counts is not None else listed.count()
        rows, has_more = pages.page(listed, page.window, queries.JOB_COLUMNS, more_bytes=queries.MORE_JOB_BYTES)
        shown = job_json.of(rows)
        meta = {"org_id": self.org_id, **page.meta(rows, total=total, has_more=has_more)}
        if counts is not None:
            waits = job_lists.wait_counts(listed.filter(status=JobStatus.RUNNING))
            meta["stats"] = {"status": counts, "waiting_for": dict(waits)}
        if "activities" in include:
            meta |= _add_activities(rows, shown, asked.query)
        return Response({"data": shown, "meta": meta})

    @operation(
        "jobs_create",
        "Create a job",
        answers={201: JobItem, 200: JobItem},
        refused=(404,),
        request=JobRequest,
        query=CREATE_QUERY,
        examples=CREATE_EXAMPLES,
        description="Nothing is stored unless the answer is a 201. A 200 (with `on_conflict=return`) shows the job that"
        " has the `unique_key` already.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        asked = self.asked(query=CREATE_QUERY, body=JobRequest, check=problems)
        fields, channel = asked.body, asked.body.get("target_channel")
        if channel is not None:
            self.require_org(channel["org_id"])
        spec = job_spec(fields, delay_minutes=asked.query["delay"], token_pk=self.token.pk)

        def effect() -> tuple[int, Mapping[str, Any]]:
            try:
                return 201, job_json.created(jobs.create(self.org_id, spec, actor=self.actor))
            except DuplicateJob as error:
                if fields.get("on_conflict") != "return":
                    raise
                return 200, job_json.existing(self.org_id, error.context["job_id"])

        return self.once(effect)


class JobDetail(Resource):
    @operation(
        "jobs_retrieve",
        "Get a job",
        answers={200: JobItem},
        query=DETAIL_QUERY,
        description="With `wait`, the request waits until the job changes (its status, anything else that moves"
        " `updated_at`, or a new activity), ends, or the time is over. A job that has ended is shown at once. Send the"
        " `ETag` of each answer as the next request's `since`, so that you miss no change in between.",
    )
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        asked = self.asked(query=DETAIL_QUERY)
        _require_include(asked, "include_limit", "include_sort")
        if "since" in asked.sent and "wait" not in asked.sent:
            raise Invalid(FieldError("since", "invalid", "needs wait"))
        row = queries.job(self.org_id, read_job_id(job_id))
        shown = job_json.of([row], is_detail=True)[0]
        version = streams.version(row["updated_at"], shown["activities_count"])
        if request.method == "GET" and self.is_to_wait(asked, row, version):
            opened = streams.Wait(**self.owner, job_id=row["id"], seen=version, seconds=asked.query["wait"])
            return streams.OpenResponse(opened)
        response = Response(self.detail(asked, row, shown))
        response["ETag"] = f'"{version}"'
        return response

    def is_to_wait(self, asked: Asked, row: queries.Row, version: str) -> bool:
        """Whether to wait: the request has not waited yet, and the job has neither ended nor changed since `since`."""
        if not asked.query["wait"] or HAS_WAITED in self.request.META or row["status"] in TERMINAL:
            return False
        return asked.query["since"] in (None, version, row["updated_at"])

    def detail(self, asked: Asked, row: queries.Row, shown: dict[str, Any]) -> dict[str, Any]:
        meta: dict[str, Any] = {"org_id": self.org_id, "id": str(row["id"])}
        if "activities" in asked.query["include"]:
            limit = asked.query["include_limit"]
            newest_first = asked.query["include_sort"] == "-created_at"
            found = queries.activities_of([row["id"]], per_job=limit, total=limit, newest_first=newest_first)
            shown["Activities"] = [activities.answer(activity) for activity in found.get(row["id"], [])]
            meta["activities_meta"] = {"count": shown["activities_count"], "limit": limit}
        if "explanation" in asked.query["include"]:
            shown["explanation"] = job_json.explanation(explanations.of(self.org_id, row["id"]))
        return {"data": shown, "meta": meta}

    @operation(
        "jobs_cancel",
        "Cancel a job",
        answers={200: CanceledJob},
        refused=(409,),
        request=CancelRequest,
        description="Ends a job that has not ended. The body is optional.",
    )
    def delete(self, request: Request, job_id: str) -> Response:
        asked = self.asked(body=CancelRequest)
        job = jobs.cancel(
            self.org_id,
            read_job_id(job_id),
            actor=self.actor,
            reason=asked.body.get("reason", ""),
            by=self.token.name,
        )
        return Response(job_json.moved(self.org_id, job.pk, "canceled"))


class MissingJobId(Resource):
    """Answers `/services/agent-jobs/`, which names no job, with the 400 of the API's document."""

    schema = None

    def get(self, request: Request) -> Response:
        raise Invalid(FieldError("id", "required", "is missing from the address: /services/agent-jobs/{id}"))

    delete = get


def _require_include(asked: Asked, *names: str) -> None:
    if "activities" not in asked.query["include"] and (alone := [name for name in names if name in asked.sent]):
        raise Invalid(*(FieldError(name, "invalid", "needs include=activities") for name in alone))


def _add_activities(
    rows: Sequence[queries.Row], shown: Sequence[dict[str, Any]], query: Mapping[str, Any]
) -> dict[str, Any]:
    """Add `Activities` to each job of a page. Returns their counts for the page's meta."""
    found = queries.activities_of(
        [row["id"] for row in rows],
        per_job=query["activities_limit_per_job"],
        total=query["activities_total_limit"],
        newest_first=query["activities_sort"] == "-created_at",
    )
    for row, job in zip(rows, shown, strict=True):
        job["Activities"] = [activities.answer(activity) for activity in found.get(row["id"], [])]
    returned = sum(len(job["Activities"]) for job in shown)
    available = sum(job["activities_count"] for job in shown)
    return {
        "activities_total_returned": returned,
        "activities_total_available": available,
        "activities_truncated": returned < available,
    }
