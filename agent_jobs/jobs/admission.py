"""Limits how many unstarted jobs (SCHEDULED or WAITING) an organisation may have."""

import threading
import time
from dataclasses import dataclass

from agent_jobs.errors import QuotaReached
from agent_jobs.models import Job, Org
from agent_jobs.states import JobStatus

# The default where the organisation has no max_waiting_jobs; the benchmarks hold this many.
MAX_WAITING_JOBS = 100_000
REMEMBER_SECONDS = 1.0
RETRY_AFTER_SECONDS = 10


def admit_job(org: Org) -> None:
    """Admit one more job. Raises QuotaReached if the organisation is at its limit.

    Each process counts the rows about once a second and adds its own admissions in between. Counting up to 100,000 rows
    on every POST would cost more than the POST itself. So other web processes may overshoot the cap by what they admit
    within a second, and a job that started or a POST that failed frees its slot a second later. Threads of one process
    never share a slot.
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
            count.until = now + REMEMBER_SECONDS  # one thread counts, the others use the old number
    if not is_fresh:
        jobs = Job.objects.filter(org_id=org_id, status__in=(JobStatus.SCHEDULED, JobStatus.WAITING))
        found = jobs.order_by().values("pk")[: cap + 1].count()
        with _guard:
            if (current := _counts.get(org_id)) is count:  # another thread may have counted meanwhile
                since = current.jobs - admitted if current else 0
                _counts[org_id] = _Count(found + since, cap, now + REMEMBER_SECONDS)
    with _guard:
        count = _counts[org_id]
        if count.jobs >= cap:
            return False
        count.jobs += 1
        return True
