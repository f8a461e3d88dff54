"""A person's actions on one job: cancel, retry, replay, decide an approval, reply."""

import json
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs import approvers, jobs
from agent_jobs.approvals import decisions
from agent_jobs.console import job_lines, schema_form, visits
from agent_jobs.console.templatetags.console import sentence
from agent_jobs.console.visits import Visit
from agent_jobs.conversation import replies
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid
from agent_jobs.jobs import repeats
from agent_jobs.reads import job_life, queries
from agent_jobs.states import TERMINAL

_MAX_REASON = 1_000
_MAX_TEXT = 40_000


@visits.form
def cancel(visit: Visit, job_id: UUID) -> HttpResponse:
    """Ask whether to cancel the job, with a question whose button says so; cancel it on the answer."""
    page = visit.url("job", job_id)
    if visit.request.method == "POST":
        try:
            jobs.cancel(visit.org_id, job_id, actor=visit.actor, reason=_reason(visit), by=visit.name)
        except Conflict as error:
            return visit.refused("It was not canceled", sentence(error.message), address=page)
        return visit.said("The job is canceled", "It says nothing more. It can be retried.", address=page)
    row = queries.job(visit.org_id, job_id)
    if row["status"] in TERMINAL:
        text = f"It is {row['status'].lower()}, and nothing is left to cancel."
        return visit.ask("This job has ended already", text, here="jobs", back=page, keep="Keep it")
    return visit.ask(
        f"Cancel {job_lines.about(row['params'], row['tags']) or row['job_type_key']}?",
        "It ends at once and says nothing more. A canceled job can be retried.",
        "Cancel this job",
        here="jobs",
        back=page,
        keep="Keep it",
        is_danger=True,
        has_reason=True,
    )


@visits.action
def retry(visit: Visit, job_id: UUID) -> HttpResponse:
    page = visit.url("job", job_id)
    try:
        repeats.retry(visit.org_id, job_id, actor=visit.actor, reason=_reason(visit))
    except Conflict as error:
        return visit.refused("It was not retried", sentence(error.message), address=page)
    return visit.said("The job begins again", "It goes on from what people have seen.", address=page)


@visits.form
def replay(visit: Visit, job_id: UUID) -> HttpResponse:
    """A new job from the input of this one, with other params if somebody edits them."""
    life = job_life.of(visit.org_id, job_id)
    schema = queries.job_type_schema(visit.org_id, life.job["job_type_key"])
    sent = visit.request.POST.dict() if visit.request.method == "POST" else None
    complaint = ""
    if sent is not None:
        try:
            return _replayed(visit, life, schema, sent)
        except (Invalid, Conflict) as error:
            complaint = error.message
    context = {
        "job": life.job,
        "type_name": life.type_name,
        "fields": schema_form.fields(schema, life.job["params"], sent=sent),
        "from_step": (sent or visit.request.GET).get("from_step", "1"),
        "has_steps": bool(life.steps),
        "complaint": complaint,
        "back": visit.url("job", job_id),
    }
    return visit.render("replay.html", context, here="jobs", is_refused=bool(complaint))


@visits.action
def decide(visit: Visit, job_id: UUID, approval_id: UUID) -> HttpResponse:
    """Approve or deny. If somebody was quicker, the page says who, and what they decided."""
    sent = visit.request.POST
    page = visit.back(visit.url("job", job_id))
    decision = "approve" if sent.get("decision") == "approve" else "deny"
    try:
        arguments = _arguments(visit, job_id, approval_id) if sent.get("edited") and decision == "approve" else None
        decisions.decide(
            visit.org_id,
            approval_id,
            decision,
            by=approvers.User(visit.username),
            actor=visit.actor,
            job_id=job_id,
            arguments=arguments,
            reason=_reason(visit),
        )
    except (Conflict, Invalid, Forbidden) as error:
        if error.denied:
            raise
        return visit.refused("It was not decided", sentence(error.message), address=page)
    return visit.said("Approved" if decision == "approve" else "Denied", "The agent goes on with it.", address=page)


@visits.action
def reply(visit: Visit, job_id: UUID) -> HttpResponse:
    text = visit.request.POST.get("text", "").replace("\r\n", "\n").strip()
    page = f"{visit.url('job', job_id, tab='conversation')}#end"
    if not text or len(text) > _MAX_TEXT or "\x00" in text:
        return visit.refused("Nothing was sent", f"Write a text of 1 to {_MAX_TEXT:,} characters.", address=page)
    try:
        replies.say(visit.org_id, job_id, author=visit.name, text=text, actor=visit.actor, now=visit.now)
    except Conflict as error:
        return visit.refused("Nothing was sent", sentence(error.message), address=page)
    return visit.go(page)


def _replayed(visit: Visit, life: job_life.JobLife, schema: Any, sent: dict[str, str]) -> HttpResponse:
    stated = sent.get("from_step", "1") or "1"
    if not (stated.isascii() and stated.isdigit()):
        raise Invalid(FieldError("from_step", "invalid", "must be a whole number"))
    old = life.job["params"]
    has_form = any(name.startswith(schema_form.PREFIX) for name in sent)
    params = schema_form.read(schema, sent, values=old) if has_form else old
    changed = {name: value for name, value in params.items() if name not in old or not _is_same(old[name], value)}
    removed = {name: None for name in old if name not in params} if has_form else {}
    changes = repeats.Changes(params={**changed, **removed}, from_step=int(stated))
    made = repeats.replay(visit.org_id, life.job["id"], changes, actor=visit.actor)
    return visit.said("A new job is made", "It replays this input.", address=visit.url("job", made.pk))


def _arguments(visit: Visit, job_id: UUID, approval_id: UUID) -> dict[str, Any]:
    row = queries.approval_of(visit.org_id, job_id, approval_id)
    if row is None:
        raise decisions.not_found(str(approval_id))
    schema = queries.approval_schema(visit.org_id, approval_id)
    return schema_form.read(schema, visit.request.POST.dict(), values=row["arguments"])


def _is_same(one: Any, other: Any) -> bool:
    """Python holds 1 == true; JSON does not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _reason(visit: Visit) -> str:
    return visit.request.POST.get("reason", "").replace("\x00", "").strip()[:_MAX_REASON]
