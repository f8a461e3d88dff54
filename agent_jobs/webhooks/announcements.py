"""Announces events that are not a job's (a trigger announces those of jobs), and words the body of a delivery."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent_jobs.webhooks.event_types import APPROVAL_EVENTS, SCHEDULE_EVENTS
from infra import raw_sql

_WANTED = """EXISTS (
    SELECT FROM agent_jobs_webhookendpoint WHERE org_id = %(org)s AND enabled AND %(event)s = ANY (event_types))"""
_IS_WANTED = f"SELECT {_WANTED}"
_ANNOUNCE = f"""
INSERT INTO agent_jobs_announcement (org_id, event, subject_id, payload)
SELECT %(org)s, %(event)s, %(subject)s, %(payload)s::json WHERE {_WANTED}
"""


def announce(org_id: str, event: str, subject_id: str, payload: Mapping[str, Any]) -> bool:
    """Announce an event of a schedule or an approval, in the transaction of its cause. False if no endpoint wants it.

    `payload` becomes the `data` that endpoints get. Calling twice announces twice.
    """
    assert event in (*SCHEDULE_EVENTS, *APPROVAL_EVENTS)
    announced = {"org": org_id, "event": event, "subject": subject_id[:64], "payload": json.dumps(payload)}
    return bool(raw_sql.run(_ANNOUNCE, announced))


def is_wanted(org_id: str, event: str) -> bool:
    """Whether an endpoint of the organisation wants the event, so that many announcements can be left out at once."""
    return bool(raw_sql.value(_IS_WANTED, {"org": org_id, "event": event}))


def body(event: str, at: datetime, payload: Any) -> dict[str, Any]:
    """As Standard Webhooks has it:

    `{"type": "job.completed", "timestamp": "2026-01-31T09:00:00.000000Z", "data": …}`
    """
    stamp = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"type": event, "timestamp": stamp, "data": payload}
