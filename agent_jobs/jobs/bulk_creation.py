"""Creates many jobs in one transaction: all of them or none, or those that are valid."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import transaction

from agent_jobs.errors import (
    AgentJobsError,
    Conflict,
    DuplicateJob,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    QuotaReached,
)
from agent_jobs.jobs import creation
from agent_jobs.models import Job
from agent_jobs.specs import Actor, JobSpec

MOST = 1_000
# Costly schemas and templates are judged one by one, in a transaction. What a batch has left after this is refused.
_SECONDS = 10.0
# If jobs fail with several statuses, the answer takes the first of these.
_GRAVEST = (NotFound, Forbidden, Conflict, QuotaReached)
Made = Job | UUID | AgentJobsError


def create_all(org_id: str, specs: Sequence[JobSpec], *, actor: Actor, at: str) -> list[Job | UUID]:
    """Create every job, or raise one error for those that are refused: their fields begin with `at` and their place.

    The result has, for each spec, its job, or the id of the job that has its `unique_key`, if it asks for that.
    """
    with transaction.atomic():
        made = create_valid(org_id, specs, actor=actor)
        refused = {place: found for place, found in enumerate(made) if isinstance(found, AgentJobsError)}
        if refused:
            raise refusal(refused, at=at)
    return [found for found in made if not isinstance(found, AgentJobsError)]


def create_valid(org_id: str, specs: Sequence[JobSpec], *, actor: Actor) -> list[Made]:
    """Create the jobs that are valid. The result has, for each spec, its job, or the error for which it is refused."""
    made = creation.create_many(org_id, specs, actor=actor, seconds=_SECONDS)
    return [_existing(spec, found) for spec, found in zip(specs, made, strict=True)]


def refusal(refused: Mapping[int, AgentJobsError], *, at: str) -> AgentJobsError:
    """One error for all of these: Invalid if one of them is; else the gravest, with the others in its `errors`."""
    fields = tuple(field for place, error in refused.items() for field in _fields(error, f"{at}.{place}"))
    if any(isinstance(error, Invalid) for error in refused.values()):
        return Invalid(*fields)
    places = sorted(refused, key=lambda place: (_rank(refused[place]), place))
    gravest = refused[places[0]]
    gravest.message = f"{at}.{places[0]}: {gravest.message}"
    gravest.errors = fields
    return gravest


def _existing(spec: JobSpec, found: Job | AgentJobsError) -> Made:
    if isinstance(found, DuplicateJob) and spec.unique and spec.unique.on_conflict == "return":
        return UUID(found.context["job_id"])
    return found


def _fields(error: AgentJobsError, at: str) -> list[FieldError]:
    if isinstance(error, Invalid):
        return [FieldError(f"{at}.{one.field}", one.code, one.message) for one in error.errors]
    return [FieldError(at, error.code, error.message)]


def _rank(error: AgentJobsError) -> int:
    return next((rank for rank, kind in enumerate(_GRAVEST) if isinstance(error, kind)), len(_GRAVEST))
