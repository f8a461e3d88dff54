"""The executors of an organisation: registered by their claims, seen by each call, and the jobs that they hold."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from agent_jobs.lifecycle.executor_claims import Claimant
from agent_jobs.models import Executor, Job
from agent_jobs.tenants import row_limits

MOST_EXECUTORS = 10_000
# An executor that was not seen for longer is shown as gone.
ACTIVE_SECONDS = 60

COLUMNS = (
    *("id", "org_id", "executor_id", "address", "labels", "job_types"),
    *("first_seen_at", "last_seen_at", "jobs_done", "jobs_failed"),
)


def note_claim(org_id: str, claimant: Claimant) -> None:
    """Note that the executor asks for jobs; the first time, register it. Raises Conflict (`too_many_executors`)."""
    known = {"address": claimant.address, "labels": list(claimant.labels), "job_types": list(claimant.types)}
    mine = Executor.objects.filter(org_id=org_id, executor_id=claimant.executor_id)
    if mine.update(**known, last_seen_at=Now()):
        return
    try:
        with transaction.atomic():
            row_limits.require(
                org_id,
                Executor.objects.filter(org_id=org_id),
                MOST_EXECUTORS,
                what="executors",
                code="too_many_executors",
            )
            Executor.objects.create(org_id=org_id, executor_id=claimant.executor_id, **known)
    except IntegrityError:  # a concurrent claim of the same executor was first
        mine.update(**known, last_seen_at=Now())


def note_seen(org_id: str, executor_id: str, *, done: int = 0, failed: int = 0) -> None:
    """Note a sign of life, and the attempts that just ended."""
    counts = {"jobs_done": F("jobs_done") + done, "jobs_failed": F("jobs_failed") + failed}
    Executor.objects.filter(org_id=org_id, executor_id=executor_id).update(last_seen_at=Now(), **counts)


def rows(org_id: str) -> QuerySet[Executor]:
    return Executor.objects.filter(org_id=org_id)


def active(org_id: str) -> QuerySet[Executor]:
    """The executors that were seen within ACTIVE_SECONDS, by the database's clock."""
    return rows(org_id).filter(last_seen_at__gte=Now() - timedelta(seconds=ACTIVE_SECONDS))


def active_among(org_id: str, executor_ids: Collection[str]) -> set[str]:
    """The names of the active ones among these executors."""
    seen = active(org_id).filter(executor_id__in=executor_ids)
    return set(seen.values_list("executor_id", flat=True))


def held_by(org_id: str, executor_ids: Collection[str]) -> Mapping[str, list[Mapping[str, Any]]]:
    """The jobs that each of these executors holds, newest claim first."""
    held: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    columns = ("id", "job_type_key", "placement", "executor_id", "attempt", "started_at", "lease_until")
    progress = ("progress_percent", "progress_message", "progress_at")
    leased = Job.objects.filter(org_id=org_id, executor_id__in=executor_ids, lease_until__isnull=False)
    for row in leased.exclude(executor_id="").order_by("-started_at", "-id").values(*columns, *progress):
        held[row["executor_id"]].append(row)
    return held
