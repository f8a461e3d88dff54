"""The audit: who changed what, newest first, with filters in the address."""

from typing import Any

from django.http import HttpResponse

from agent_jobs.console import schedule_lines, visits
from agent_jobs.console.visits import Visit
from agent_jobs.reads import queries
from agent_jobs.tenants import members

PAGE = 50
_FILTERS = ("action", "object_type", "object_id", "actor")
_MOST_TEXT = 255


@visits.admin_page
def audit(visit: Visit) -> HttpResponse:
    query = visit.request.GET
    asked = {name: query.get(name, "").replace("\x00", "").strip()[:_MOST_TEXT] for name in _FILTERS}
    asked = {name: value for name, value in asked.items() if value}
    found = queries.audit_entries(visit.org_id).filter(**asked).order_by("-at", "-id")
    before = query.get("before", "")
    if before.isascii() and before.isdigit() and len(before) < 19:
        last = queries.audit_entries(visit.org_id).filter(pk=int(before)).values("at", "id").first()
        if last is not None:
            found = found.filter(at__lte=last["at"]).exclude(pk__gte=last["id"], at=last["at"])
    rows = list(found.values(*queries.AUDIT_COLUMNS)[: PAGE + 1])
    names = members.full_names(visit.org_id)
    context = {
        "entries": [_entry(row, names) for row in rows[:PAGE]],
        "has_more": len(rows) > PAGE,
        "last_id": rows[:PAGE][-1]["id"] if rows else None,
        "asked": [(name, asked.get(name, "")) for name in _FILTERS],
        "is_filtered": bool(asked),
        "is_later": bool(before),
    }
    return visit.render("audit.html", context, here="audit")


def _entry(row: dict[str, Any], names: Any) -> dict[str, Any]:
    changed = [
        (name, (row["before"] or {}).get(name), (row["after"] or {}).get(name))
        for name in dict.fromkeys((*(row["before"] or {}), *(row["after"] or {})))
    ]
    return {**row, "who": schedule_lines.author(row["actor"], names) if row["actor"] else "", "changed": changed}
