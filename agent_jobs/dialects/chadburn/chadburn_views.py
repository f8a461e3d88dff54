"""Chadburn's nine operations."""

import math
import time
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import parsing
from agent_jobs.dialects.base import instant_or_none
from agent_jobs.dialects.chadburn import chadburn_json as shapes
from agent_jobs.dialects.chadburn.chadburn_json import EXECUTION_STATUS
from agent_jobs.dialects.documentation import Documentation
from agent_jobs.dialects.schedule_views import ScheduleViews
from agent_jobs.reads import executions, pages, schedule_rows
from agent_jobs.reads.pages import OLDEST_FIRST, Window
from agent_jobs.schedules import editing, requested_runs
from agent_jobs.states import JobStatus

_MOST_LISTED = 1_000
_MOST_EXECUTIONS = 100
_WHOLE = 2**31 - 1
described = Documentation("Chadburn", shapes.ChadburnRefusal)


class _ChadburnResource(ScheduleViews):
    runner, job_type, job_type_name = "command", "chadburn-command", "Chadburn command"

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Adds the rate limit in the headers that Chadburn's clients know."""
        response = super().finalize_response(request, response, *args, **kwargs)
        standings = getattr(getattr(request, "_request", request), "rate_standings", ())
        if standings:
            nearest = min(standings, key=lambda one: one.remaining)
            response["X-RateLimit-Limit"] = str(nearest.quota)
            response["X-RateLimit-Remaining"] = str(nearest.remaining)
            response["X-RateLimit-Reset"] = str(math.ceil(time.time() + nearest.reset_seconds))
        return response

    def item(self, schedule_id: UUID, *, status: int = 200) -> Response:
        last_run = next(iter(self.executions(schedule_id, tuple(JobStatus), 0, 1)), None)
        return Response({"data": shapes.job(self.row(str(schedule_id)), last_run)}, status=status)

    def executions(self, schedule_id: UUID, statuses: Any, offset: int, limit: int) -> list[dict[str, Any]]:
        found = executions.jobs(self.org_id, schedule_id, statuses)[offset : offset + limit]
        return [shapes.execution(*known) for known in self.with_attempts(list(found.values(*executions.COLUMNS)))]

    def done(self, message: str, **told: Any) -> Response:
        return Response({"data": {"message": f"Job {message} successfully", **told}})


# --- Views -----------------------------------------------------------------------------------------------------
PAGE = {"offset": parsing.whole(0, _WHOLE, default=0, about="How many to skip.")}
JOBS_QUERY = {
    "limit": parsing.whole(1, _WHOLE, default=100, about=f"At most {_MOST_LISTED:,} are listed."),
    **PAGE,
    "status": parsing.one_of(*schedule_rows.STATUSES),
    "tag": parsing.repeated(parsing.text(about="Jobs with any of the tags, if it is repeated.")),
}
EXECUTIONS_QUERY = {
    "limit": parsing.whole(1, _WHOLE, default=10, about=f"At most {_MOST_EXECUTIONS} are listed."),
    **PAGE,
    "status": parsing.one_of(*dict.fromkeys(EXECUTION_STATUS.values())),
}


class ChadburnJobsView(_ChadburnResource):
    @described("jobs_list", "List jobs", shapes.ChadburnJobs, query=JOBS_QUERY)
    def get(self, request: Request) -> Response:
        query = self.query(JOBS_QUERY)
        window = Window(OLDEST_FIRST, min(query["limit"], _MOST_LISTED), query["offset"])
        found = schedule_rows.with_runner(schedule_rows.schedules(self.org_id), self.runner)
        if query["status"]:
            found = schedule_rows.with_status(found, query["status"])
        if query["tag"]:
            found = schedule_rows.with_any_tag(found, query["tag"])
        rows, has_more = pages.page(found, window, schedule_rows.COLUMNS)
        pagination = {"total": found.count(), "limit": window.limit, "offset": window.offset}
        response = Response({"data": [shapes.listed(row) for row in rows], "pagination": pagination})
        return self.with_rest(response, window.offset + len(rows)) if has_more else response

    @described("jobs_create", "Create a job", {201: shapes.ChadburnItem}, request=shapes.ChadburnJobRequest)
    def post(self, request: Request) -> Response:
        fields = self.fields(shapes.ChadburnJobRequest)
        return self.item(self.create(shapes.new(self.job_type, fields)), status=201)


class ChadburnJobView(_ChadburnResource):
    @described("jobs_retrieve", "Get a job", shapes.ChadburnItem)
    def get(self, request: Request, job_id: str) -> Response:
        return self.item(self.row(job_id)["id"])

    @described("jobs_update", "Update a job", shapes.ChadburnItem, request=shapes.ChadburnJobUpdate)
    def put(self, request: Request, job_id: str) -> Response:
        found, fields = self.row(job_id)["id"], self.fields(shapes.ChadburnJobUpdate)
        is_paused = fields["status"] == "paused" if "status" in fields else None
        editing.rewrite(
            self.org_id,
            found,
            lambda before: shapes.rewritten(before, fields),
            actor=self.actor,
            is_paused=is_paused,
            author_may_redirect=True,
        )
        return self.item(found)

    @described("jobs_delete", "Delete a job", shapes.ChadburnAnswer)
    def delete(self, request: Request, job_id: str) -> Response:
        editing.delete(self.org_id, self.row(job_id)["id"], actor=self.actor, cancels_jobs=True)
        return self.done("deleted")


class RunChadburnJob(_ChadburnResource):
    @described("jobs_run", "Run a job immediately", shapes.ChadburnAnswer)
    def post(self, request: Request, job_id: str) -> Response:
        made = requested_runs.run_now(self.org_id, self.row(job_id)["id"], actor=self.actor)
        return self.done("triggered", execution_id=str(made.job_id))


class PauseChadburnJob(_ChadburnResource):
    @described("jobs_pause", "Pause a job", shapes.ChadburnAnswer)
    def post(self, request: Request, job_id: str) -> Response:
        found = editing.pause(self.org_id, self.row(job_id)["id"], actor=self.actor, unless_completed=True)
        return self.done("paused", id=str(found.pk), status="paused")


class ResumeChadburnJob(_ChadburnResource):
    @described("jobs_resume", "Resume a job", shapes.ChadburnAnswer)
    def post(self, request: Request, job_id: str) -> Response:
        found = editing.resume(self.org_id, self.row(job_id)["id"], actor=self.actor, unless_completed=True)
        status = "active" if found.next_at else "completed"
        return self.done("resumed", id=str(found.pk), status=status, next_run=instant_or_none(found.next_at))


class ChadburnExecutionsView(_ChadburnResource):
    @described("executions_list", "Get job execution history", shapes.ChadburnExecutions, query=EXECUTIONS_QUERY)
    def get(self, request: Request, job_id: str) -> Response:
        found, query = self.row(job_id)["id"], self.query(EXECUTIONS_QUERY)
        limit, offset = min(query["limit"], _MOST_EXECUTIONS), query["offset"]
        statuses = [status for status, word in EXECUTION_STATUS.items() if query["status"] in (None, word)]
        total = executions.jobs(self.org_id, found, statuses).count()
        data = self.executions(found, statuses, offset, limit)
        return Response({"data": data, "pagination": {"total": total, "limit": limit, "offset": offset}})
