"""One job."""

from uuid import UUID

from django.http import HttpResponse

from agent_jobs.console import visits
from agent_jobs.console.visits import Visit
from agent_jobs.reads import queries


@visits.page
def job(visit: Visit, job_id: UUID) -> HttpResponse:
    queries.own_job_id(visit.org_id, job_id)
    return visit.go(visit.url("jobs", q=str(job_id)))
