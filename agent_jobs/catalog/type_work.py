"""The work of a job type: the defaults of its jobs' work, with its secrets sealed apart.

A key of the job's own work replaces the type's. The type's secrets go only where the type itself sends them: a job that
names another recipient does not get them.
"""

from collections.abc import Mapping
from typing import Any

from agent_jobs import runners, sealed_work, work, work_checks
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.models import JobType
from agent_jobs.work import WorkRules


def merged(job_type: JobType, own: Mapping[str, Any], rules: WorkRules) -> dict[str, Any]:
    """The type's work with the job's own keys in place of the type's, secrets included.

    Raises Invalid if a job with a recipient of its own would get the type's secrets, and SealingError.
    """
    if not job_type.work:
        return dict(own)
    both = {**sealed_work.whole(job_type), **own}
    inherited = [path for path in rules.secret_paths(job_type.work) if path[0] not in own]
    if inherited and rules.recipient(both) != rules.recipient(job_type.work):
        message = "the job type's secrets go only where the type sends them: give the job secrets of its own"
        raise Invalid(*(FieldError(".".join(("work", *path)), "other_recipient", message) for path in inherited))
    return both


def store(job_type: JobType, given: Mapping[str, Any]) -> bool:
    """Put the given work into the columns of a stored type, which the caller saves again.

    Masks keep the stored secrets. Returns whether anything differs. Raises Invalid if the runner refuses the work, and
    SealingError if secrets cannot be opened or sealed.
    """
    stored = work.Work(job_type.work, sealed_work.secrets_of(job_type))
    rules = runners.get(job_type.runner).work if job_type.runner in runners.names() else None
    if rules is None:
        if given:
            message = f"must be left out: jobs of the {job_type.runner} runner take none"
            raise Invalid(FieldError("work", "invalid", message))
        split = work.Work({}, {})
    else:
        stated = work.updated(given, stored, rules)
        if errors := [error for error in work_checks.errors(stated, rules, params=None) if error.code != "required"]:
            raise Invalid(*errors)
        split = work.split(stated, rules)
    if (split.shown, split.secrets) == (stored.shown, stored.secrets):
        return False
    job_type.work = dict(split.shown)
    job_type.sealed_work = sealed_work.seal(job_type, split.secrets)
    return True
