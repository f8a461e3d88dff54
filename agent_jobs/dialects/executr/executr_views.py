"""The operations of Executr. A status other than the document's is said in `docs/dialects.md`."""

import logging
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError
from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import jobs, scopes
from agent_jobs.api import errors, parsing
from agent_jobs.api.parsing import ReportParser
from agent_jobs.dialects.base import DialectResource, OpenResource, checked, read_id
from agent_jobs.dialects.documentation import Documentation
from agent_jobs.dialects.executr import executr_json as shapes
from agent_jobs.errors import AgentJobsError, Conflict, FieldError, Invalid, NotFound
from agent_jobs.executors import attempts, claiming, known_executors, reporting
from agent_jobs.executors.attempts import Attempt
from agent_jobs.executors.claiming import Claimant
from agent_jobs.executors.reporting import AttemptReport
from agent_jobs.jobs import whole_batches
from agent_jobs.reads import external_jobs, pages, queries, service_state
from agent_jobs.reads.pages import Order, Window
from agent_jobs.runners import external

log = logging.getLogger(__name__)
described = Documentation("Executr", shapes.ExecutrError)
_NO_BODY = OpenApiResponse(description="The same, for a request without an `Accept` header.")
_CHANGED = {200: shapes.ExecutrChanged, 204: _NO_BODY}
_MOST_LISTED = 1_000
_MOST_BULK = 1_000
_BULK_BYTES = 4 * 1024 * 1024
_NEWEST_FIRST = (Order("created_at", is_descending=True), Order("id", is_descending=True))
LIST_QUERY = {
    "status": parsing.one_of(*shapes.STATUS.values()),
    "type": parsing.text(128),
    "priority": parsing.one_of(*shapes.PRIORITIES),
    "limit": parsing.whole(1, 2**31 - 1, default=100, about=f"More than {_MOST_LISTED:,} counts as {_MOST_LISTED:,}."),
    "offset": parsing.whole(0, 2**31 - 1, default=0),
}


class _ExecutrResource(DialectResource):
    def handle_exception(self, exc: Exception) -> Response:
        """Adds the job's id, as the request states it, to the context of an error."""
        response: Response = super().handle_exception(exc)
        if "job_id" in self.kwargs and isinstance(response.data, dict) and "context" in response.data:
            response.data["context"]["job_id"] = self.kwargs["job_id"][: errors.MAX_FIELD]
        return response

    def job_id(self, text: str) -> UUID:
        """The id of one of this dialect's jobs. Raises NotFound, for another organisation's as for a missing one."""
        job_id = read_id(text)
        if job_id is None:
            raise queries.job_not_found(text)
        if not external_jobs.with_binary(self.org_id).filter(pk=job_id).exists():
            raise queries.job_not_found(text, denied=("job", str(job_id)))
        return job_id

    def whole(self, job_id: UUID) -> dict[str, Any]:
        """A job with its attempts and outputs; with its secrets too, if the token may execute."""
        row = external_jobs.job(external_jobs.with_binary(self.org_id), job_id)
        if scopes.allows(self.token.scopes, scopes.Level.EXECUTE):
            row = {**row, "work": claiming.whole_work(self.org_id, job_id)}
        return shapes.shown(row, external_jobs.attempts_of([job_id]).get(job_id, ()), external_jobs.last_report(job_id))

    def changed(self, job_id: UUID, status: str) -> HttpResponseBase:
        """200 as documented. Executr's own client accepts only 204, and is the only one without an Accept header."""
        if "HTTP_ACCEPT" not in self.request.META:
            return HttpResponse(status=204)
        return Response({"id": str(job_id), "status": status})


