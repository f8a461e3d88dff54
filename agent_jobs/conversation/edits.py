"""Applies people's edits and deletions of their messages to the transcript.

An edit wakes no job. A message that no turn has taken in yet has woken its job itself, and the turn reads its new text.
The agent sees an edit of an older message in its next turn. Edits also apply to jobs that have ended, because a person
who deletes a message wants it gone. If our message that opened a job's thread is deleted, the job's next message opens
a new thread.
"""

from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Now

from agent_jobs.lifecycle import activities
from agent_jobs.models import Job, Message
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus, SourceType
from channels_integration import outbox
from channels_integration.messages import Did, Incoming


def receive(incoming: Incoming) -> bool:
    """Apply an edit or a deletion of a message. Returns False, and changes nothing, if no job has that message.

    The last of several edits wins, by the platform's time; a deletion is final.
    """
    found = _line(incoming)
    if found is None:
        return incoming.did == Did.DELETED and _forget_thread(incoming)
    job = Job.objects.select_for_update(no_key=True).get(pk=found.job_id)
    line = Message.objects.select_for_update().get(pk=found.pk)
    if line.deleted_at is not None:
        return True
    if incoming.did == Did.DELETED:
        Message.objects.filter(pk=line.pk).update(text="", deleted_at=incoming.sent_at)
        _note(job, line, incoming, f"{incoming.author} deleted what they had said", {})
    elif line.edited_at is None or line.edited_at < incoming.sent_at:
        Message.objects.filter(pk=line.pk).update(text=incoming.text, edited_at=incoming.sent_at)
        note = f"{incoming.author} now says: {incoming.text[:200]}"
        _note(job, line, incoming, note, {"text": incoming.text, "before": line.text})
    return True


def _line(incoming: Incoming) -> Message | None:
    """The transcript line of that message and person."""
    said = Message.objects.filter(
        platform_message_id=incoming.message_id,
        author=incoming.author,
        is_human=True,
        job__org_id=incoming.org_id,
        job__platform=incoming.platform,
        job__channel_code=incoming.code,
    )
    return _of_team(incoming, said, "job__").first() if incoming.message_id else None


def _forget_thread(incoming: Incoming) -> bool:
    """Forget the thread of the living job that this message opened. False if it opened none."""
    if not incoming.message_id:
        return False
    job = under_way(incoming).filter(thread=incoming.message_id).select_for_update(no_key=True).first()
    if job is None:
        return False
    Job.objects.filter(pk=job.pk).update(thread="", updated_at=Now())
    outbox.forget_thread(job.org_id, job.thread_key)
    activities.note(
        job,
        "thread.deleted",
        "the message that opened its thread was deleted: its next message opens a new thread",
        source=SourceType.DIRECT,
        input={"thread": incoming.message_id},
    )
    return True


def under_way(incoming: Incoming) -> QuerySet[Job]:
    """The jobs under way in the message's channel."""
    jobs = Job.objects.filter(
        org_id=incoming.org_id,
        platform=incoming.platform,
        channel_code=incoming.code,
        status__in=(JobStatus.WAITING, JobStatus.RUNNING),
        started_at__isnull=False,
    )
    alive: QuerySet[Job] = _of_team(incoming, jobs)
    return alive


def _of_team(incoming: Incoming, rows: Any, job: str = "") -> Any:
    """Channels of two workspaces may share a code; a job without a team belongs to the organisation's only one."""
    if not incoming.team:
        return rows
    named = rows.alias(team_id=KeyTextTransform("team_id", f"{job}channel_data"))
    return named.filter(Q(team_id=incoming.team) | Q(team_id=None))


def _note(job: Job, line: Message, incoming: Incoming, note: str, words: dict[str, str]) -> None:
    if not job.is_terminal:
        Job.objects.filter(pk=job.pk).update(updated_at=Now())
    activities.note(
        job,
        f"message.{incoming.did}",
        note,
        actor=Actor("person", incoming.author),
        source=SourceType.DIRECT,
        input={"message_id": str(line.key), "author": incoming.author, **words},
    )
