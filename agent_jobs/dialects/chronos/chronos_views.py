"""Chronos' sixteen operations."""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from django.http import HttpResponseBase
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import streams
from agent_jobs.api.base import HAS_WAITED
from agent_jobs.dialects.base import OpenResource, checked, instant, instant_or_none, read_id
from agent_jobs.dialects.chronos import chronos_json as shapes
from agent_jobs.dialects.documentation import Documentation
from agent_jobs.dialects.lenient_fields import lenient_whole
from agent_jobs.dialects.schedule_views import ScheduleViews
from agent_jobs.errors import AgentJobsError, FieldError, Forbidden, Invalid, NotFound, QuotaReached, RetryableError
from agent_jobs.jobs import repeats
from agent_jobs.reads import executions, pages, schedule_rows, service_state
from agent_jobs.reads.pages import OLDEST_FIRST, Order, Window
from agent_jobs.reads.schedule_rows import Row
from agent_jobs.schedules import editing, requested_runs
from agent_jobs.states import TERMINAL
from infra import database

# Its command line gives up after 30 s.
TRIGGER_SECONDS = 25.0
BEAT_SECONDS = 15
_MOST_NEXT = 10
_MOST_LISTED = 20_000
# Its clients know no pages: so much is shown at once.
_MOST_LISTED_BYTES = 8 * 1024 * 1024
described = Documentation("Chronos", shapes.ChronosRefusal)
_SHOWN = shapes.ChronosAnswer


class ExecutionImpossible(APIException):
    """The documented 500 for a run that could not even be recorded."""

    status_code = 500
    default_code = "execution_error"


def answered(data: Any, *, status: int = 200) -> Response:
    return Response({"success": True, "data": data, "error": None}, status=status)


