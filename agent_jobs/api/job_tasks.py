"""The attempts of a job: `/services/agent-jobs/{id}/tasks`, and one of them with its report."""

from functools import partial
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each, read_id, read_job_id
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.formatting import shown
from agent_jobs.reads import queries

SORTING = paging.Sorting("tasks", {"number": "number"}, default="number:asc", key="number")
_REPORT_HELP = (
    "What the attempt did, for runners that say so. A webhook: `request`, `response`, `duration_ms`, `error`. A"
    " command: `exit_code`, `signal`, `stdout`, `stderr`, `is_stdout_truncated`, `is_stderr_truncated`,"
    " `duration_ms`, `ended_by`, `message`. Secrets are masked."
)


class JobAttempt(serializers.Serializer[Any]):
    task_id = serializers.CharField()
    org_id = serializers.CharField()
    job_id = serializers.CharField()
    number = serializers.IntegerField(help_text="1, 2, 3 … within the job, over all its lives.")
    status = serializers.CharField(
        help_text="RUNNING, COMPLETED, FAILED or CANCELED; TIMEOUT or RELEASED for an attempt by an executor; WAITED"
        " for a wait for a budget, which is no attempt."
    )
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(required=False, help_text="Missing while it runs.")
    result = serializers.CharField(allow_null=True)


class ReportedJobAttempt(JobAttempt):
    report = serializers.DictField(required=False, help_text=_REPORT_HELP)


def answer(org_id: str, row: queries.Row) -> dict[str, Any]:
    return shown(ReportedJobAttempt, row, task_id=row["id"], org_id=org_id)


class JobTasks(Resource):
    @operation(
        "job_tasks_list",
        "List a job's attempts",
        answers={200: page_of("JobTaskPage", JobAttempt)},
        sorting=SORTING,
        description="Each turn of a worker is one task, the first one first. A wait for a budget is one, too, with the"
        " status WAITED. A single task has its report.",
    )
    def get(self, request: Request, job_id: str) -> Response:
        asked = self.asked(sorting=SORTING)
        job = queries.job(self.org_id, read_job_id(job_id))
        tasks = queries.attempts(self.org_id, job["id"])
        return self.listed(asked, tasks, queries.ATTEMPT_COLUMNS, each(partial(answer, self.org_id)))


class JobTaskDetail(Resource):
    @operation(
        "job_tasks_retrieve",
        "Get an attempt with its report",
        answers={200: item_of("JobTaskItem", ReportedJobAttempt)},
        description="The report shows what a webhook or command job did: request and answer, or exit code and output.",
    )
    def get(self, request: Request, job_id: str, task_id: str) -> Response:
        self.asked()
        job = queries.job(self.org_id, read_job_id(job_id))
        found = queries.attempt(self.org_id, job["id"], read_id(task_id, queries.attempt_not_found))
        return Response({"data": answer(self.org_id, found), "meta": self.meta(found["id"])})
