"""Creates several jobs, all or none, for APIs whose answers cannot tell of a partial success."""

from collections.abc import Sequence

from django.db import transaction

from agent_jobs.errors import AgentJobsError, FieldError, Invalid
from agent_jobs.jobs import creation
from agent_jobs.models import Job
from agent_jobs.specs import Actor, JobSpec


def create_all(org_id: str, specs: Sequence[JobSpec], *, actor: Actor) -> list[Job]:
    """The jobs, in the order of their specs.

    If one job is refused, nothing is stored. Raises Invalid with the errors of all jobs, each field behind the job's
    place (`3.work.type`, counted from 0); else NotFound, DuplicateJob or QuotaReached.
    """
    with transaction.atomic():
        made = creation.create_many(org_id, specs, actor=actor)
        failures = [(place, one) for place, one in enumerate(made) if isinstance(one, AgentJobsError)]
        problems = [
            FieldError(f"{place}.{problem.field}", problem.code, problem.message)
            for place, failure in failures
            if isinstance(failure, Invalid)
            for problem in failure.errors
        ]
        if problems:
            raise Invalid(*problems)
        if failures:
            raise failures[0][1]
        return [one for one in made if isinstance(one, Job)]