# --- Jobs ------------------------------------------------------------------------------------------------------
class ExecutrJobs(_ExecutrResource):
    @described("list_jobs", "List jobs", shapes.ExecutrListedJob(many=True), query=LIST_QUERY)
    def get(self, request: Request) -> Response:
        asked = self.query(LIST_QUERY)
        rows = external_jobs.with_binary(self.org_id)
        if asked["type"]:
            rows = rows.filter(external_jobs.of_type(asked["type"]))
        if asked["status"]:
            rows = rows.filter(shapes.with_status(asked["status"]))
        if asked["priority"]:
            rows = rows.filter(shapes.with_priority(asked["priority"]))
        window = Window(_NEWEST_FIRST, min(asked["limit"], _MOST_LISTED), asked["offset"])
        page, has_more = pages.page(rows, window, external_jobs.COLUMNS)
        attempts_of = external_jobs.attempts_of([row["id"] for row in page])
        response = Response([shapes.listed(row, attempts_of.get(row["id"], ())) for row in page])
        return self.with_rest(response, window.offset + len(page)) if has_more else response

    @described("submit_job", "Submit a job", {201: shapes.ExecutrWholeJob}, request=shapes.ExecutrSubmitRequest)
    def post(self, request: Request) -> Response:
        fields = self.fields(shapes.ExecutrSubmitRequest)
        self.ensure_job_type(self.org_id, shapes.JOB_TYPE, "Executr", external.NAME)
        job = jobs.create(self.org_id, shapes.spec(fields, token_pk=self.token.pk), actor=self.actor)
        return Response(self.whole(job.pk), status=201)


class ExecutrJob(_ExecutrResource):
    @described("get_job", "Get a job", shapes.ExecutrWholeJob)
    def get(self, request: Request, job_id: str) -> Response:
        return Response(self.whole(self.job_id(job_id)))

    @described("cancel_job", "Cancel a pending job", _CHANGED)
    def delete(self, request: Request, job_id: str) -> HttpResponseBase:
        job = jobs.cancel(self.org_id, self.job_id(job_id), actor=self.actor, unless_held=True)
        return self.changed(job.pk, "cancelled")


class ExecutrBulk(_ExecutrResource):
    max_body_bytes = _BULK_BYTES

    @described(
        "submit_jobs",
        "Submit up to 1,000 jobs, all or none",
        {201: shapes.ExecutrChanged(many=True)},
        request=shapes.ExecutrSubmitRequest(many=True),
    )
    def post(self, request: Request) -> Response:
        items = self.json()
        if not isinstance(items, list) or not 0 < len(items) <= _MOST_BULK:
            raise Invalid(FieldError("body", "invalid", f"must be an array of 1 to {_MOST_BULK:,} jobs"))
        specs, problems = [], []
        for place, item in enumerate(items):
            try:
                specs.append(shapes.spec(checked(shapes.ExecutrSubmitRequest, item), token_pk=self.token.pk))
            except Invalid as error:
                problems += [FieldError(f"{place}.{one.field}", one.code, one.message) for one in error.errors]
        if problems:
            raise Invalid(*problems)
        self.ensure_job_type(self.org_id, shapes.JOB_TYPE, "Executr", external.NAME)
        made = whole_batches.create_all(self.org_id, specs, actor=self.actor)
        return Response([{"id": str(job.pk), "status": "pending"} for job in made], status=201)


class ExecutrBulkCancel(_ExecutrResource):
    @described(
        "cancel_jobs",
        "Cancel pending jobs, each on its own",
        shapes.ExecutrCanceledMany,
        request=shapes.ExecutrCancelManyRequest,
    )
    def post(self, request: Request) -> Response:
        asked = self.fields(shapes.ExecutrCancelManyRequest)["job_ids"]
        refused = []
        for text in asked:
            try:
                jobs.cancel(self.org_id, self.job_id(text), actor=self.actor, unless_held=True)
            except AgentJobsError as error:
                refused.append({"job_id": text, "error": error.message})
        return Response({"cancelled": len(asked) - len(refused), "failed": len(refused), "errors": refused})


# --- Executors -------------------------------------------------------------------------------------------------
class _ExecutrCall(_ExecutrResource):
    """A call of an executor. The ordinary rate limits do not apply: a refused report would lose a result."""

    level = scopes.Level.EXECUTE
    throttle_classes = ()

    def newest_attempt(self, job_id: UUID, executor_id: str) -> Attempt:
        """The executor's newest attempt at the job. Raises Conflict if the executor has not claimed it."""
        try:
            return attempts.newest(self.org_id, job_id, executor_id)
        except NotFound as error:
            raise Conflict(error.message, code=error.code) from None


