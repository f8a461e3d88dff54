"""Writes one activity of a job. Moves, and statements for many rows at once, write their own."""

import json
from typing import Any
from uuid import UUID

from agent_jobs.models import Job
from agent_jobs.specs import Actor
from agent_jobs.states import ActivityStatus, SourceType
from infra import prepared_sql

MAX_ACTOR = 255
_NOTE = """
INSERT INTO agent_jobs_activity
    (id, org_id, job_id, code, status, note, actor, request_id, life, source_type, input, output, processed_at)
VALUES (coalesce(%(id)s, uuidv7()), %(org)s, %(job)s, %(code)s, %(status)s, %(note)s, %(actor)s, %(request)s, %(life)s,
    %(source)s, %(input)s::json, %(output)s::json, CASE WHEN %(done)s THEN statement_timestamp() END)
"""


def note(
    job: Job,
    code: str,
    text: str,
    *,
    actor: Actor | None = None,
    source: SourceType = SourceType.DISPATCH,
    status: ActivityStatus = ActivityStatus.COMPLETED,
    id: UUID | None = None,
    input: Any = None,
    output: Any = None,
) -> None:
    """Write an activity in the transaction of its cause. `text` is for people.

    `id`: set if another row shares it, as a message does. An activity with the status SUBMITTED is not processed yet.
    """
    prepared_sql.run(
        _NOTE,
        {
            "id": id,
            "org": job.org_id,
            "job": job.pk,
            "code": code,
            "status": str(status),
            "note": text,
            "actor": str(actor)[:MAX_ACTOR] if actor else "",
            "request": actor.request_id if actor else "",
            "life": job.retry_count,
            "source": str(source),
            "input": None if input is None else json.dumps(input),
            "output": None if output is None else json.dumps(output),
            "done": status != ActivityStatus.SUBMITTED,
        },
    )
