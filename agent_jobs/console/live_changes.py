"""The event streams that keep pages live: the ids of changed jobs, and the changes of one job."""

from collections.abc import Callable
from uuid import UUID

from django.http import HttpResponse, HttpResponseBase

from agent_jobs.api import sse, streams
from agent_jobs.console import visits
from agent_jobs.console.visits import Visit
from agent_jobs.reads import changed_jobs, queries


@visits.page
def changes(visit: Visit) -> HttpResponseBase:
    try:
        # The browser sends the header when it reconnects by itself; a script that begins anew can only send a query.
        stated = visit.request.headers.get("Last-Event-ID", "") or visit.request.GET.get("last", "")
        since = sse.read_id(stated) if stated else None
    except ValueError:
        since = None
    reader = changed_jobs.ChangesReader(visit.org_id, since)
    return _opened(lambda: streams.OrgChanges(org_id=visit.org_id, user_pk=visit.user_pk, changes=reader))


@visits.page
def job_changes(visit: Visit, job_id: UUID) -> HttpResponseBase:
    wanted = queries.own_job_id(visit.org_id, job_id)
    seen = visit.request.GET.get("seen", "")[:40]
    return _opened(lambda: streams.JobChanges(org_id=visit.org_id, user_pk=visit.user_pk, job_id=wanted, seen=seen))


def _opened(make: Callable[[], streams.OpenAnswer]) -> HttpResponseBase:
    """The stream, or a refusal after which the browser asks again."""
    try:
        return streams.OpenResponse(make())
    except streams.TooManyStreams as refusal:
        answer = HttpResponse(status=refusal.status_code)
        answer["Retry-After"] = str(streams.RETRY_AFTER_SECONDS)
        return answer
