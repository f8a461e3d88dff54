"""Usage and cost of model calls: by day, and by job type and model, over the last weeks or on one day."""

from datetime import UTC, date, timedelta
from decimal import Decimal
from typing import Any

from django.http import HttpResponse

from agent_jobs.console import visits
from agent_jobs.console.visits import Visit
from agent_jobs.reads import job_lists, queries, usage_sums

_RANGES = (7, 30, 90)
_HEIGHT = 120.0
_MOST = 100


@visits.page
def usage(visit: Visit) -> HttpResponse:
    stated = visit.request.GET.get("days", "")
    days = int(stated) if stated in {str(each) for each in _RANGES} else 30
    today = visit.now.astimezone(UTC).date()
    since = today - timedelta(days=days - 1)
    rows = queries.usage(visit.org_id).filter(day__gte=since)
    by_day = {row["day"]: row for row in usage_sums.grouped(rows, ["day"])}
    day = _day(visit.request.GET.get("day", ""), since, today)
    shown = rows.filter(day=day) if day else rows
    by_type = list(usage_sums.grouped(shown, ["job_type_key", "model"]).order_by("-cost_sum", "job_type_key")[:_MOST])
    names = job_lists.type_names(visit.org_id)
    total = usage_sums.total(shown)
    whole = total["cost_sum"] or Decimal(1)
    context = {
        "days": days,
        "day": day,
        "ranges": _RANGES,
        "bars": _bars(by_day, since, days),
        "total": total,
        "today": by_day.get(today, {}).get("cost_sum", Decimal(0)),
        "cap": queries.org(visit.org_id).max_cost_per_day,
        "rows": [
            {
                **row,
                "name": names.get(row["job_type_key"], row["job_type_key"]),
                "share": float(row["cost_sum"] / whole * 100),
            }
            for row in by_type
        ],
        "since": since,
        "until": today,
    }
    return visit.render("usage.html", context, here="usage")


def _day(stated: str, since: date, until: date) -> date | None:
    try:
        day = date.fromisoformat(stated)
    except ValueError:
        return None
    return day if since <= day <= until else None


def _bars(by_day: dict[date, dict[str, Any]], since: date, days: int) -> list[dict[str, Any]]:
    """A bar for each UTC day; days without calls have none."""
    most = max((row["cost_sum"] for row in by_day.values()), default=Decimal(0)) or Decimal(1)
    width = 100 / days
    found = []
    for number in range(days):
        day = since + timedelta(days=number)
        cost = by_day[day]["cost_sum"] if day in by_day else Decimal(0)
        height = max(float(cost / most) * _HEIGHT, 2.0) if cost else 0.0
        found.append(
            {
                "x": number * width + width * 0.15,
                "width": width * 0.7,
                "y": _HEIGHT + 8 - height,
                "height": height,
                "day": day,
                "cost": cost,
            }
        )
    return found
