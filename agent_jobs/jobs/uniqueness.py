"""Business keys: at most one job of an organisation holds a `unique_key` at a time.

A job holds its key until it ends. For a request with a window, a COMPLETED job also holds it for so long after its
creation; a FAILED or CANCELED one does not, so that the client can post it again. The scope of the request decides
whether only jobs of its type count.

Creations with one key run one after the other: each transaction locks its keys before it looks. The lock is the rule,
and no unique index could be, because a window ends without a change of any row.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import OperationalError

from agent_jobs.errors import Conflict, DuplicateJob
from agent_jobs.models import Job
from agent_jobs.specs import JobSpec, Uniqueness
from agent_jobs.states import TERMINAL, JobStatus
from infra import meters, prepared_sql

_LOCK_NOT_AVAILABLE = "55P03"
# `unnest` keeps the order of the keys, so two transactions never wait for each other.
_LOCK = "SELECT count(pg_advisory_xact_lock(key)) FROM unnest(%(keys)s::bigint[]) AS key"
_LIVING = """
SELECT unique_key, id, job_type_key, status, created_at FROM agent_jobs_job
WHERE org_id = %(org)s AND unique_key = ANY(%(keys)s::text[]) AND unique_key <> '' AND finished_at IS NULL
"""
_HOLDERS = f"""{_LIVING} UNION ALL
SELECT unique_key, id, job_type_key, status, created_at FROM agent_jobs_job
WHERE org_id = %(org)s AND unique_key = ANY(%(keys)s::text[]) AND unique_key <> '' AND status = 'COMPLETED'
    AND created_at > %(since)s
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class KeyHolder:
    job_id: UUID
    job_type_key: str
    status: str
    created_at: datetime


def lock(org_id: str, keys: Iterable[str]) -> None:
    """Lock these keys until the transaction ends. Raises Conflict (`unique_key_in_progress`) after `lock_timeout`."""
    numbers = sorted({_number(org_id, key) for key in keys})
    if not numbers:
        return
    try:
        prepared_sql.run(_LOCK, {"keys": numbers})
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != _LOCK_NOT_AVAILABLE:
            raise
        message = "another request with this unique_key is still under way"
        raise Conflict(message, code="unique_key_in_progress") from None


class KeysOfBatch:
    """The unique keys of the jobs that one transaction creates, and the jobs that hold these keys.

    The transaction must have locked the keys (`lock`).
    """

    def __init__(self, org_id: str, specs: Sequence[JobSpec], *, now: datetime) -> None:
        stated = [spec.unique for spec in specs if spec.unique]
        self.replaced: dict[UUID, UUID] = {}  # the other job, and the new one that replaces it
        self._now = now
        self._holders: dict[str, list[KeyHolder]] = {}
        self._of_batch: set[UUID] = set()
        if stated:
            keys = sorted({unique.key for unique in stated})
            longest = max(unique.window_minutes for unique in stated)
            since = now - timedelta(minutes=longest)
            for key, *holder in prepared_sql.all_rows(_HOLDERS, {"org": org_id, "keys": keys, "since": since}):
                self._holders.setdefault(key, []).append(KeyHolder(*holder))

    def to_replace(self, spec: JobSpec) -> list[UUID]:
        """The living jobs that the new job replaces. Raises DuplicateJob if its key is held by a job that may not be
        replaced.
        """
        unique = spec.unique
        if unique is None:
            return []
        holders = [holder for holder in self._holders.get(unique.key, []) if self._counts(holder, unique, spec)]
        kept = [holder for holder in holders if unique.on_conflict != "replace" or not self._may_end(holder)]
        if kept:
            raise _duplicate(unique.key, kept[0].job_id, kept[0].status)
        return [holder.job_id for holder in holders]

    def take(self, job: Job, replaced: Sequence[UUID]) -> None:
        """Note that a new job of this batch holds its key."""
        if not job.unique_key:
            return
        holders = [holder for holder in self._holders.get(job.unique_key, []) if holder.job_id not in replaced]
        holders.append(KeyHolder(job.pk, job.job_type_key, job.status, job.created_at))
        self._holders[job.unique_key] = holders
        self._of_batch.add(job.pk)
        self.replaced |= dict.fromkeys(replaced, job.pk)

    def _counts(self, holder: KeyHolder, unique: Uniqueness, spec: JobSpec) -> bool:
        if unique.scope == "type" and holder.job_type_key != spec.job_type_id:
            return False
        since = self._now - timedelta(minutes=unique.window_minutes)
        return holder.status != JobStatus.COMPLETED or holder.created_at > since

    def _may_end(self, holder: KeyHolder) -> bool:
        return holder.status not in TERMINAL and holder.job_id not in self._of_batch


class KeysOfLiving:
    """The unique keys of jobs that are about to be retried, and the living jobs that hold these keys. Locks the
    keys.
    """

    def __init__(self, org_id: str, jobs: Iterable[Job]) -> None:
        keys = {job.unique_key for job in jobs if job.unique_key}
        self._holders: dict[str, list[KeyHolder]] = {}
        if keys:
            lock(org_id, keys)
            for key, *holder in prepared_sql.all_rows(_LIVING, {"org": org_id, "keys": sorted(keys)}):
                self._holders.setdefault(key, []).append(KeyHolder(*holder))

    def require_free(self, job: Job) -> None:
        """Check that no other living job holds the job's key by now. Raises DuplicateJob if one does."""
        for holder in self._holders.get(job.unique_key, []):
            if job.unique_scope != "type" or holder.job_type_key == job.job_type_key:
                raise _duplicate(job.unique_key, holder.job_id, holder.status)

    def take(self, job: Job) -> None:
        """Note that the job will hold its key."""
        if job.unique_key:
            holder = KeyHolder(job.pk, job.job_type_key, JobStatus.WAITING, job.created_at)
            self._holders.setdefault(job.unique_key, []).append(holder)


def _duplicate(key: str, job_id: UUID, status: str) -> DuplicateJob:
    meters.add("duplicates_refused", kind="unique_key")
    return DuplicateJob(f"the job {job_id} has the unique_key {key!r}, and is {status}", job_id=str(job_id))


def _number(org_id: str, key: str) -> int:
    digest = hashlib.blake2b(f"{org_id}\n{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
