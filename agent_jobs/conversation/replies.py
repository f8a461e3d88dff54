"""Handles a person's message (`receive`) and the delivery report of a message of ours (`settle_delivery`).

The channels call both inside their own transaction (`api.channel_callbacks`). The lock order is always the job's
row first, rows of the channels second. A message that an app brings in by HTTP (`say`) also goes through `receive`.
"""

import json
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from uuid_utils.compat import uuid7

from agent_jobs import lifecycle
from agent_jobs.approvals import button_presses, decisions, lost_questions
from agent_jobs.audit import audit_log
from agent_jobs.conversation import agent_messages, edits
from agent_jobs.errors import Conflict
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import activities, endings, queues, running_caps
from agent_jobs.models import Approval, Job, Message
from agent_jobs.reads import queries
from agent_jobs.runners.base import Wake
from agent_jobs.specs import Actor
from agent_jobs.states import ActivityStatus, JobStatus, SourceType, WaitingFor
from agent_jobs.tenants import stored_bytes
from channels_integration import outbox, send_results
from channels_integration.messages import Delivery, Did, Incoming
from infra import prepared_sql

_DELIVERER = Actor("system", "delivery")
_OF_THREAD = """
org_id = %(org)s AND platform = %(platform)s AND channel_code = %(code)s AND thread = %(thread)s
    AND status IN ('WAITING', 'RUNNING') AND started_at IS NOT NULL
    AND (%(team)s = '' OR coalesce(channel_data ->> 'team_id', %(team)s) = %(team)s)
ORDER BY id"""
_HEARD = """
WITH line AS (
    INSERT INTO agent_jobs_message (key, job_id, is_human, author, text, delivered_at, platform_message_id)
    VALUES (%(key)s, %(job)s, true, %(author)s, %(text)s, statement_timestamp(), %(message)s)
), told AS (
    INSERT INTO agent_jobs_activity (id, org_id, job_id, code, note, actor, life, source_type, input, processed_at)
    VALUES (%(key)s, %(org)s, %(job)s, 'message.in', %(note)s, %(actor)s, %(life)s, %(source)s,
        %(input)s::json, statement_timestamp())
)
UPDATE agent_jobs_job SET inbox_count = inbox_count + 1, updated_at = statement_timestamp(),
    first_reply_at = coalesce(first_reply_at, statement_timestamp())
WHERE id = %(job)s
"""
_TOLD = """
WITH heard AS (
    UPDATE agent_jobs_message SET delivered_at = statement_timestamp()
    WHERE job_id = %(job)s AND key = %(message)s AND %(is_sent)s
)
UPDATE agent_jobs_activity SET status = %(status)s, processed_at = statement_timestamp(),
    updated_at = statement_timestamp()
WHERE id = %(message)s RETURNING life
"""
_BEGIN = """
UPDATE agent_jobs_job SET thread = CASE WHEN %(thread)s = '' THEN thread ELSE %(thread)s END,
    wake_at = CASE WHEN %(seconds)s::float8 IS NULL THEN wake_at
        ELSE statement_timestamp() + make_interval(secs => %(seconds)s) END,
    timer_message_id = CASE WHEN %(seconds)s::float8 IS NULL THEN timer_message_id END,
    updated_at = statement_timestamp()
WHERE id = %(job)s
"""


def receive(incoming: Incoming) -> bool:
    """Handle a message, an edit, a deletion or a button press of a person. Returns True if it has been dealt with.

    False: no job takes it. The caller passes each event only once.
    """
    if incoming.did == Did.PRESSED:
        return button_presses.receive(incoming)
    if incoming.did in (Did.EDITED, Did.DELETED):
        return edits.receive(incoming)
    return _hear(incoming)