class ExecutrClaim(_ExecutrCall):
    @described(
        "claim_job",
        "Claim the next job",
        {200: shapes.ExecutrWholeJob, 204: OpenApiResponse(description="There is no job.")},
        request=shapes.ExecutrClaimRequest,
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.fields(shapes.ExecutrClaimRequest)
        claimant = Claimant(fields["executor_id"], fields["executor_ip"], binary_only=True)
        claimed = claiming.claim(self.org_id, claimant, actor=self.actor)
        return Response(self.whole(claimed[0].job.pk)) if claimed else HttpResponse(status=204)


class ExecutrHeartbeat(_ExecutrCall):
    @described("heartbeat", "Extend the lease of a running job", _CHANGED, request=shapes.ExecutrBeatRequest)
    def put(self, request: Request, job_id: str) -> HttpResponseBase:
        fields = self.fields(shapes.ExecutrBeatRequest)
        found = self.job_id(job_id)
        try:
            beat = reporting.heartbeat(self.org_id, self.newest_attempt(found, fields["executor_id"]))
        except Conflict as error:
            raise NotFound(error.message, code=error.code) from None
        if beat.is_canceled:
            raise NotFound("the job is canceled", code="job_canceled")
        return self.changed(found, "running")


class _ExecutrReport(_ExecutrCall):
    max_body_bytes = ReportParser.max_bytes

    def reported(
        self, kind: type[shapes.ExecutrCompleteRequest], job_id: str
    ) -> tuple[dict[str, Any], Attempt, AttemptReport]:
        """The fields of the body, the attempt that they are about, and what it did."""
        fields = self.fields(kind)
        attempt = self.newest_attempt(self.job_id(job_id), fields["executor_id"])
        report = AttemptReport(fields.get("exit_code"), fields.get("stdout") or "", fields.get("stderr") or "")
        return fields, attempt, report


class ExecutrComplete(_ExecutrReport):
    @described("complete_job", "Report a result", _CHANGED, request=shapes.ExecutrCompleteRequest)
    def put(self, request: Request, job_id: str) -> HttpResponseBase:
        _, attempt, report = self.reported(shapes.ExecutrCompleteRequest, job_id)
        reporting.complete(self.org_id, attempt, report, actor=self.actor)
        return self.changed(attempt.job_id, "completed")


class ExecutrFail(_ExecutrReport):
    @described("fail_job", "Report a failure", _CHANGED, request=shapes.ExecutrFailRequest)
    def put(self, request: Request, job_id: str) -> HttpResponseBase:
        fields, attempt, report = self.reported(shapes.ExecutrFailRequest, job_id)
        job = reporting.fail(self.org_id, attempt, report, message=fields["error_message"], actor=self.actor)
        return self.changed(attempt.job_id, shapes.status_of(job.status, is_held=False))


# --- Administration --------------------------------------------------------------------------------------------
class ExecutrStats(_ExecutrResource):
    @described("stats", "Count the organization's jobs", shapes.ExecutrNumbers)
    def get(self, request: Request) -> Response:
        numbers = external_jobs.numbers(external_jobs.with_binary(self.org_id))
        return Response(shapes.stats(numbers, active_executors=known_executors.active(self.org_id).count()))


class ExecutrExecutors(_ExecutrResource):
    @described("executors", "List active executors", shapes.ExecutrActive(many=True))
    def get(self, request: Request) -> Response:
        rows = list(known_executors.active(self.org_id).order_by("executor_id").values(*known_executors.COLUMNS))
        held = known_executors.held_by(self.org_id, [row["executor_id"] for row in rows])
        return Response([shapes.executor(row, held.get(row["executor_id"], ())) for row in rows])


class ExecutrMetrics(_ExecutrResource):
    @described("metrics", "The organization's metrics, for Prometheus", {(200, "text/plain"): str})
    def get(self, request: Request) -> HttpResponse:
        numbers = external_jobs.numbers(external_jobs.with_binary(self.org_id))
        page = shapes.metrics(numbers, active_executors=known_executors.active(self.org_id).count())
        return HttpResponse(page, content_type="text/plain; version=0.0.4; charset=utf-8")


class ExecutrHealth(OpenResource):
    @described("health", "Whether the database answers", {200: shapes.ExecutrState, 503: shapes.ExecutrState})
    def get(self, request: Request) -> Response:
        try:
            service_state.answers()
        except (DatabaseError, InterfaceError) as error:
            log.error("executr metrics: database unavailable: %s", str(error).strip())
            told = {"status": "unhealthy", "database": "disconnected", "error": "the database does not answer"}
            return Response(told, status=503, headers={"Retry-After": str(errors.RETRY_AFTER_SECONDS)})
        return Response({"status": "healthy", "database": "connected"})
