"""One job: why it waits, what happened when, what was said, what it cost, and what helps."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs import work
from agent_jobs.api import job_json, streams
from agent_jobs.console import (
    approvals_page,
    clock,
    conversation_items,
    job_lines,
    life_pieces,
    schedule_lines,
    schema_form,
    timeline,
    visits,
)
from agent_jobs.console.templatetags.console import humanized
from agent_jobs.console.visits import Visit
from agent_jobs.reads import explanations, job_life, job_lists, queries
from agent_jobs.reads.explanations import Explanation
from agent_jobs.reads.job_life import JobLife, StepLine
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.tenants import members

_MOST_ACTIVITIES = 500
_TITLE_LENGTH = 90
_MOST_HOLDERS = 5
_IS_TIME = re.compile(r"[0-9-]{10}T[0-9:]{8}Z")


@dataclass(frozen=True, slots=True)
class JobTab:
    key: str
    label: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class OpenApproval:
    row: Mapping[str, Any]
    seconds_left: float | None
    share_left: float
    fields: Sequence[schema_form.FormField]
    deciders: Sequence[str]


@visits.page
def job(visit: Visit, job_id: UUID) -> HttpResponse:
    life = job_life.of(visit.org_id, job_id)
    row = life.job
    query = visit.request.GET
    messages = _messages(visit, job_id)
    is_ended = row["status"] in TERMINAL
    approvals = [] if is_ended else queries.approvals_of(visit.org_id, job_id, is_pending=True)
    tabs = _tabs(life, len(messages))
    tab = query.get("tab", "") if query.get("tab") in {each.key for each in tabs} else tabs[0].key
    said = [(each["created_at"], each["is_human"], _said(visit, each, life)) for each in messages]
    is_true_scale = query.get("scale") == "true"
    drawn = timeline.of(life, said, now=visit.now, zone=visit.zone, is_true_scale=is_true_scale)
    explanation = explanations.of(visit.org_id, job_id)
    context = {
        "life": life,
        "job": row,
        "title": job_lines.about(row["params"], row["tags"]) or life.type_name or humanized(row["job_type_key"]),
        "type_name": life.type_name or humanized(row["job_type_key"]),
        "channel": life.channel_name or job_lines.channel_name(row, {}),
        "timeline": drawn,
        "is_true_scale": is_true_scale,
        "tabs": tabs,
        "tab": tab,
        "explanation": explanation,
        **_in_the_way(visit, explanation),
        "canceled": _canceled(visit, job_id) if row["status"] == JobStatus.CANCELED else "",
        "approval": _open_approval(visit, approvals, is_edited=query.get("edit") == "arguments"),
        "is_editing": query.get("edit") == "arguments",
        "is_ended": is_ended,
        "can_retry": row["status"] in (JobStatus.FAILED, JobStatus.CANCELED),
        "can_reply": row["started_at"] is not None and row["status"] not in TERMINAL and row["platform"] != "slack",
        "cap": _cap(row),
        "spent": life.cost,
        "tokens": sum(step.tokens for step in life.steps),
        "calls": sum(step.kind == "model" for step in life.steps),
        "failed_step": _failed_step(life),
        "steps_to_keep": _replayable(life),
        "alike": job_life.failed_alike(visit.org_id, row) if row["status"] == JobStatus.FAILED else (),
        "curl": _curl(visit, row),
        "is_curl_masked": bool(work.masked_fields(row["work"])),
        "version": streams.version(row["updated_at"], life.activities),
        **_tab_content(visit, tab, life, messages),
    }
    if context["alike"]:
        wanted = queries.jobs(visit.org_id).filter(status="FAILED", error_code=row["error_code"])
        context["alike_count"] = job_lists.numbers([wanted])[0]
        context["alike"] = [
            {**each, "about": job_lines.about(each["params"], each["tags"])} for each in context["alike"]
        ]
    return visit.render("job.html", context, here="jobs")


def _tabs(life: JobLife, messages: int) -> list[JobTab]:
    conversation = JobTab("conversation", "Conversation", messages)
    steps = JobTab("steps", "Steps", len(life.steps))
    first = [steps, conversation] if life.job["status"] == JobStatus.FAILED and life.steps else [conversation, steps]
    if not messages and not life.steps:
        first = first[::-1]
    if life.claims:
        attempts = JobTab("attempts", "Attempts", len(life.claims))
        # Only agents have steps and say something; other runners have attempts.
        first = [*first, attempts] if life.steps or messages else [attempts]
    rest = [JobTab("activities", "Activities", life.activities), JobTab("input", "Input and config")]
    if life.job["result"] is not None or life.job["result_data"] is not None:
        rest.append(JobTab("result", "Result"))
    return [*first, *rest, JobTab("raw", "Raw JSON")]


def _tab_content(visit: Visit, tab: str, life: JobLife, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    match tab:
        case "conversation":
            stretches = life_pieces.of(life.job, life.claims, now=visit.now)
            return {"items": conversation_items.of(visit, life, messages, stretches)}
        case "steps":
            chosen = _chosen_step(visit, life)
            asked, came = job_life.call(visit.org_id, chosen) if chosen else (None, None)
            folded = _folded(life, chosen) if "all" not in visit.request.GET else []
            lives = [(number, [step for step in steps if step not in folded]) for number, steps in _lives(life)]
            return {"chosen": chosen, "asked": asked, "came": came, "lives": lives, "folded": folded}
        case "attempts":
            return _attempts(visit, life)
        case "activities":
            found = queries.activities(visit.org_id).filter(job_id=life.job["id"]).order_by("-number")
            rows = found.values("number", "code", "status", "note", "actor", "created_at")[:_MOST_ACTIVITIES]
            names = members.full_names(visit.org_id)
            return {"activities": [{**row, "who": schedule_lines.author(row["actor"], names)} for row in rows]}
        case "raw":
            shown = job_json.of([queries.job(visit.org_id, life.job["id"])], is_detail=True)[0]
            return {"raw": json.dumps(shown, indent=2, ensure_ascii=False)}
    return {}


def _attempts(visit: Visit, life: JobLife) -> dict[str, Any]:
    """The attempts, the last first, and what the chosen one did: the last one unless the address names another."""
    job_id = life.job["id"]
    found = queries.attempts(visit.org_id, job_id).order_by("-number").values(*queries.ATTEMPT_COLUMNS)
    attempts = list(found[: job_life.MOST_CLAIMS])
    stated = visit.request.GET.get("attempt", "")
    chosen = next((each for each in attempts if str(each["number"]) == stated), attempts[0] if attempts else None)
    report = (queries.attempt(visit.org_id, job_id, chosen["id"])["report"] or {}) if chosen else {}
    outputs = [(name, report[name]) for name in ("stdout", "stderr") if isinstance(report.get(name), str)]
    rest = {name: value for name, value in report.items() if name not in ("stdout", "stderr")}
    return {"attempts": attempts, "attempt": chosen, "outputs": outputs, "report": rest}


def _lives(life: JobLife) -> list[tuple[int, list[StepLine]]]:
    """The steps of each life of the job, the last life first."""
    numbers = sorted({step.life for step in life.steps}, reverse=True)
    return [(number, [step for step in life.steps if step.life == number]) for number in numbers]


def _folded(life: JobLife, chosen: StepLine | None) -> list[StepLine]:
    """The steps that went well, long before the one that is shown: they are one row."""
    if chosen is None:
        return []
    before = [step for step in life.steps if step.life == chosen.life and step.number < chosen.number - 3]
    well = [step for step in before if not step.has_failed and step.ended_at is not None]
    return well if len(well) > 2 and len(well) == len(before) else []


def _chosen_step(visit: Visit, life: JobLife) -> StepLine | None:
    stated = visit.request.GET.get("step", "")
    last = life.job["retry_count"]
    if stated.isascii() and stated.isdigit():
        return next((step for step in life.steps if step.life == last and step.number == int(stated)), None)
    return _failed_step(life)


def _failed_step(life: JobLife) -> StepLine | None:
    if life.job["status"] != JobStatus.FAILED:
        return None
    last = [step for step in life.steps if step.life == life.job["retry_count"] and step.has_failed]
    return last[-1] if last else None


def _replayable(life: JobLife) -> list[StepLine]:
    """The steps from which a replay may begin: those of the first turn, up to the first without an outcome."""
    last = sorted((step for step in life.steps if step.life == life.job["retry_count"]), key=lambda step: step.number)
    found: list[StepLine] = []
    for step in last:
        if step.turn != last[0].turn:
            break
        found.append(step)
        if step.ended_at is None:
            break
    return found


def _messages(visit: Visit, job_id: UUID) -> list[Mapping[str, Any]]:
    found = queries.messages(visit.org_id, job_id).order_by("-id").values(*queries.MESSAGE_COLUMNS)
    return list(found[: job_life.MOST_MESSAGES])[::-1]


def _said(visit: Visit, row: Mapping[str, Any], life: JobLife) -> str:
    who = row["author"] if row["is_human"] else "Agent"
    at = clock.short(row["created_at"], visit.zone, visit.now, seconds=True)
    return f"{who}, {at}: {row['text'][:_TITLE_LENGTH]}"


def _open_approval(visit: Visit, approvals: Sequence[Mapping[str, Any]], *, is_edited: bool) -> OpenApproval | None:
    if not approvals:
        return None
    row = approvals[-1]
    schema = queries.approval_schema(visit.org_id, row["id"]) if is_edited else {}
    fields = schema_form.fields(schema, row["arguments"]) if is_edited else ()
    names = members.full_names(visit.org_id) if row["approvers"] else {}
    deciders = schedule_lines.deciders(row["approvers"], names)
    return OpenApproval(row, *approvals_page.time_left(visit, row), fields, deciders)


def _canceled(visit: Visit, job_id: UUID) -> str:
    more = job_lists.more(visit.org_id, [job_id])
    return job_lines.canceled(more[job_id], members.full_names(visit.org_id)) if job_id in more else ""


def _in_the_way(visit: Visit, explanation: Explanation) -> dict[str, Any]:
    """The holders of the job, and the events that end its wait: jobs by their subject, not by their id."""
    holders = explanation.blocked_by[:_MOST_HOLDERS]
    names = job_lines.subjects(visit.org_id, [UUID(each.id) for each in holders if each.kind == "job"])
    unblocks = []
    for text in explanation.unblocks:
        for job_id, name in names.items():
            text = text.replace(f"job {job_id}", name)
        unblocks.append(f"{text}, by itself" if _IS_TIME.fullmatch(text) else text)
    return {"holders": [(each, names.get(each.id, each.id)) for each in holders], "unblocks": unblocks}


def _cap(row: Mapping[str, Any]) -> float | None:
    stated = row["config"].get("max_cost")
    try:
        return float(stated) if stated is not None else None
    except (TypeError, ValueError):
        return None


def _curl(visit: Visit, row: Mapping[str, Any]) -> str:
    """A command that posts the same job again, to start now. The secrets of its work are masked."""
    columns = {"platform": "platform", "code": "channel_code", "type": "channel_type", "data": "channel_data"}
    channel = {name: row[column] for name, column in columns.items() if row[column]}
    body = {
        "job_type_id": row["job_type_key"],
        **({"target_channel": {"org_id": row["org_id"], **channel}} if channel else {}),
        "params": row["params"],
        "config": row["config"],
        **{name: row[name] for name in ("work", "outcome_channel", "tags", "metadata") if row[name]},
        "priority": row["priority"],
    }
    address = visit.request.build_absolute_uri("/services/agent-jobs")
    shown = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return (
        f'curl -sS -X POST {address} -H "Authorization: Bearer $AGENT_JOBS_TOKEN"'
        f" -H 'Content-Type: application/json' -d '{shown}'"
    )