def _hear(incoming: Incoming) -> bool:
    """Give a person's message to its job, and wake the job if it waits for a reply."""
    job = _listener(incoming)
    if job is None:
        return False
    if job.config.get("on_message") == "reject" and job.lease_until is not None:
        return _turned_away(job, incoming)
    heard = {
        "key": uuid7(),
        "org": job.org_id,
        "job": job.pk,
        "author": incoming.author,
        "text": incoming.text,
        "message": incoming.message_id[:255],
        "note": f"{incoming.author} said: {incoming.text[:200]}",
        "actor": f"person:{incoming.author}"[:255],
        "life": job.retry_count,
        "source": SourceType.DIRECT,
        "input": json.dumps({"text": incoming.text, "author": incoming.author}),
    }
    prepared_sql.run(_HEARD, heard)
    if job.waiting_for == WaitingFor.REPLY and lifecycle.ready_again(job):
        queues.ring_on_commit(job.lane)
    return True


def say(org_id: str, job_id: UUID, *, author: str, text: str, actor: Actor, now: datetime) -> Message:
    """Hand a person's message to a job on behalf of an app, as if it came from the job's own thread.

    Raises NotFound, Forbidden for another organisation's job, and Conflict if the job takes no messages: before it has
    begun, and after it has ended.
    """
    with transaction.atomic():
        job = queries.locked_job(org_id, job_id)
        if job.is_terminal:
            raise Conflict(f"the job is already {job.status} and takes no replies", code="job_has_ended")
        if job.started_at is None:
            raise Conflict(f"the job is {job.status} and takes no replies before it has begun", code="job_not_begun")
        stored_bytes.admit_text(org_id, text)
        said = Message.objects.filter(job_id=job.pk, is_human=True).order_by("id")
        last = said.values_list("id", flat=True).last() or 0
        incoming = Incoming(
            org_id=org_id,
            platform=job.platform,
            code=job.channel_code,
            event_id=str(uuid7()),
            author=author,
            text=text,
            sent_at=now,
            thread=job.thread,
            owner_key=str(job.pk),
        )
        heard = receive(incoming)
        message = said.filter(id__gt=last).last() if heard else None
        if message is None:
            raise Conflict("the job takes no replies now", code="reply_refused")
        audit_log.record(
            org_id,
            "message.brought_in",
            job.pk,
            object_type="job",
            actor=actor,
            after={"message_id": str(message.key), "author": author},
        )
    return message


def _turned_away(job: Job, incoming: Incoming) -> bool:
    """Reject a message during a turn, as the job type's `on_message` says, and ask the person to write again."""
    activities.note(
        job,
        "message.rejected",
        f"{incoming.author} was asked to wait, having said: {incoming.text[:200]}",
        actor=Actor("person", incoming.author),
        source=SourceType.DIRECT,
        input={"text": incoming.text, "author": incoming.author},
    )
    agent_messages.say(job, "I am in the middle of something: please write again when I have answered.")
    return True


def awaits(incoming: Incoming) -> bool:
    """Whether a job listens in the message's thread or direct channel now. Locks nothing."""
    alive = edits.under_way(incoming)
    return alive.filter(thread=incoming.thread).exists() if incoming.thread else incoming.is_direct and alive.exists()


def _listener(incoming: Incoming) -> Job | None:
    """The job that a message is for, with its row locked.

    That is the job that the message names, or whose thread it is in. At the top level of a direct channel it is the
    newest job; a job that waits for a reply comes first.
    """
    alive = edits.under_way(incoming)
    if incoming.owner_key:
        candidates = alive.filter(pk=incoming.owner_key)
    elif incoming.thread:
        where = {
            "org": incoming.org_id,
            "platform": incoming.platform,
            "code": incoming.code,
            "team": incoming.team,
            "thread": incoming.thread,
        }
        return prepared_sql.instance(Job, _OF_THREAD, where, and_then="FOR UPDATE")
    elif incoming.is_direct:
        # A job that has spoken and now waits for quiet hours to end also waits for a reply.
        is_asked = Q(waiting_for=WaitingFor.REPLY) | Q(waiting_for=WaitingFor.QUIET_HOURS) & ~Q(resume=Wake.START)
        waits = Case(When(is_asked, then=Value(0)), default=Value(1))
        candidates = alive.order_by(waits, F("started_at").desc())
    else:
        return None
    return candidates.select_for_update().first()


