"""Handles a question that could not be delivered: records it, tells the organisation's endpoints, and asks in the next
of the `approval_channels` that the job's config names.

People can decide by API all the while. The last channel that was asked is the approval's `asked_in`.
"""

from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from agent_jobs.approvals import edit_form
from agent_jobs.lifecycle import activities
from agent_jobs.models import Approval, Job
from agent_jobs.states import ActivityStatus
from agent_jobs.webhooks import announcements
from channels_integration import outbox
from channels_integration.messages import Button, Delivery, Outgoing, Target


def receive(job: Job, approval: Approval, delivery: Delivery) -> UUID | None:
    """Record the lost question, and ask in the next channel, if there is one.

    Returns the message with which the time to decide begins now; None if that is left to the new question's delivery.

    The caller holds the job's row lock.
    """
    platform, code = approval.place
    lost = {
        "message_id": str(delivery.outgoing_id),
        "platform": platform,
        "code": code,
        "error_code": delivery.error_code,
        "error_message": delivery.error_message,
    }
    approval.undelivered = [*approval.undelivered, lost]
    target = _next(job, approval)
    message = _question(job, approval, target) if target else None
    if target and message:
        approval.message_key = message.id
        approval.asked_in = {"platform": target.platform, "code": target.code, "data": target.data}
    approval.save(update_fields=["undelivered", "message_key", "asked_in"])
    where = f", asked in {target.platform}:{target.code}" if target else ""
    activities.note(
        job,
        "approval.undelivered",
        f"the question about {approval.what} could not be delivered in {platform}:{code}:"
        f" {delivery.error_message or delivery.error_code}{where}",
        input={"approval_id": str(approval.pk), **lost},
    )
    announcements.announce(
        job.org_id, "approval.undelivered", str(approval.pk), _told(approval, is_asked=bool(message))
    )
    if message is None or target is None:
        return delivery.outgoing_id
    is_delivered = outbox.is_sent_on_commit(message)
    activities.note(
        job,
        "approval.asked",
        f"asked about {approval.what} in {target.platform}:{target.code}",
        status=ActivityStatus.COMPLETED if is_delivered else ActivityStatus.SUBMITTED,
        id=message.id,
        output={"text": message.text},
    )
    outbox.enqueue([message])
    return message.id if is_delivered else None


def asked_by(job: Job, delivery: Delivery) -> Approval | None:
    """The pending approval that this message asks about; None if it asks about none, or was asked again elsewhere
    since.
    """
    asked = Approval.objects.filter(job_id=job.pk, message_key=delivery.outgoing_id)
    return asked.filter(status=Approval.Status.PENDING).first()


def _next(job: Job, approval: Approval) -> Target | None:
    """The next of the stated channels; the first lost one was the job's own."""
    stated = job.config.get("approval_channels") or []
    at = len(approval.undelivered) - 1
    if at >= len(stated):
        return None
    channel = stated[at]
    return Target(
        job.org_id, channel["platform"], channel["code"], channel.get("type", ""), dict(channel.get("data", {}))
    )


def _question(job: Job, approval: Approval, target: Target) -> Outgoing:
    return Outgoing(
        id=uuid7(),
        target=target,
        text=f"A job of the type {job.job_type_key} asks ({job.pk}):\n{approval.question}",
        owner_key=str(job.pk),
        thread_key=str(approval.pk),
        trace=job.trace,
        buttons=tuple(Button(*button) for button in edit_form.buttons(approval, target.platform)),
    )


def _told(approval: Approval, *, is_asked: bool) -> dict[str, Any]:
    return {
        "approval_id": str(approval.pk),
        "job_id": str(approval.job_id),
        "org_id": approval.org_id,
        "tool": approval.tool,
        "undelivered": approval.undelivered,
        **({"asked_in": approval.asked_in} if is_asked else {}),
    }
