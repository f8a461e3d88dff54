"""Cancels a job. A trigger writes the audit entry of the move (`audit.audit_log`)."""

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from agent_jobs import lifecycle
from agent_jobs.conversation import agent_messages
from agent_jobs.errors import IllegalMove
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import running_caps
from agent_jobs.models import Job
from agent_jobs.reads import queries
from agent_jobs.specs import Actor


def cancel(
    org_id: str, job_id: UUID, *, actor: Actor, reason: str = "", by: str = "", unless_held: bool = False
) -> Job:
    """Cancel a job that has not ended. Its worker is fenced off, and its unsent messages are dropped.

    `by` names who stopped the job in the message to people, if the job's config asks for one; else the actor's name
    does. With `unless_held`, a job that a worker or executor holds at this moment is left alone.

    Raises NotFound, Forbidden for another organisation's job, and IllegalMove if the job has ended or is held.
    """
    with transaction.atomic():
        job = queries.locked_job(org_id, job_id)
        if job.is_terminal:
            raise IllegalMove(
                f"the job is already {job.status} and cannot be canceled", job_id=str(job.pk), status=job.status
            )
        if unless_held and job.lease_until is not None:
            raise IllegalMove(
                "the job is running: only one that still waits can be canceled here",
                job_id=str(job.pk),
                status=job.status,
            )
        cancel_locked([job], actor=actor, reason=reason, by=by)
        job.refresh_from_db()
    return job


def cancel_locked(jobs: Sequence[Job], *, actor: Actor, reason: str, by: str) -> None:
    """Cancel locked jobs of one organisation that have not ended."""
    lifecycle.move_many(Event.CANCEL, jobs, actor=actor, note=f"CANCELED: {reason}" if reason else "CANCELED")
    agent_messages.withdraw(*jobs)
    for job in agent_messages.that_spoke([job for job in jobs if job.config.get("cancel_note")]):
        agent_messages.say(job, f"I was stopped by {by or actor.name}{f': {reason}' if reason else ''}.")
    for job in {job.lane: job for job in jobs}.values():
        running_caps.ring_for_place(job)