class ChronosResource(ScheduleViews):
    runner, job_type, job_type_name = "webhook", "chronos-webhook", "Chronos webhook"

    def job(self, schedule_id: UUID, *, status: int = 200) -> Response:
        return answered(shapes.job(self.row(str(schedule_id))), status=status)

    def request_fields(self) -> dict[str, Any]:
        """The fields of a request for a job. Chronos' own example files write `concurrency_policy`, so that is accepted
        too.
        """
        body = self.object()
        if "concurrency_policy" in body:
            body = {"concurrency": body["concurrency_policy"], **body}
        return checked(shapes.ChronosJobRequest, body)

    def shown(self, schedule: Row, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """These rows as executions: jobs, and firings that made no job."""
        jobs = [row for row in rows if "status" in row]
        shown = {one[0]["id"]: shapes.execution(*one, schedule) for one in self.with_attempts(jobs)}
        return [shown[row["id"]] if "status" in row else shapes.silent_execution(row, schedule) for row in rows]

    def execution(self, schedule: Row, execution_id: str) -> Row:
        """The job, or the firing without a job. Raises NotFound."""
        found = read_id(execution_id)
        row = executions.execution(self.org_id, schedule["id"], found) if found else None
        if row is None:
            said = f"there is no execution {execution_id[:64]!r}"
            raise NotFound(said, code="execution_not_found", denied=("job", execution_id[:64]))
        return row

    def version_number(self, text: str) -> int:
        if not re.fullmatch("-?[0-9]+", text):
            raise Invalid(FieldError("version", "invalid", "must be a whole number"))
        number = int(text) if len(text) < 10 else 0
        return max(number, 0)


class ChronosHealth(OpenResource):
    @described("health", "Health check", _SHOWN, refused=(503,))
    def get(self, request: Request) -> Response:
        return answered({"status": "healthy", "timestamp": instant(database.now())})


JOBS_QUERY = {"limit": lenient_whole(None, _MOST_LISTED), "offset": lenient_whole(0, 2**31 - 1)}
EXECUTIONS_QUERY = {"limit": lenient_whole(20, 100)}


class ChronosJobs(ChronosResource):
    @described("jobs_list", "List jobs", _SHOWN, query=JOBS_QUERY)
    def get(self, request: Request) -> Response:
        query = self.query(JOBS_QUERY)
        found = schedule_rows.with_runner(schedule_rows.schedules(self.org_id), self.runner)
        window = Window(OLDEST_FIRST, query["limit"] or _MOST_LISTED, query["offset"])
        rows, has_more = pages.page(found, window, schedule_rows.COLUMNS, most_bytes=_MOST_LISTED_BYTES)
        response = answered({"jobs": [shapes.job(row) for row in rows], "total": found.count()})
        return self.with_rest(response, window.offset + len(rows)) if has_more else response

    @described("jobs_create", "Create a job", {201: shapes.ChronosAnswer}, request=shapes.ChronosJobRequest)
    def post(self, request: Request) -> Response:
        fields = self.request_fields()
        made = self.create(shapes.new(self.job_type, fields), is_paused=not fields.get("enabled"))
        return self.job(made, status=201)


class ChronosJob(ChronosResource):
    @described("jobs_retrieve", "Get a job", _SHOWN)
    def get(self, request: Request, job_id: str) -> Response:
        return answered(shapes.job(self.row(job_id)))

    @described("jobs_update", "Update a job", _SHOWN, request=shapes.ChronosJobRequest)
    def put(self, request: Request, job_id: str) -> Response:
        found, fields = self.row(job_id)["id"], self.request_fields()
        enabled = fields.get("enabled")
        editing.rewrite(
            self.org_id,
            found,
            lambda before: shapes.rewritten(before, fields),
            actor=self.actor,
            is_paused=None if enabled is None else not enabled,
        )
        return self.job(found)

    @described("jobs_delete", "Delete a job and its executions", _SHOWN)
    def delete(self, request: Request, job_id: str) -> Response:
        removed = editing.delete(self.org_id, self.row(job_id)["id"], actor=self.actor, cancels_jobs=True)
        return answered({"id": str(removed.pk)})


class TriggerChronosJob(ChronosResource):
    @described("jobs_trigger", "Trigger a job", _SHOWN, refused=(401, 403, 404, 429, 500, 503))
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        """Waits for the end without holding a thread. The request then runs again, and shows the execution."""
        schedule, waited = self.row(job_id), request.META.get(HAS_WAITED)
        if waited is not None:
            return self._shown(schedule, waited.job_id)
        made = self._run(schedule)
        if made.job_id is None:
            firing = executions.silent_firing(self.org_id, schedule["id"], made.fire_at)
            return answered(shapes.silent_execution(firing, schedule))
        try:
            wait = streams.Wait(**self.owner, job_id=made.job_id, seen=None, seconds=TRIGGER_SECONDS)
        except streams.TooManyStreams:  # a refusal would hide that the execution was made
            return self._shown(schedule, made.job_id)
        return streams.OpenResponse(wait)

    def _shown(self, schedule: Row, made_id: UUID) -> Response:
        (shown,) = self.shown(schedule, [self.execution(schedule, str(made_id))])
        return answered({**shown, "status": "running"} if shown["status"] == "pending" else shown)

    def _run(self, schedule: schedule_rows.Row) -> Any:
        try:
            return requested_runs.run_now(self.org_id, schedule["id"], actor=self.actor, overlap=None)
        except (Forbidden, QuotaReached, RetryableError):
            raise
        except AgentJobsError as error:
            if isinstance(error, NotFound) and error.code == "schedule_not_found":
                raise
            raise ExecutionImpossible(f"the job cannot be executed: {error.message}") from error


class EnableChronosJob(ChronosResource):
    @described("jobs_enable", "Enable a job", _SHOWN)
    def post(self, request: Request, job_id: str) -> Response:
        return self.job(editing.resume(self.org_id, self.row(job_id)["id"], actor=self.actor).pk)


class DisableChronosJob(ChronosResource):
    @described("jobs_disable", "Disable a job", _SHOWN)
    def post(self, request: Request, job_id: str) -> Response:
        return self.job(editing.pause(self.org_id, self.row(job_id)["id"], actor=self.actor).pk)


class ChronosExecutions(ChronosResource):
    @described("executions_list", "List executions", _SHOWN, query=EXECUTIONS_QUERY)
    def get(self, request: Request, job_id: str) -> Response:
        schedule, limit = self.row(job_id), self.query(EXECUTIONS_QUERY)["limit"]
        rows, total = executions.newest(self.org_id, schedule["id"], limit)
        return answered({"executions": self.shown(schedule, rows), "total": total})


class ChronosExecution(ChronosResource):
    @described("executions_retrieve", "Get an execution", _SHOWN)
    def get(self, request: Request, job_id: str, execution_id: str) -> Response:
        schedule = self.row(job_id)
        return answered(self.shown(schedule, [self.execution(schedule, execution_id)])[0])


class ReplayChronosExecution(ChronosResource):
    @described("executions_replay", "Replay an execution", _SHOWN)
    def post(self, request: Request, job_id: str, execution_id: str) -> Response:
        """Sends the recorded request of that execution again, as a new execution."""
        row = self.execution(self.row(job_id), execution_id)
        if row.get("status") not in TERMINAL:
            raise Invalid(FieldError("execution", "invalid", "has no ended request that could be replayed"))
        changes = repeats.Changes(id=uuid4(), is_of_schedule=True)
        made = repeats.replay(self.org_id, row["id"], changes, actor=self.actor, token_pk=self.token.pk)
        return answered(
            {
                "replay_execution_id": f"exec-{made.pk}",
                "original_execution_id": f"exec-{row['id']}",
                "message": "Execution replay triggered",
            }
        )


class ChronosVersions(ChronosResource):
    @described("versions_list", "List job versions", _SHOWN)
    def get(self, request: Request, job_id: str) -> Response:
        schedule = self.row(job_id)
        found = schedule_rows.versions(self.org_id, schedule["id"])
        window = Window((Order("number", is_descending=True),), _MOST_LISTED)
        rows, _ = pages.page(found, window, schedule_rows.VERSION_COLUMNS, most_bytes=_MOST_LISTED_BYTES)
        return answered([shapes.version(row, schedule) for row in rows])


class ChronosVersion(ChronosResource):
    @described("versions_retrieve", "Get a job version", _SHOWN)
    def get(self, request: Request, job_id: str, number: str) -> Response:
        schedule, wanted = self.row(job_id), self.version_number(number)
        rows = schedule_rows.versions(self.org_id, schedule["id"]).filter(number=wanted)
        row = rows.values(*schedule_rows.VERSION_COLUMNS).first()
        if row is None:
            raise editing.version_not_found(number)
        return answered(shapes.version(row, schedule))


class RollBackChronosJob(ChronosResource):
    @described("jobs_rollback", "Roll a job back to a version", _SHOWN)
    def post(self, request: Request, job_id: str, number: str) -> Response:
        found, wanted = self.row(job_id)["id"], self.version_number(number)
        made = editing.roll_back(self.org_id, found, wanted, actor=self.actor)
        job = shapes.job(self.row(str(found)))
        return answered({"job": job, "rolled_back_from": wanted, "new_version": made.version})


class ChronosCluster(ChronosResource):
    @described("cluster_status", "Cluster status", _SHOWN)
    def get(self, request: Request) -> Response:
        found = schedule_rows.with_runner(schedule_rows.schedules(self.org_id), self.runner)
        due = found.filter(next_at__isnull=False).order_by("next_at", "id").values_list("id", "next_at")[:_MOST_NEXT]
        return answered(
            {
                "is_leader": service_state.work_lately(within_seconds=BEAT_SECONDS).is_rung,
                "jobs_total": found.count(),
                "running": executions.running(self.org_id, self.runner),
                "next_runs": [{"job_id": str(job_id), "next_run": instant_or_none(at)} for job_id, at in due],
            }
        )
