"""Many jobs at once: `POST /services/agent-jobs/bulk`, `/bulk/cancel` and `/bulk/retry`."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers
from rest_framework.request import Request

from agent_jobs.api import errors, filters, parsing
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.fields import Flag, Object, Sent, StrictSerializer, Text, Whole
from agent_jobs.api.filters import JobFilters
from agent_jobs.api.jobs import JobRequest, job_spec, problems
from agent_jobs.errors import AgentJobsError, FieldError, Invalid
from agent_jobs.jobs import bulk, bulk_creation
from agent_jobs.reads import job_lists, queries
from agent_jobs.specs import MAX_DELAY_MINUTES, JobSpec

_CHANGES = {"cancel": bulk.cancel, "retry": bulk.retry}
_PAST = {"cancel": "canceled", "retry": "retried"}


# --- Shapes ----------------------------------------------------------------------------------------------------
class BulkParser(parsing.StrictJSONParser):
    max_bytes = 4 * 1024 * 1024


class BulkItem(JobRequest):
    """A job as in a POST of one. One instance validates all items, so nothing here depends on an item."""

    delay_minutes = Whole(required=False, min_value=0, max_value=MAX_DELAY_MINUTES)


class Items(serializers.JSONField):
    """A list whose items the view validates one by one, so that each has errors of its own."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list):
            raise serializers.ValidationError("must be a list of jobs", code="invalid")
        if not 0 < len(data) <= bulk_creation.MOST:
            message = f"must have 1 to {bulk_creation.MOST:,} jobs, and has {len(data):,}"
            raise serializers.ValidationError(message, code="too_many" if data else "required")
        return data


class BulkRequest(StrictSerializer):
    jobs = Items()
    partial = Flag(  # type: ignore[assignment]
        required=False, help_text="Create those that are valid. Default: all or none."
    )


class _DescribedBulk(serializers.Serializer[Any]):
    """For the OpenAPI document only."""

    jobs = BulkItem(many=True, help_text=f"1 to {bulk_creation.MOST:,} jobs.")
    partial = serializers.BooleanField(  # type: ignore[assignment]
        required=False, help_text="Create those that are valid. Default: all or none."
    )


class Ids(Sent):
    def to_internal_value(self, data: Any) -> list[UUID]:
        if not isinstance(data, list) or not 0 < len(data) <= bulk.MOST:
            message = f"must be a list of 1 to {bulk.MOST:,} ids of jobs"
            raise serializers.ValidationError(message, code="invalid")
        found, wrong = dict[UUID, None](), dict[str, list[Any]]()
        for place, text in enumerate(data):
            try:
                found[parsing.read_uuid(text if isinstance(text, str) else "")] = None
            except ValueError:
                wrong[str(place)] = [serializers.ErrorDetail("must be the id of a job", "invalid")]
        if wrong:
            raise serializers.ValidationError(wrong)
        return list(found)


class BulkChangeRequest(StrictSerializer):
    ids = Ids(required=False)
    filter = Object(required=False, help_text='The filters of the list, as `{"status": "waiting"}`.')
    expected_count = Whole(
        required=False,
        min_value=0,
        max_value=bulk.MOST,
        help_text="How many jobs can be changed. If it is another number, nothing is changed: 409 `count_changed`, with"
        " the number in `meta.count`. Required with a filter.",
    )
    dry_run = Flag(required=False, help_text="Only count.")
    reason = Text(max_length=1_000, required=False, allow_blank=True)


class _DescribedChange(BulkChangeRequest):
    ids = serializers.ListField(  # type: ignore[assignment]
        child=serializers.UUIDField(), required=False, max_length=bulk.MOST, help_text="Either these or a filter."
    )


