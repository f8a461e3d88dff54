"""What people change of what they have said: the transcript's line follows.

Nobody is woken by it. A message that no turn has taken in yet has woken its job itself, and is read as it then is; one
that was taken in was answered as it was, and the agent sees the new words in its next turn. Lines of jobs that have
ended follow as well: who deletes something wants it gone.
"""

from django.db.models import Q
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Now

from agent_jobs.models import Activity, Job, Message
from agent_jobs.specs import Actor
from agent_jobs.states import SourceType
from channels_integration.messages import Did, Incoming


def receive(incoming: Incoming) -> bool:
    """An edit or a deletion of a message. False if no job has heard that message: then nobody hears of this either.

    Of several edits the last one counts, by the platform's time; what is deleted stays so.
    """
    found = _line(incoming)
    if found is None:
        return False
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
    """The line with that message of that person. Channels of two workspaces may have one code."""
    said = Message.objects.filter(
        platform_message_id=incoming.message_id,
        author=incoming.author,
        is_human=True,
        job__org_id=incoming.org_id,
        job__platform=incoming.platform,
        job__channel_code=incoming.code,
    )
    if incoming.team:
        said = said.alias(team_id=KeyTextTransform("team_id", "job__channel_data")).filter(
            Q(team_id=incoming.team) | Q(team_id=None)
        )
    return said.first() if incoming.message_id else None


def _note(job: Job, line: Message, incoming: Incoming, note: str, words: dict[str, str]) -> None:
    if not job.is_terminal:
        Job.objects.filter(pk=job.pk).update(updated_at=Now())
    Activity.objects.create(
        org_id=job.org_id,
        job_id=job.pk,
        code=f"message.{incoming.did}",
        note=note,
        actor=str(Actor("person", incoming.author))[:255],
        life=job.retry_count,
        source_type=SourceType.DIRECT,
        input={"message_id": str(line.key), "author": incoming.author, **words},
        processed_at=Now(),
    )
