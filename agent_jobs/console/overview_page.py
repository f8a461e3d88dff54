"""The console's first page: leads to the jobs."""

from django.http import HttpResponse

from agent_jobs.console import visits
from agent_jobs.console.visits import Visit


@visits.page
def overview(visit: Visit) -> HttpResponse:
    return visit.go(visit.url("jobs"))