class _ItemRefusal(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    errors = serializers.ListField(child=serializers.DictField())  # type: ignore[assignment]


class BulkResult(serializers.Serializer[Any]):
    index = serializers.IntegerField(help_text="The place in the request, from 0.")
    outcome = serializers.ChoiceField(["created", "existing", "refused"])
    job_id = serializers.CharField(required=False)
    job_status = serializers.CharField(required=False)
    error = _ItemRefusal(required=False)


class _BulkMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    count = serializers.IntegerField()
    created = serializers.IntegerField()
    existing = serializers.IntegerField(help_text="Items with `on_conflict=return` whose job was there before.")
    refused = serializers.IntegerField()


class _RefusedChange(serializers.Serializer[Any]):
    job_id = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()


class BulkChange(serializers.Serializer[Any]):
    changed = serializers.ListField(child=serializers.CharField(), help_text="The ids of the jobs.")
    refused = _RefusedChange(many=True)


class _ChangeMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    count = serializers.IntegerField(help_text="How many jobs were changed; with `dry_run`, how many could be.")
    dry_run = serializers.BooleanField()


BulkAnswer = page_of("BulkAnswer", BulkResult, _BulkMeta)
BulkChangeAnswer = item_of("BulkChangeAnswer", BulkChange, _ChangeMeta, has_message=True)
_ONE = {
    "target_channel": {"org_id": "org123", "platform": "slack", "code": "C123456"},
    "job_type_id": "daily-report",
    "params": {"report_type": "daily"},
}
_EXAMPLE = OpenApiExample("Two jobs", {"jobs": [_ONE, {**_ONE, "priority": "low"}]}, request_only=True)
_BY_FILTER = OpenApiExample(
    "By filter", {"filter": {"tags": "q4", "status": "waiting,scheduled"}, "expected_count": 52}, request_only=True
)


# --- Views -----------------------------------------------------------------------------------------------------
class BulkJobs(Resource):
    parser_classes = (BulkParser,)
    max_body_bytes = BulkParser.max_bytes

    @operation(
        "jobs_bulk_create",
        "Create many jobs",
        answers={201: BulkAnswer, 200: BulkAnswer},
        refused=(404,),
        request=_DescribedBulk,
        examples=[_EXAMPLE],
        description="Creates up to 1,000 jobs in one transaction: all of them (201), or none. An error names the place"
        " of each wrong job, as in `jobs.17.params.name`. With `partial`, the valid ones are created, and a 200 has a"
        " result for each. The body may have 4 MiB.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=BulkRequest).body
        is_partial = fields.get("partial", False)
        read, refused = self._read(fields["jobs"])
        if refused and not is_partial:
            raise bulk_creation.refusal(refused, at="jobs")
        for org_id in {item["target_channel"]["org_id"] for item in read.values() if "target_channel" in item}:
            self.require_org(org_id)
        specs = {
            place: job_spec(item, delay_minutes=item.get("delay_minutes", 0), token_pk=self.token.pk)
            for place, item in read.items()
        }

        def effect() -> tuple[int, Mapping[str, Any]]:
            make = bulk_creation.create_valid if is_partial else _create_all
            made = make(self.org_id, list(specs.values()), actor=self.actor)
            found = {**refused, **dict(zip(specs, made, strict=True))}
            return 200 if is_partial else 201, self._answer([found[place] for place in sorted(found)])

        return self.once(effect)

    def _read(self, stated: Sequence[Any]) -> tuple[dict[int, Any], dict[int, AgentJobsError]]:
        """The fields of the valid items, and the errors of the others, by their place."""
        child, read, refused = BulkItem(), dict[int, Any](), dict[int, AgentJobsError]()
        for place, item in enumerate(stated):
            try:
                fields = child.run_validation(item)
                found = problems(fields)
            except serializers.ValidationError as error:
                found = [
                    FieldError("item" if one.field == "body" else one.field, one.code, one.message)
                    for one in errors.flatten(error.detail)
                ]
            if found:
                refused[place] = Invalid(*found)
            else:
                read[place] = fields
        return read, refused

    def _answer(self, found: Sequence[bulk_creation.Made]) -> dict[str, Any]:
        results = [_result(place, one) for place, one in enumerate(found)]
        outcomes = [result["outcome"] for result in results]
        counts = {outcome: outcomes.count(outcome) for outcome in ("created", "existing", "refused")}
        return {"data": results, "meta": {"org_id": self.org_id, "count": len(results), **counts}}


def _create_all(org_id: str, specs: Sequence[JobSpec], *, actor: Any) -> Sequence[bulk_creation.Made]:
    return bulk_creation.create_all(org_id, specs, actor=actor, at="jobs")


def _result(place: int, found: bulk_creation.Made) -> dict[str, Any]:
    if isinstance(found, AgentJobsError):
        wrong = [{"field": one.field, "code": one.code, "message": one.message} for one in found.errors]
        error = {"code": found.code, "message": found.message, "errors": wrong}
        return {"index": place, "outcome": "refused", "error": {**error, **_told(found)}}
    if isinstance(found, UUID):
        return {"index": place, "outcome": "existing", "job_id": str(found)}
    return {"index": place, "outcome": "created", "job_id": str(found.pk), "job_status": str(found.status)}


def _told(error: AgentJobsError) -> dict[str, Any]:
    return {name: error.context[name] for name in error.told}


class _BulkChange(Resource):
    verb = ""

    def changed(self) -> HttpResponseBase:
        fields = self.asked(body=BulkChangeRequest, check=_change_problems).body
        rows = self._rows(fields)
        is_dry, reason = fields.get("dry_run", False), fields.get("reason", "")

        def effect() -> tuple[int, Mapping[str, Any]]:
            if is_dry:
                movable = rows.filter(status__in=bulk.SOURCES[self.verb])
                return 200, self._answer(bulk.BulkOutcome(), movable.count(), is_dry=True)
            if "ids" in fields:
                ids = fields["ids"]
            else:
                movable = rows.filter(status__in=bulk.SOURCES[self.verb])
                ids = job_lists.ids(movable, most=bulk.MOST + 1)
            outcome = _CHANGES[self.verb](
                self.org_id, ids, expected=fields.get("expected_count"), actor=self.actor, reason=reason
            )
            return 200, self._answer(outcome, len(outcome.changed), is_dry=False)

        return self.once(effect)

    def _rows(self, fields: Mapping[str, Any]) -> Any:
        """The jobs that are asked for. Raises Invalid for a wrong filter, NotFound for an id that is not ours."""
        rows = queries.jobs(self.org_id)
        if "ids" in fields:
            queries.require_own_jobs(self.org_id, fields["ids"])
            return rows.filter(pk__in=fields["ids"])
        pairs = [(str(name), _as_text(value)) for name, value in fields["filter"].items()]
        sent, wrong = parsing.gather(pairs, filters.params(filters.stated(JobFilters, (name for name, _ in pairs))))
        rows, invalid = filters.narrowed(rows, JobFilters, sent)
        wrong += invalid
        if wrong:
            raise Invalid(*(FieldError(f"filter.{one.field}", one.code, one.message) for one in wrong))
        return rows

    def _answer(self, outcome: bulk.BulkOutcome, count: int, *, is_dry: bool) -> dict[str, Any]:
        past = f"{'could be' if is_dry else 'successfully'} {_PAST[self.verb]}"
        return {
            "data": {
                "changed": [str(job_id) for job_id in outcome.changed],
                "refused": [
                    {"job_id": str(job_id), "code": error.code, "message": error.message}
                    for job_id, error in outcome.refused.items()
                ],
            },
            "meta": {"org_id": self.org_id, "count": count, "dry_run": is_dry},
            "message": f"{count:,} job{'' if count == 1 else 's'} {past}",
        }


_ABOUT_CHANGE = (
    " in one transaction: those in `ids`, or those that match `filter`, up to 1,000. `expected_count` protects against"
    " surprises. Jobs in another status, or that refuse for a reason of their own, are listed in `refused` and stop"
    " none of the others. 404, and nothing is changed, if an id is unknown."
)


class BulkCancel(_BulkChange):
    verb = "cancel"

    @operation(
        "jobs_bulk_cancel",
        "Cancel many jobs",
        answers={200: BulkChangeAnswer},
        refused=(404,),
        request=_DescribedChange,
        examples=[_BY_FILTER],
        description=f"Cancels jobs that have not ended,{_ABOUT_CHANGE}",
    )
    def post(self, request: Request) -> HttpResponseBase:
        return self.changed()


class BulkRetry(_BulkChange):
    verb = "retry"

    @operation(
        "jobs_bulk_retry",
        "Retry many jobs",
        answers={200: BulkChangeAnswer},
        refused=(404,),
        request=_DescribedChange,
        description=f"Reopens FAILED and CANCELED jobs,{_ABOUT_CHANGE}",
    )
    def post(self, request: Request) -> HttpResponseBase:
        return self.changed()


def _change_problems(fields: Mapping[str, Any]) -> list[FieldError]:
    if ("ids" in fields) == ("filter" in fields):
        return [FieldError("ids", "invalid", "exactly one of ids and filter is needed")]
    if "filter" in fields and not fields["filter"]:
        return [FieldError("filter", "blank", "must have at least one filter")]
    if "filter" in fields and "expected_count" not in fields and not fields.get("dry_run"):
        return [FieldError("expected_count", "required", "is needed with a filter; a dry_run tells the number")]
    return []


def _as_text(value: Any) -> str:
    """A filter's value as in an address: `true`, `5`, `red,blue`. Anything else becomes a text that no filter takes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return str(value) if isinstance(value, str | int | float) else ""
