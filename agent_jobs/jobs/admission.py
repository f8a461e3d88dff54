"""How many jobs an organisation may have that were not started: SCHEDULED or WAITING."""

import threading
import time
from dataclasses import dataclass

from agent_jobs.errors import QuotaReached
from agent_jobs.models import Job, Org
from agent_jobs.states import JobStatus

# Where the organisation's max_waiting_jobs says nothing else; the benchmarks hold as many.
MAX_WAITING_JOBS = 100_000
REMEMBER_SECONDS = 1.0
RETRY_AFTER_SECONDS = 10


def admit_job(org: Org) -> None:
    """Take a place for one more job. Raises QuotaReached where there is none.

    The rows are counted about once a second in each process, and what it admits itself is added meanwhile: counting up
    to 100,000 of them for every POST would cost more than the POST. So the cap may be overshot by what the other web
    processes admit within a second, and a place that has become free, or that a POST which failed had taken, is seen a
    second later. Two in one process never share a place.
    """
    cap = MAX_WAITING_JOBS if org.max_waiting_jobs is None else org.max_waiting_jobs
    if not _has_place(org.pk, cap):
        raise QuotaReached(
            f"the organization has {cap} jobs that were not started, and may have no more (max_waiting_jobs)",
            code="too_many_waiting_jobs",
            retry_after=RETRY_AFTER_SECONDS,
        )


@dataclass(slots=True)
class _Count:
    jobs: int
    cap: int
    until: float


_counts: dict[str, _Count] = {}
_guard = threading.Lock()


def _has_place(org_id: str, cap: int) -> bool:
    now = time.monotonic()
    with _guard:
        count = _counts.get(org_id)
        is_fresh = count is not None and count.until > now and count.cap >= cap
        admitted = count.jobs if count else 0
        if count is not None and not is_fresh:
            count.until = now + REMEMBER_SECONDS  # one thread counts, the others go by the old number
    if not is_fresh:
        jobs = Job.objects.filter(org_id=org_id, status__in=(JobStatus.SCHEDULED, JobStatus.WAITING))
        found = jobs.order_by().values("pk")[: cap + 1].count()
        with _guard:
            if (current := _counts.get(org_id)) is count:  # else another thread has counted meanwhile
                since = current.jobs - admitted if current else 0
                _counts[org_id] = _Count(found + since, cap, now + REMEMBER_SECONDS)
    with _guard:
        count = _counts[org_id]
        if count.jobs >= cap:
            return False
        count.jobs += 1
        return True
