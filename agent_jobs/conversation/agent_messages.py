"""Sends messages of a job outside of settlements; reads its transcript and its undelivered messages.

Callers of the writing functions have locked the job's row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs import mentions
from agent_jobs.lifecycle import Claim, activities
from agent_jobs.models import Activity, Job, Message
from agent_jobs.runners.base import Said
from agent_jobs.states import ActivityStatus
from channels_integration import outbox, platforms
from channels_integration.messages import Button, Outgoing, Target
from infra import prepared_sql

# A message of the agent stands before the human messages that the agent had not seen when it wrote it.
_SAID = """
SELECT author, CASE WHEN deleted_at IS NULL THEN text ELSE '(deleted)' END, is_human FROM (
    SELECT *, count(*) FILTER (WHERE is_human) OVER (ORDER BY id) AS people
    FROM agent_jobs_message WHERE job_id = %(job)s) line
ORDER BY CASE WHEN is_human THEN people ELSE coalesce(least(heard, people), people) END, NOT is_human, id
"""
# A lost question about an approval does not count as lost, because people can also decide over the API.
_UNDELIVERED = """
SELECT m.key, a.status FROM agent_jobs_message m JOIN agent_jobs_activity a ON a.id = m.key
WHERE m.job_id = %(job)s AND NOT m.is_human AND m.delivered_at IS NULL AND a.life = %(life)s
    AND (a.status = 'submitted' OR a.status IN ('canceled', 'unknown') AND NOT EXISTS (
        SELECT FROM agent_jobs_approval p WHERE p.job_id = m.job_id AND (p.message_key = m.key
            OR p.undelivered @> jsonb_build_array(jsonb_build_object('message_id', m.key)))))
ORDER BY m.id
"""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Undelivered messages of a job's life: the last one still pending, and the first one lost for good."""

    pending: UUID | None = None
    lost: UUID | None = None


def undelivered(job_id: UUID, life: int) -> Undelivered:
    """The undelivered messages of a life. The messages of a thread are sent in order, so the last pending one stands
    for all.
    """
    pending = lost = None
    for message_id, status in prepared_sql.all_rows(_UNDELIVERED, {"job": job_id, "life": life}):
        if status == ActivityStatus.SUBMITTED:
            pending = message_id
        else:
            lost = lost or message_id
    return Undelivered(pending, lost)


def said_in(job_id: UUID) -> tuple[Said, ...]:
    """A job's transcript, in the order in which the agent saw it."""
    return tuple(Said(*line) for line in prepared_sql.all_rows(_SAID, {"job": job_id}))


def that_spoke(jobs: Sequence[Job]) -> list[Job]:
    """The jobs among these whose agent has a delivered message."""
    return _with_lines(jobs, Message.objects.filter(delivered_at__isnull=False))


def _with_lines(jobs: Sequence[Job], lines: QuerySet[Message]) -> list[Job]:
    found = lines.filter(job_id__in=[job.pk for job in jobs], is_human=False).values_list("job_id", flat=True)
    ids = set(found.distinct()) if jobs else set()
    return [job for job in jobs if job.pk in ids]


def target(job: Job | Claim) -> Target:
    """The channel of a job."""
    return Target(job.org_id, job.platform, job.channel_code, job.channel_type, job.channel_data)


def outgoing(job: Job | Claim, text: str, *, key: UUID, trace: str, buttons: tuple[Button, ...] = ()) -> Outgoing:
    """A message into the job's thread. `key` is its id in the outbox, the transcript and the activities."""
    return Outgoing(
        id=key,
        target=target(job),
        text=text,
        owner_key=str(job.id),
        thread_key=str(job.id),  # one thread per job
        trace=trace,
        buttons=buttons,
        mentions=mentions.named(text, job.params),
    )


def parts(job: Job | Claim, text: str) -> tuple[str, ...]:
    """The messages into which the job's platform splits a text."""
    return platforms.get(job.platform).parts(text)


def say(job: Job, text: str, *, heard: int | None = None) -> None:
    """Put a message into the job's thread, in the transaction of its cause.

    A text that is too long for the platform becomes several messages. `heard`: the number of human messages that the
    agent had seen when it wrote this; None for a message of the service.
    """
    for part in parts(job, text):
        _say(job, part, heard)


def _say(job: Job, text: str, heard: int | None) -> None:
    message = outgoing(job, text, key=uuid7(), trace=job.trace)
    # On a platform with `accepts_on_commit`, the commit itself delivers the message.
    is_delivered = outbox.is_sent_on_commit(message)
    Message.objects.create(
        key=message.id,
        job_id=job.pk,
        is_human=False,
        author="agent",
        text=text,
        delivered_at=Now() if is_delivered else None,
        heard=heard,
    )
    activities.note(
        job,
        "message.out",
        f"said: {text[:200]}",
        status=ActivityStatus.COMPLETED if is_delivered else ActivityStatus.SUBMITTED,
        id=message.id,
        output={"text": text},
    )
    outbox.enqueue([message])


def forget_unheard(jobs: Sequence[Job]) -> None:
    """Delete undelivered messages of the agent from the transcripts; their activities stay.

    Keeps messages that are being sent at this moment, because they may still arrive.
    """
    unheard = Message.objects.filter(delivered_at__isnull=True)
    for job in _with_lines(jobs, unheard):
        on_its_way = [message.id for message in outbox.undelivered(job.org_id, str(job.pk))]
        unheard.filter(job_id=job.pk, is_human=False).exclude(key__in=on_its_way).delete()


def withdraw(*jobs: Job) -> None:
    """Withdraw the messages of these jobs, all of one organisation, that have not been sent yet."""
    if not jobs:
        return
    withdrawn = outbox.withdraw(jobs[0].org_id, *(str(job.pk) for job in jobs))
    Activity.objects.filter(id__in=withdrawn).update(
        status=ActivityStatus.CANCELED, processed_at=Now(), updated_at=Now()
    )
