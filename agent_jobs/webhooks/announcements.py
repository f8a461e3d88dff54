"""Announces events of schedules and approvals. A trigger announces those of jobs (migration 0026)."""

import json
from collections.abc import Mapping
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
