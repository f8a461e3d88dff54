"""One attempt of an executor at a job: the key that names it, and the refusals for an attempt that is over."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from agent_jobs.errors import Conflict, NotFound
from agent_jobs.models import Job, Task
from agent_jobs.reads import queries
from agent_jobs.runners import external
from agent_jobs.states import TERMINAL, JobStatus, TaskStatus


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as its executor names it."""

    job_id: UUID
    executor_id: str
    lease_token: int


def newest(org_id: str, job_id: UUID, executor_id: str) -> Attempt:
    """The newest attempt of this executor at the job, for APIs without lease tokens. NotFound if it has none."""
    require_job(org_id, job_id)
    tasks = Task.objects.filter(job_id=job_id, executor_id=executor_id).exclude(executor_id="")
    token = tasks.order_by("-number").values_list("lease_token", flat=True).first()
    if token is None:
        raise NotFound(f"the executor {executor_id[:64]!r} has not claimed this job", code="attempt_not_found")
    return Attempt(job_id, executor_id, token)


def locked(org_id: str, attempt: Attempt) -> tuple[Job, Task]:
    """The job, its row locked, and the task of an attempt that holds its lease; call it in a transaction.

    Raises NotFound, and Conflict with the reason if the attempt is over. `job.database_now` is the database's time.
    """
    job = require_job(org_id, attempt.job_id, Job.objects.select_for_update().annotate(database_now=Now()))
    task = _task(attempt)
    is_held = job.lease_token == attempt.lease_token and job.lease_until is not None and job.status == JobStatus.RUNNING
    if task is None or not is_held:
        raise refusal(job, task)
    return job, task


def refusal(job: Job, task: Task | None) -> Conflict:
    """Why an attempt can no longer report. `task` is None if no attempt has this token and executor."""
    if task is None:
        return Conflict("this executor does not hold the job under this lease token", code="lease_lost")
    if task.report is not None:
        return Conflict("the end of this attempt has been reported already", code="already_reported")
    if task.status == TaskStatus.CANCELED or job.status == JobStatus.CANCELED:
        return Conflict("the job is CANCELED", code="job_canceled")
    if job.status in TERMINAL:
        why = f": {job.error_code}" if job.error_code else ""
        return Conflict(f"the job is {job.status}{why}", code="job_ended")
    return Conflict("the lease of this attempt is over: the job was taken back or released", code="lease_lost")


def find(org_id: str, attempt: Attempt) -> tuple[Job, Task | None]:
    """The job and the task of an attempt, over or not, without a lock. Raises NotFound."""
    return require_job(org_id, attempt.job_id), _task(attempt)


def require_job(org_id: str, job_id: UUID, jobs: QuerySet[Job] | None = None) -> Job:
    """The organisation's job of the external runner, out of `jobs`, by default all. Raises NotFound."""
    jobs = Job.objects.all() if jobs is None else jobs
    job = jobs.filter(org_id=org_id, pk=job_id, runner=external.NAME).first()
    if job is None:
        raise queries.job_not_found(str(job_id), denied=("job", str(job_id)))
    return job


def _task(attempt: Attempt) -> Task | None:
    tasks = Task.objects.filter(job_id=attempt.job_id, lease_token=attempt.lease_token)
    return tasks.filter(executor_id=attempt.executor_id).first()
