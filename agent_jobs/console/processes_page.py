"""The processes behind the service: workers, the duties that beat rings for, queues, and executors."""

from datetime import timedelta

from django.http import HttpResponse

from agent_jobs.console import overview_page, visits
from agent_jobs.console.visits import Visit
from agent_jobs.executors import known_executors
from agent_jobs.reads import overview

_MOST = 200


@visits.page
def processes(visit: Visit) -> HttpResponse:
    alive = overview.alive(visit.org_id)
    columns = ("executor_id", "address", "labels", "job_types", "last_seen_at", "jobs_done", "jobs_failed")
    executors = list(known_executors.rows(visit.org_id).order_by("-last_seen_at").values(*columns)[:_MOST])
    held = known_executors.held_by(visit.org_id, [row["executor_id"] for row in executors]) if executors else {}
    context = {
        "workers": overview_page.workers(visit, alive),
        "queues": [(overview_page.queue_name(each.lane), each) for each in alive.queues],
        "duties": list(alive.duties.items()),
        "executors": [
            {
                **row,
                "is_alive": visit.now - row["last_seen_at"] < timedelta(seconds=known_executors.ACTIVE_SECONDS),
                "held": len(held.get(row["executor_id"], ())),
            }
            for row in executors
        ],
    }
    return visit.render("processes.html", context, here="processes")
