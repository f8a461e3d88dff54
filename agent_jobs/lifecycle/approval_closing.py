"""Closes approvals that need no decision any more, and puts a line under their messages: who decided what.

The update goes through the outbox and no job waits for it. If it fails, the old buttons stay but have no effect.
"""

from django.db.models.functions import Now

from agent_jobs.models import Approval, Job
from channels_integration import outbox

Status = Approval.Status
TIME_OUT = "system:time-out"


def close(approval: Approval) -> None:
    """Remove the buttons from the message of an approval that was decided, has expired or was withdrawn."""
    if approval.message_key is None:
        return
    line, person = _said(approval)
    outbox.change(approval.org_id, approval.message_key, line=line, person=person)


def withdraw(*jobs: Job) -> None:
    """Withdraw the pending approvals of jobs, all of one organisation, that have ended. The caller has locked their
    rows.
    """
    of_jobs = {"org_id": jobs[0].org_id, "job_id__in": [job.pk for job in jobs]}
    for approval in Approval.objects.filter(**of_jobs, status=Status.PENDING).order_by("pk").select_for_update():
        approval.status = Status.WITHDRAWN
        Approval.objects.filter(pk=approval.pk).update(status=approval.status, decided_at=Now())
        close(approval)


def _said(approval: Approval) -> tuple[str, str]:
    """The text of the message, and the person to name at its end."""
    if approval.status == Status.WITHDRAWN:
        return "Nobody needs to decide this any more.", ""
    if approval.decided_by == TIME_OUT:
        outcome = ", so it is approved" if approval.status == Status.APPROVED else ""
        return f"Nobody decided in time{outcome}.", ""
    word = "Approved" if approval.status == Status.APPROVED else "Denied"
    changed = ", with other arguments," if approval.edited_arguments is not None else ""
    return f"{word}{changed} by", approval.decided_by
