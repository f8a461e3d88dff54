"""Turns announcements into deliveries for endpoints, and into a message for the job's outcome channel.

An announcement that nobody wants any more is deleted. The organisations take turns, so that one with many announcements
does not delay another's. Any number of processes may expand at once. The rows are read and
the texts are worded before the locks are taken; a second process that did the same finds nothing left to write.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from agent_jobs.errors import RetryableError
from agent_jobs.models import Activity, Announcement, Job, Org, WebhookDelivery, WebhookEndpoint
from agent_jobs.reads import queries
from agent_jobs.states import TERMINAL
from agent_jobs.webhooks import endpoints, outcome_messages
from agent_jobs.webhooks.event_types import JOB_EVENTS
from infra import raw_sql
from infra.quarantine import Quarantine

BATCH = 100
# Texts of tenants may take a quarter of a second each. An organisation's further ones wait for the next call.
_TEXT_SECONDS = 0.5
# Every organisation's first one comes before anybody's second one.
_NEXT = """
WITH RECURSIVE orgs AS (
    (SELECT org_id FROM agent_jobs_announcement WHERE expanded_at IS NULL ORDER BY org_id LIMIT 1)
    UNION ALL
    SELECT (SELECT a.org_id FROM agent_jobs_announcement a
        WHERE a.expanded_at IS NULL AND a.org_id > o.org_id ORDER BY a.org_id LIMIT 1)
    FROM orgs o WHERE o.org_id IS NOT NULL
)
SELECT a.id FROM orgs o CROSS JOIN LATERAL (
    SELECT id, row_number() OVER (ORDER BY id) AS place FROM (
        SELECT id FROM agent_jobs_announcement
        WHERE expanded_at IS NULL AND org_id = o.org_id AND id <> ALL (%(without)s::uuid[])
        ORDER BY id LIMIT %(batch)s) first
) a
ORDER BY a.place, a.id LIMIT %(batch)s
"""
log = logging.getLogger(__name__)
_failed: Quarantine[UUID] = Quarantine("webhooks")


class JobForm(Protocol):
    """A function that returns jobs in JSON form, as the API shows them."""

    def __call__(self, rows: Sequence[queries.Row]) -> list[dict[str, Any]]: ...


_job_forms: list[JobForm] = []


def register_job_form(form: JobForm) -> None:
    """Set the function that shows jobs as the API does; the API, a higher layer, calls this once per process."""
    _job_forms[:] = [form]


@dataclass(frozen=True, slots=True)
class _Told:
    """An announcement, expanded. `payload` is None if there is nothing to tell: its job is gone."""

    payload: Any = None
    endpoints: tuple[UUID, ...] = ()
    outcome: tuple[Job, str] | None = None


def expand_some(*, batch: int = BATCH) -> int:
    """Expand up to `batch` announcements. Returns how many."""
    ids = [row[0] for row in raw_sql.all_rows(_NEXT, {"batch": batch, "without": _failed.rows()})]
    if not ids:
        return 0
    return sum(_failed.batch(lambda: _expand(ids), rows=lambda: ids, one=lambda found: _expand([found])))


def _new() -> "QuerySet[Announcement]":
    return Announcement.objects.filter(expanded_at=None)


def _expand(ids: Collection[UUID]) -> int:
    told = _told(list(_new().filter(pk__in=ids).order_by("pk")))
    with transaction.atomic():
        locked = list(_new().select_for_update(skip_locked=True).filter(pk__in=told).order_by("pk"))
        deliveries = []
        for announcement in locked:
            what = told[announcement.pk]
            if what.outcome:
                outcome_messages.send(*what.outcome, message_id=announcement.pk)
            deliveries += [
                WebhookDelivery(
                    org_id=announcement.org_id,
                    endpoint_id=endpoint_id,
                    announcement=announcement,
                    event=announcement.event,
                )
                for endpoint_id in what.endpoints
            ]
            if what.endpoints:
                announcement.payload, announcement.expanded_at = what.payload, Now()
            else:
                announcement.delete()
        kept = [announcement for announcement in locked if announcement.expanded_at]
        Announcement.objects.bulk_update(kept, ["payload", "expanded_at"])
        # Skips endpoints that were deleted meanwhile.
        wanted = {delivery.endpoint_id for delivery in deliveries}
        rows = WebhookEndpoint.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk")
        living = {endpoint.pk: endpoint for endpoint in rows}
        WebhookDelivery.objects.bulk_create([one for one in deliveries if one.endpoint_id in living])
        for endpoint in living.values():
            endpoints.disable_overfull(endpoint)
    return len(locked)


def _told(found: Sequence[Announcement]) -> Mapping[UUID, _Told]:
    """The products of each announcement. One that has to wait for its text is left out."""
    by_org: dict[str, list[Announcement]] = defaultdict(list)
    for announcement in found:
        by_org[announcement.org_id].append(announcement)
    open_orgs = set(Org.objects.filter(pk__in=by_org, closed_at=None).values_list("pk", flat=True))
    told: dict[UUID, _Told] = {}
    for org_id, announcements in by_org.items():
        is_open = org_id in open_orgs
        told |= (
            _told_of_org(org_id, announcements) if is_open else dict.fromkeys((a.pk for a in announcements), _Told())
        )
    return told


def _told_of_org(org_id: str, announcements: Sequence[Announcement]) -> dict[UUID, _Told]:
    enabled = list(WebhookEndpoint.objects.filter(org_id=org_id, enabled=True).order_by("pk"))
    ids = {UUID(one.subject_id) for one in announcements if one.event in JOB_EVENTS}
    shown = _jobs(org_id, ids)
    wants_activity = [one for one in announcements if one.has_outcome_channel or one.event == "job.message"]
    activities = Activity.objects.filter(
        org_id=org_id, pk__in=[one.activity_id for one in wants_activity if one.activity_id]
    ).in_bulk()
    ended = [UUID(one.subject_id) for one in announcements if one.has_outcome_channel]
    jobs = Job.objects.filter(org_id=org_id, pk__in=ended).in_bulk() if ended else {}
    told = {}
    until = time.monotonic() + _TEXT_SECONDS
    for one in announcements:
        activity = activities.get(one.activity_id) if one.activity_id else None
        payload = one.payload if one.event not in JOB_EVENTS else shown.get(one.subject_id)
        if payload is None:
            told[one.pk] = _Told()
            continue
        if activity and one.event == "job.message":
            text = (activity.output or {}).get("text", "")
            payload = {**payload, "message": {"id": str(activity.pk), "text": text}}
        try:
            ended_job = jobs.get(UUID(one.subject_id)) if one.has_outcome_channel else None
            outcome = _outcome(ended_job, activity, until=until) if ended_job else None
        except RetryableError as error:
            log.debug("job %s: the message about its end is delayed: %s", one.subject_id, error.message)
            continue
        wanted = tuple(endpoint.pk for endpoint in enabled if one.event in endpoint.event_types)
        told[one.pk] = _Told(payload, wanted, outcome)
    return told


def _outcome(job: Job, activity: Activity | None, *, until: float) -> tuple[Job, str] | None:
    """The ended job with the text about its end; None if it has none, or if the job was retried since.

    Raises RetryableError where the text has to wait for the next round.
    """
    is_of_this_life = activity is not None and job.retry_count == activity.life
    if not is_of_this_life or not job.outcome_channel or job.status not in TERMINAL:
        return None
    if time.monotonic() > until:
        raise RetryableError("no time is left in this round to word the text", code="busy")
    return job, outcome_messages.text_of(job)


def _jobs(org_id: str, ids: Collection[UUID]) -> Mapping[str, dict[str, Any]]:
    """The jobs as the API's lists show them, by id."""
    rows = list(queries.jobs(org_id).filter(pk__in=ids).values(*queries.JOB_COLUMNS)) if ids else []
    return {shown["id"]: shown for shown in _job_forms[0](rows)} if rows else {}
