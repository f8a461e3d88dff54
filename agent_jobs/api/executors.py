"""Executors: `/services/executors`. Outside programs claim jobs here, send heartbeats, and report how attempts ended.

A claim shows the secrets of its jobs, so these calls need the scope EXECUTE. The ordinary rate limits do not apply to
them: a refused report would lose a result.
"""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api import executor_shapes as shapes
from agent_jobs.api import paging, streams
from agent_jobs.api.base import HAS_WAITED, Resource, read_job_id
from agent_jobs.api.docs import operation
from agent_jobs.api.formatting import shown
from agent_jobs.api.parsing import ReportParser
from agent_jobs.executors import claiming, known_executors, reporting
from agent_jobs.executors.attempts import Attempt
from agent_jobs.executors.claiming import Claimant
from agent_jobs.executors.reporting import AttemptReport, Progress
from agent_jobs.reads.queries import Row

SORTING = paging.Sorting(
    "executors",
    {"last_seen_at": "last_seen_at", "executor_id": "executor_id", "first_seen_at": "first_seen_at"},
    default="last_seen_at:desc",
)


class Executors(Resource):
    @operation(
        "executors_list",
        "List executors",
        answers={200: shapes.ExecutorPage},
        sorting=SORTING,
        description="The programs that have asked for jobs of the organization within a week, and what they hold.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=SORTING)

        def answers(rows: list[Row]) -> list[dict[str, Any]]:
            names = [row["executor_id"] for row in rows]
            held = known_executors.held_by(self.org_id, names)
            active = known_executors.active_among(self.org_id, names)
            return [
                shapes.executor_answer(row, held.get(name, []), is_active=name in active)
                for name, row in zip(names, rows, strict=True)
            ]

        return self.listed(asked, known_executors.rows(self.org_id), known_executors.COLUMNS, answers)


class _ExecutorCall(Resource):
    level = scopes.Level.EXECUTE
    throttle_classes = ()

    def attempt(self, fields: Mapping[str, Any], job_id: str) -> Attempt:
        return Attempt(read_job_id(job_id), fields["executor_id"], fields["lease_token"])

    def reported(self, job: Any) -> Response:
        more = {"job_id": job.pk, "job_status": job.status, "next_attempt_at": job.wake_at}
        return Response({"data": shown(shapes.ReportedJobSerializer, more), "meta": self.meta(job.pk)})


class ExecutorClaims(_ExecutorCall):
    @operation(
        "executors_claim",
        "Claim jobs",
        answers={200: shapes.Claimed, 204: OpenApiResponse(description="There is no job for this executor.")},
        refused=(409,),
        request=shapes.ClaimRequest,
        has_key=False,
        description="Takes the first ready jobs that the executor fits, and starts them under a lease. With `wait`, the"
        " request waits for a job. An Idempotency-Key has no effect here.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=shapes.ClaimRequest).body
        claimant = Claimant(
            executor_id=fields["executor_id"],
            address=fields.get("address", ""),
            labels=tuple(fields.get("labels", ())),
            types=tuple(fields.get("job_types", ())),
            binary_only=fields.get("binary_only", False),
        )
        claimed = claiming.claim(self.org_id, claimant, actor=self.actor, most=fields.get("max_jobs", 1))
        if not claimed:
            seconds = 0 if HAS_WAITED in request.META else fields.get("wait", 0)
            if not seconds:
                return HttpResponse(status=204)
            return streams.OpenResponse(streams.ClaimWait(**self.owner, claimant=claimant, seconds=seconds))
        meta = {"org_id": self.org_id, "executor_id": claimant.executor_id, "count": len(claimed)}
        return Response({"data": [shapes.claimed_answer(one) for one in claimed], "meta": meta})


class ExecutorHeartbeat(_ExecutorCall):
    @operation(
        "executors_heartbeat",
        "Extend a lease",
        answers={200: shapes.HeartbeatItem},
        refused=(409,),
        request=shapes.HeartbeatRequest,
        description="Extends the lease and keeps the progress. 409 `lease_lost`: another executor may have the job.",
    )
    def put(self, request: Request, job_id: str) -> Response:
        fields = self.asked(body=shapes.HeartbeatRequest).body
        attempt = self.attempt(fields, job_id)
        progress = Progress(fields.get("progress_percent"), fields.get("progress_message"))
        beat = reporting.heartbeat(self.org_id, attempt, progress)
        answer = {"job_id": str(attempt.job_id), "is_canceled": beat.is_canceled, "lease_seconds": beat.lease_seconds}
        return Response({"data": answer, "meta": self.meta(attempt.job_id)})


class _ExecutorReport(_ExecutorCall):
    parser_classes = (ReportParser,)
    max_body_bytes = ReportParser.max_bytes

    def report(self, fields: Mapping[str, Any]) -> AttemptReport:
        known = ("exit_code", "stdout", "stderr", "result", "result_data")
        return AttemptReport(**{name: fields[name] for name in known if name in fields})


class ExecutorComplete(_ExecutorReport):
    @operation(
        "executors_complete",
        "Report a result",
        answers={200: shapes.ReportedItem},
        refused=(409,),
        request=shapes.CompleteRequest,
        description="Ends the job COMPLETED, whatever the exit code. The body may have 16 MiB. A repeated report gets"
        " 409 `already_reported`.",
    )
    def put(self, request: Request, job_id: str) -> Response:
        fields = self.asked(body=shapes.CompleteRequest).body
        attempt = self.attempt(fields, job_id)
        return self.reported(reporting.complete(self.org_id, attempt, self.report(fields), actor=self.actor))


class ExecutorFail(_ExecutorReport):
    @operation(
        "executors_fail",
        "Report a failure",
        answers={200: shapes.ReportedItem},
        refused=(409,),
        request=shapes.FailRequest,
        description="Ends the attempt. The job's `retry_policy` or `max_task_retries` decides whether another follows."
        " The body may have 16 MiB.",
    )
    def put(self, request: Request, job_id: str) -> Response:
        fields = self.asked(body=shapes.FailRequest, check=shapes.fail_problems).body
        attempt = self.attempt(fields, job_id)
        job = reporting.fail(
            self.org_id,
            attempt,
            self.report(fields),
            message=fields["error_message"],
            code=fields.get("error_code", reporting.DEFAULT_CODE),
            is_retryable=fields.get("is_retryable", True),
            actor=self.actor,
        )
        return self.reported(job)


class ExecutorRelease(_ExecutorCall):
    @operation(
        "executors_release",
        "Give a job back",
        answers={200: shapes.ReportedItem},
        refused=(409,),
        request=shapes.ReleaseRequest,
        description="Puts the job back into the queue. This counts neither as a failure nor as a lost executor.",
    )
    def put(self, request: Request, job_id: str) -> Response:
        fields = self.asked(body=shapes.ReleaseRequest).body
        attempt = self.attempt(fields, job_id)
        return self.reported(reporting.release(self.org_id, attempt, reason=fields.get("reason", ""), actor=self.actor))
