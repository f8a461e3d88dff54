"""What a job says outside a turn, what it has said so far, and what of that has reached nobody yet.

Whatever writes here has locked the job's row first.
"""

from dataclasses import dataclass
from uuid import UUID

from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.models import Activity, Job, Message
from agent_jobs.runners.base import Said
from agent_jobs.states import ActivityStatus, SourceType
from channels_integration import outbox
from channels_integration.messages import Outgoing, Target
from infra import prepared_sql

# The agent's words stand before those of people that it had not seen when it wrote them.
_SAID = """
SELECT author, text, is_human FROM (
    SELECT *, count(*) FILTER (WHERE is_human) OVER (ORDER BY id) AS people
    FROM agent_jobs_message WHERE job_id = %(job)s) line
ORDER BY CASE WHEN is_human THEN people ELSE coalesce(least(heard, people), people) END, NOT is_human, id
"""
# A question about an approval is answered over the API as well, so its loss does not count.
_UNDELIVERED = """
SELECT m.key, a.status FROM agent_jobs_message m JOIN agent_jobs_activity a ON a.id = m.key
WHERE m.job_id = %(job)s AND NOT m.is_human AND m.delivered_at IS NULL AND a.life = %(life)s
    AND (a.status = 'submitted' OR a.status IN ('canceled', 'unknown') AND NOT EXISTS (
        SELECT FROM agent_jobs_approval p WHERE p.job_id = m.job_id AND p.message_key = m.key))
ORDER BY m.id
"""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The messages of a job's life that are not out: the last one that may still be, and the first that never will."""

    pending: UUID | None = None
    lost: UUID | None = None


def undelivered(job_id: UUID, life: int) -> Undelivered:
    """Messages of one thread are sent in order, so when the last pending one is out, all are."""
    pending = lost = None
    for message_id, status in prepared_sql.all_rows(_UNDELIVERED, {"job": job_id, "life": life}):
        if status == ActivityStatus.SUBMITTED:
            pending = message_id
        else:
            lost = lost or message_id
    return Undelivered(pending, lost)


def said_in(job_id: UUID) -> tuple[Said, ...]:
    """A job's transcript, in the order in which the agent knew of it."""
    return tuple(Said(*line) for line in prepared_sql.all_rows(_SAID, {"job": job_id}))


def say(job: Job, text: str, *, heard: int | None = None) -> None:
    """Put a message into the job's thread, in the transaction of what caused it.

    `heard`: how many messages of people the agent had seen when it wrote this; None where it is not the agent's.
    """
    outgoing = Outgoing(
        id=uuid7(),
        target=Target(
            org_id=job.org_id,
            platform=job.platform,
            code=job.channel_code,
            type=job.channel_type,
            data=job.channel_data,
        ),
        text=text,
        owner_key=str(job.pk),
        thread_key=job.thread_key,
        trace=job.trace,
    )
    # A platform that takes it by its being written has it with the commit.
    is_delivered = outbox.is_sent_on_commit(outgoing)
    Message.objects.create(
        key=outgoing.id,
        job_id=job.pk,
        is_human=False,
        author="agent",
        text=text,
        delivered_at=Now() if is_delivered else None,
        heard=heard,
    )
    Activity.objects.create(
        id=outgoing.id,
        org_id=job.org_id,
        job_id=job.pk,
        code="message.out",
        status=ActivityStatus.COMPLETED if is_delivered else ActivityStatus.SUBMITTED,
        note=f"said: {text[:200]}",
        life=job.retry_count,
        source_type=SourceType.DISPATCH,
        output={"text": text},
        processed_at=Now() if is_delivered else None,
    )
    outbox.enqueue([outgoing])


def forget_unheard(job: Job) -> None:
    """What the agent wrote and nobody got is taken out of the transcript; activities still tell of it.

    What is on its way this moment stays: somebody may get it yet.
    """
    on_its_way = [message.id for message in outbox.undelivered(job.org_id, str(job.pk))]
    unheard = Message.objects.filter(job_id=job.pk, is_human=False, delivered_at__isnull=True)
    unheard.exclude(key__in=on_its_way).delete()


def withdraw(job: Job) -> None:
    """Nothing that the job wanted to say and that is not out yet is said any more."""
    withdrawn = outbox.withdraw(job.org_id, str(job.pk))
    Activity.objects.filter(id__in=withdrawn).update(
        status=ActivityStatus.CANCELED, processed_at=Now(), updated_at=Now()
    )