def settle_delivery(delivery: Delivery) -> None:
    """Record that a message of a job was sent or given up. Starts the job's follow-up timer, or ends the job."""
    job = prepared_sql.instance(Job, "id = %(id)s", {"id": delivery.owner_key}, and_then="FOR UPDATE")
    told = {
        "message": delivery.outgoing_id,
        "job": delivery.owner_key,
        "is_sent": delivery.is_sent,
        "status": _status_of(delivery),
    }
    life = prepared_sql.first(_TOLD, told)
    if job is None:
        return
    if life and life[0] < job.retry_count:
        # The message belongs to a life before the last retry: the current one neither waits for it nor fails with it.
        if _status_of(delivery) == ActivityStatus.CANCELED:
            Message.objects.filter(job_id=job.pk, key=delivery.outgoing_id).delete()
        return
    if job.status != JobStatus.RUNNING:
        return
    if delivery.receipt:
        _sent(job, delivery)
    else:
        _given_up(job, delivery)


def _status_of(delivery: Delivery) -> ActivityStatus:
    if delivery.is_sent:
        return ActivityStatus.COMPLETED
    is_unknown = delivery.error_code == send_results.DELIVERY_UNKNOWN
    return ActivityStatus.UNKNOWN if is_unknown else ActivityStatus.CANCELED


def _sent(job: Job, delivery: Delivery) -> None:
    seconds = _timer(job, delivery.outgoing_id)
    # Another thread than the job's: its first one, or a new one, because the old one is gone.
    thread = delivery.receipt.thread if delivery.receipt and delivery.receipt.thread != job.thread else ""
    if thread and (asked := lost_questions.asked_by(job, delivery)) and asked.asked_in:
        thread = ""  # the question stands in another channel
    if thread or seconds is not None:
        prepared_sql.run(_BEGIN, {"job": job.pk, "seconds": seconds, "thread": thread})
    _conclude(job)


def _conclude(job: Job) -> None:
    """End a job that only waits for its deliveries, if there are none left."""
    if job.waiting_for != WaitingFor.DELIVERY:
        return
    undelivered = agent_messages.undelivered(job.pk, job.retry_count)
    if undelivered.lost:
        _fail(job, *outbox.failure_of(undelivered.lost))
    elif not undelivered.pending:
        lifecycle.move_one(Event.COMPLETE, job, actor=_DELIVERER, note=endings.completed_note(job.result))
        running_caps.ring_for_place(job)


def _timer(job: Job, message_id: UUID) -> float | None:
    """Seconds, from now, that a job waits for an answer to this message (a follow-up or an approval timer).

    None if the job does not wait for this message.
    """
    seconds = job.timer_seconds or 0.0 if job.timer_message_id == message_id else None
    if job.waiting_for == WaitingFor.APPROVAL:
        begun = decisions.start_time(job, message_id)
        seconds = seconds if begun is None else begun
    if seconds is None or job.lease_until is not None or job.queue_at is not None:
        return None
    return seconds


def _given_up(job: Job, delivery: Delivery) -> None:
    """Fail a job whose message was lost, even in the middle of a turn, because it cannot complete any more.

    A lost question about an approval is an exception: it is asked in another channel, if the job's config names one.
    If not, people can decide over the API, so its time starts now.
    """
    if not Approval.objects.filter(job_id=job.pk, message_key=delivery.outgoing_id).exists():
        _fail(job, delivery.error_code, delivery.error_message)
        return
    asked = lost_questions.asked_by(job, delivery)
    begins_with = lost_questions.receive(job, asked, delivery) if asked else delivery.outgoing_id
    seconds = _timer(job, begins_with) if begins_with else None
    if seconds is not None:
        prepared_sql.run(_BEGIN, {"job": job.pk, "seconds": seconds, "thread": ""})
    _conclude(job)


def _fail(job: Job, code: str, error: str) -> None:
    """Fail the job and withdraw its unsent messages, as every other end does."""
    message = endings.delivery_failure(code, error)
    agent_messages.withdraw(job)
    result = f"{endings.DELIVERY_FAILED}: {message}"
    lifecycle.fail_one(job, endings.DELIVERY_FAILED, message, actor=_DELIVERER, result=result)
    running_caps.ring_for_place(job)
