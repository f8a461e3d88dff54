"""A new job from a form: the type's params, the channel, the time and the random delay."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse

from agent_jobs import jobs
from agent_jobs.api.jobs import JobRequest, job_spec, problems
from agent_jobs.console import body_checks, job_form, visits
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, QuotaReached
from agent_jobs.specs import DEFAULT_PRIORITY, MAX_DELAY_MINUTES, PRIORITIES, JobSpec
from channels_integration import platforms
from channels_integration.errors import InvalidField, UnknownChannel

_SHOWN = frozenset(
    {
        *("target_channel.platform", "target_channel.code", "scheduled_at", "delay", "tags", "priority", "params"),
        *("config", "work"),
    }
)
_REFUSALS = (Conflict, Forbidden, Invalid, NotFound, QuotaReached, InvalidField, UnknownChannel)


@visits.form
def new_job(visit: Visit) -> HttpResponse:
    if visit.request.method == "POST":
        return _made(visit)
    offered = job_form.types_offered(visit.org_id)
    chosen = visit.request.GET.get("type", "")
    if chosen not in {each["key"] for each in offered}:
        context = {"offered": offered, "title": "New job", "back": visit.url("jobs"), "what": "job"}
        return visit.render("choose_type.html", context, here="jobs")
    return _form(visit, {"job_type_id": chosen, "platform": "web", "priority": str(DEFAULT_PRIORITY)})


def _form(visit: Visit, values: Mapping[str, str], refused: Mapping[str, str] | None = None) -> HttpResponse:
    sent = values if refused else None
    told = refused or {}
    key = values.get("job_type_id", "")
    context = {
        "values": values,
        "job_type": next((each for each in job_form.types_offered(visit.org_id) if each["key"] == key), {"name": key}),
        "channels": job_form.channels(visit.org_id),
        "params": job_form.params(visit.org_id, key, {}, sent=sent),
        "has_more": any(values.get(name) for name in job_form.values({})),
        "platforms": platforms.NAMES,
        "priorities": list(PRIORITIES),
        "problems": {**told, **{name.rpartition(".")[2]: message for name, message in told.items()}},
        "rest": [f"{field}: {message}" for field, message in told.items() if field not in _SHOWN],
        "back": visit.url("jobs"),
    }
    return visit.render("job_new.html", context, here="jobs", is_refused=bool(refused))


def _made(visit: Visit) -> HttpResponse:
    sent = visit.request.POST.dict()
    try:
        made = jobs.create(visit.org_id, _spec(visit, sent), actor=visit.actor)
    except _REFUSALS as error:
        return _form(visit, sent, body_checks.told(error))
    return visit.said("The job is made", address=visit.url("job", made.pk))


def _spec(visit: Visit, sent: Mapping[str, str]) -> JobSpec:
    key = sent.get("job_type_id", "")
    at = body_checks.moment(sent.get("scheduled_at", ""), "scheduled_at", visit.zone)
    delay = body_checks.whole(sent.get("delay", ""), "delay") or 0
    if delay > MAX_DELAY_MINUTES:
        raise Invalid(FieldError("delay", "invalid", f"must be at most {MAX_DELAY_MINUTES:,} minutes"))
    priority = body_checks.whole(sent.get("priority", ""), "priority")
    body: dict[str, Any] = {
        "job_type_id": key,
        "params": job_form.read_params(visit.org_id, key, sent, {}),
        "tags": sent.get("tags", "").strip(),
        "priority": DEFAULT_PRIORITY if priority is None else priority,
        **job_form.read(sent),
    }
    code = sent.get("code", "").strip()
    if code or "work" not in body:
        body["target_channel"] = {"org_id": visit.org_id, "platform": sent.get("platform", ""), "code": code}
    fields = {**body_checks.checked(JobRequest, body), "scheduled_at": at}
    if errors := problems(fields):
        raise Invalid(*errors)
    return job_spec(fields, delay_minutes=delay, token_pk=None)
