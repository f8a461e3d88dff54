"""Tells a channel how a job ended, if the job names one as its `outcome_channel`.

It is an ordinary message in the outbox, written after the end, so the job neither waits for it nor fails with it. The
activity `outcome.out` records its delivery. It belongs to the job: its quiet hours hold it, and a retry of the job
withdraws it while it is unsent.
"""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from agent_jobs import mentions
from agent_jobs.errors import FieldError, PermanentError
from agent_jobs.lifecycle import activities
from agent_jobs.models import Job
from agent_jobs.runners import prompts
from agent_jobs.states import ActivityStatus, JobStatus
from channels_integration import outbox, platforms
from channels_integration.messages import Outgoing, Target
from infra.storable_text import storable

log = logging.getLogger(__name__)
CODE = "outcome.out"
MAX_TEMPLATE = 20_000
_MOST_SHOWN = 3_000


def template_errors(template: str, job_type: str, params: Mapping[str, Any]) -> list[FieldError]:
    """Errors of the template for a job that is about to be created. Raises RetryableError (`busy`)."""
    if not template:
        return []
    example = {"job_id": str(UUID(int=0)), "job_type": job_type, "status": JobStatus.COMPLETED.value}
    unknown = {"result": "", "error_code": "", "error_message": ""}
    try:
        prompts.render(template, {**params, **example, **unknown})
    except PermanentError as error:
        code = "too_complex" if error.code == "prompt_too_complex" else "invalid"
        return [FieldError("outcome_channel.template", code, error.message.removeprefix("start_prompt: "))]
    return []


def text_of(job: Job) -> str:
    """The message about the end of a job. A template that fails with the real values gives way to the plain sentence.

    Raises RetryableError (`busy`).
    """
    template = (job.outcome_channel or {}).get("template")
    if not template:
        return _plain(job)
    values = {
        **job.params,
        "job_id": str(job.pk),
        "job_type": job.job_type_key,
        "status": str(job.status),
        "result": job.result or "",
        "error_code": job.error_code,
        "error_message": job.error_message,
    }
    try:
        text = str(storable(prompts.render(template, values)))
    except PermanentError as error:
        log.info(
            "job %s: the template of its outcome message failed, sending the plain sentence: %s", job.pk, error.message
        )
        return _plain(job)
    return text if text.strip() else _plain(job)


def send(job: Job, text: str, *, message_id: UUID) -> None:
    """Put the message into the outbox, in parts if it is long. The same id again sends nothing more."""
    target = _target(job.org_id, job.outcome_channel)
    for number, part in enumerate(platforms.get(target.platform).parts(text)):
        _send(job, target, part, message_id=uuid5(message_id, str(number)) if number else message_id)


def _send(job: Job, target: Target, text: str, *, message_id: UUID) -> None:
    is_same_place = (target.platform, target.code) == (job.platform, job.channel_code)
    outgoing = Outgoing(
        id=message_id,
        target=target,
        text=text,
        owner_key=str(job.pk),
        # In the job's own channel it continues the job's thread.
        thread_key=job.thread_key if is_same_place else f"{job.thread_key}:outcome",
        trace=job.trace,
        mentions=mentions.named(text, job.params),
    )
    is_delivered = outbox.is_sent_on_commit(outgoing)
    activities.note(
        job,
        CODE,
        f"told {target.platform}:{target.code[:64]} the outcome: {text[:200]}",
        status=ActivityStatus.COMPLETED if is_delivered else ActivityStatus.SUBMITTED,
        id=message_id,
        output={"text": text},
    )
    outbox.enqueue([outgoing])


def _target(org_id: str, channel: Mapping[str, Any]) -> Target:
    return Target(org_id, channel["platform"], channel["code"], channel.get("type", ""), dict(channel.get("data", {})))


def _plain(job: Job) -> str:
    subject = f"Job {job.job_type_key} ({job.pk})"
    if job.status == JobStatus.CANCELED:
        return f"{subject} was canceled."
    verb, said = ("completed", job.result) if job.status == JobStatus.COMPLETED else ("failed", job.error_message)
    said = said or job.error_code
    return f"{subject} {verb}: {said[:_MOST_SHOWN]}" if said else f"{subject} {verb}."
