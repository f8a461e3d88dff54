"""The past and future of a schedule: previews, jobs, firings and versions."""

from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import job_json, jobs, paging, parsing, schedule_shapes
from agent_jobs.api.base import each
from agent_jobs.api.docs import operation
from agent_jobs.api.filters import FiringFilters, JobFilters
from agent_jobs.api.job_docs import JobPage
from agent_jobs.api.schedule_resource import ScheduleResource, previewed, version_number
from agent_jobs.api.schedule_shapes import (
    MOST_PREVIEWED,
    FiringPage,
    NewPreview,
    PreviewItem,
    PreviewRequest,
    VersionItem,
    VersionPage,
)
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import queries, schedule_rows
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing
from infra import database

FIRING_SORTING = paging.Sorting("firings", {"fire_at": "fire_at"}, default="fire_at:desc")
VERSION_SORTING = paging.Sorting("versions", {"number": "number"}, default="number:desc", key="number")
NEXT_QUERY = {"count": parsing.whole(1, MOST_PREVIEWED, default=10, about="How many firings to show.")}


class NextFirings(ScheduleResource):
    @operation("schedules_next", "Preview firings", answers={200: PreviewItem}, query=NEXT_QUERY)
    def get(self, request: Request, schedule_id: str) -> Response:
        asked = self.asked(query=NEXT_QUERY)
        row = schedule_rows.schedule(self.org_id, self.read_id(schedule_id))
        found = [] if row["is_paused"] else previewed(row, asked.query["count"])
        describes = definitions.timing(row["definition"], anchor=row["created_at"]).rule.describe()
        return Response({"data": {"describes": describes, "next_runs": found}, "meta": self.meta(row["id"])})


class PreviewSchedule(ScheduleResource):
    @operation(
        "schedules_preview",
        "Preview the firings of a timing that is not stored",
        answers={200: NewPreview},
        request=PreviewRequest,
        has_key=False,
        description="Takes the timing of a schedule, and answers with its next firings, or with a 400 that says why"
        " there are none.",
    )
    def post(self, request: Request) -> Response:
        fields = dict(self.asked(body=PreviewRequest).body)
        count, now = fields.pop("count", 10), database.now()
        after = fields.pop("after", now)
        definition = definitions.completed(fields)
        if errors := definitions.problems(definition, now=now):
            raise Invalid(*errors)
        found = schedule_shapes.previewed(definition, anchor=now, after=after, count=count, key="")
        if not found:
            raise Invalid(FieldError(definitions.stated_timing(definition), "invalid_schedule", "never fires"))
        describes = definitions.timing(definition, anchor=now).rule.describe()
        return Response({"data": {"describes": describes, "next_runs": found}})


class ScheduleJobs(ScheduleResource):
    @operation(
        "schedules_jobs",
        "List the jobs of a schedule",
        answers={200: JobPage},
        sorting=jobs.SORTING,
        filtered=JobFilters,
    )
    def get(self, request: Request, schedule_id: str) -> Response:
        found = schedule_rows.schedule(self.org_id, self.read_id(schedule_id))
        rows = schedule_rows.jobs(self.org_id, found["id"])
        asked = self.asked(sorting=jobs.SORTING, rows=rows, filtered=JobFilters)
        rows = jobs.sortable(asked.rows, asked.page.window)
        return self.listed(asked, rows, queries.JOB_COLUMNS, job_json.of, more_bytes=queries.MORE_JOB_BYTES)


class ScheduleFirings(ScheduleResource):
    @operation(
        "schedules_firings",
        "List the firings of a schedule",
        answers={200: FiringPage},
        sorting=FIRING_SORTING,
        filtered=FiringFilters,
        description="Every time at which it was due, with what became of it, and the runs by hand.",
    )
    def get(self, request: Request, schedule_id: str) -> Response:
        found = schedule_rows.schedule(self.org_id, self.read_id(schedule_id))
        rows = schedule_rows.firings(self.org_id, found["id"])
        asked = self.asked(sorting=FIRING_SORTING, rows=rows, filtered=FiringFilters)
        return self.listed(asked, asked.rows, schedule_rows.FIRING_COLUMNS, each(schedule_shapes.firing))


class ScheduleVersions(ScheduleResource):
    @operation(
        "schedules_versions",
        "List the versions of a schedule",
        answers={200: VersionPage},
        sorting=VERSION_SORTING,
    )
    def get(self, request: Request, schedule_id: str) -> Response:
        found = schedule_rows.schedule(self.org_id, self.read_id(schedule_id))
        asked = self.asked(sorting=VERSION_SORTING)
        versions = schedule_rows.versions(self.org_id, found["id"])
        return self.listed(asked, versions, schedule_rows.VERSION_COLUMNS, each(schedule_shapes.version))


class ScheduleVersionDetail(ScheduleResource):
    @operation("schedules_version", "Get a version of a schedule", answers={200: VersionItem})
    def get(self, request: Request, schedule_id: str, number: str) -> Response:
        self.asked()
        found = schedule_rows.schedule(self.org_id, self.read_id(schedule_id))
        rows = schedule_rows.versions(self.org_id, found["id"]).filter(number=version_number(number))
        row = rows.values(*schedule_rows.VERSION_COLUMNS).first()
        if row is None:
            raise editing.version_not_found(number)
        return Response({"data": schedule_shapes.version(row), "meta": self.meta(found["id"])})
