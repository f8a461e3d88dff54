"""The inbox of approvals: what waits for a person, the arguments as a form, and what was said before."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponse

from agent_jobs.approvals import decisions
from agent_jobs.console import job_lines, schedule_lines, schema_form, visits
from agent_jobs.console.templatetags.console import humanized
from agent_jobs.console.visits import Visit
from agent_jobs.reads import approval_lists, job_lists, queries
from agent_jobs.tenants import members

_LABELS = {"pending": "Pending", "decided": "Decided", "expired": "Ran out"}
_URGENT_SECONDS = 15 * 60
_MESSAGES = 4
_DECIDED_BESIDE = 5
_OUTCOMES = {
    "approved": ("completed", "completed", "Approved"),
    "denied": ("canceled", "failed", "Denied"),
    "expired": ("canceled", "canceled", "Ran out"),
}


@visits.page
def approvals(visit: Visit, approval_id: UUID | None = None) -> HttpResponse:
    which = visit.request.GET.get("which", "pending")
    which = which if which in approval_lists.WHICH else "pending"
    found = approval_lists.rows(visit.org_id, which)
    chosen = approval_lists.row(visit.org_id, approval_id) if approval_id else found[0] if found else None
    if approval_id and chosen is None:
        raise decisions.not_found(str(approval_id), denied=("approval", str(approval_id)))
    beside = approval_lists.rows(visit.org_id, "decided", most=_DECIDED_BESIDE) if which == "pending" else []
    types, names = job_lists.type_names(visit.org_id), members.full_names(visit.org_id)
    pending = len(found) if which == "pending" else None
    context = {
        "which": which,
        "tabs": [(name, label, pending if name == "pending" else None) for name, label in _LABELS.items()],
        "lines": [_line(visit, row, types, names) for row in found],
        "decided": [_line(visit, row, types, names) for row in beside],
        "chosen": _chosen(visit, chosen, types, names) if chosen else None,
        "is_opened": approval_id is not None,
    }
    return visit.render("approvals.html", context, here="approvals")


def _line(visit: Visit, row: Mapping[str, Any], types: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    left, _ = time_left(visit, row)
    glyph, colour, outcome = _OUTCOMES.get(row["status"], ("canceled", "canceled", row["status"].capitalize()))
    if row["status"] == "approved" and row["edited_arguments"] is not None:
        outcome = "Approved, changed"
    return {
        **row,
        "title": _title(row),
        "type_name": _type_name(row, types),
        "seconds_left": left,
        "is_urgent": left is not None and left < _URGENT_SECONDS,
        "glyph": glyph,
        "colour": colour,
        "outcome": outcome,
        "by": schedule_lines.author(row["decided_by"], names) if row["decided_by"] else "nobody",
    }


def _chosen(visit: Visit, row: Mapping[str, Any], types: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    is_pending = row["status"] == "pending"
    has_form = row["kind"] == "tool" and row["tool"] != "ask_approval"
    schema = queries.approval_schema(visit.org_id, row["id"]) if has_form and is_pending else {}
    left, share_left = time_left(visit, row)
    said = queries.messages(visit.org_id, row["job_id"]).order_by("-id").values(*queries.MESSAGE_COLUMNS)[:_MESSAGES]
    return {
        "row": row,
        "line": _line(visit, row, types, names),
        "title": _title(row),
        "type_name": _type_name(row, types),
        "is_pending": is_pending,
        "is_ended": row["job__status"] not in ("SCHEDULED", "WAITING", "RUNNING"),
        "has_form": has_form and bool(row["arguments"]),
        "fields": schema_form.fields(schema, row["arguments"]) if has_form and is_pending else (),
        "taken": row["edited_arguments"] if row["edited_arguments"] is not None else row["arguments"],
        "seconds_left": left,
        "share_left": share_left,
        "approvers": schedule_lines.deciders(row["approvers"], names),
        "channel": job_lines.channel_name(
            {
                "platform": row["job__platform"],
                "channel_code": row["job__channel_code"],
                "channel_data": row["job__channel_data"] or {},
            },
            {},
        ),
        "said": [{**each, "initials": visits.initials(each["author"] or "Agent")} for each in reversed(list(said))],
    }


def _title(row: Mapping[str, Any]) -> str:
    about = job_lines.about(row["few_params"], row["job__tags"])
    return about or row["question"][:90] or row["tool"]


def _type_name(row: Mapping[str, Any], types: Mapping[str, str]) -> str:
    key = row["job__job_type_key"]
    return types.get(key) or humanized(key)


def time_left(visit: Visit, row: Mapping[str, Any]) -> tuple[float | None, float]:
    """Seconds until a pending approval runs out, and their share of the whole time, in percent.

    None if the time has not begun, because the question is not delivered yet.
    """
    if row["status"] != "pending" or row["timer_seconds"] is not None:
        return None, 0.0
    left = max((row["expires_at"] - visit.now).total_seconds(), 0.0)
    whole = (row["expires_at"] - row["created_at"]).total_seconds()
    return left, min(left / whole, 1.0) * 100 if whole > 0 else 0.0
