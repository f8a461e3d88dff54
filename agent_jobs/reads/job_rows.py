"""Locks one job's row for a change."""

from uuid import UUID

from agent_jobs.errors import Forbidden, NotFound
from agent_jobs.models import Job


def locked(org_id: str, job_id: UUID) -> Job:
    """The job, its row locked; call it in a transaction. Raises NotFound, Forbidden for another organisation's job."""
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"there is no job {str(job_id)!r}", code="job_not_found")
    if job.org_id != org_id:
        raise Forbidden(
            "the job belongs to a different organization",
            code="job_of_another_organization",
            denied=("job", str(job_id)),
        )
    return job
