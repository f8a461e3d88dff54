"""Writes the activities of model calls and tool calls.

The activity of a hosted model call is written in the same transaction as its ledger entry, under the same id. So a
job's activities add up to what its budget shows, whatever happens to the turn. A turn that failed, was cut off or
canceled, or was lost with its worker still shows what its calls cost. A call that the provider refused shows the
refusal. A late reply to a call that was given up corrects its activity.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_jobs.models import Reservation, Step
from agent_jobs.states import ActivityStatus
from infra import prepared_sql
from infra.storable_text import storable

_NOTE_LENGTH = 200

# The job may be deleted by now; then there is no activity to write. The ledger holds larger sums than an activity, so a
# provider's absurd numbers must not keep a call from being closed.
_WRITE = """
INSERT INTO agent_jobs_activity AS a
    (id, org_id, job_id, code, status, note, source_type, execution_id, life, input, output, allocated_credits,
    consumed_credits, processed_at)
SELECT %(id)s, j.org_id, j.id, 'model.call', %(status)s, %(note)s, 'process_module', %(task)s, j.retry_count,
    %(input)s, %(output)s, least(%(allocated)s, 99999999.999999), least(%(consumed)s, 99999999.999999), now()
FROM agent_jobs_job j WHERE j.id = %(job)s
ON CONFLICT (id) DO UPDATE SET status = excluded.status, note = excluded.note,
    input = coalesce(excluded.input, a.input), output = excluded.output,
    consumed_credits = excluded.consumed_credits, updated_at = now()
"""
_MOST_ARGUMENTS = 4_000
_MOST_ANSWER = 1_000
_WRITE_TOOL = """
INSERT INTO agent_jobs_activity
    (id, org_id, job_id, code, status, note, source_type, execution_id, life, input, output, processed_at)
SELECT %(id)s, j.org_id, j.id, 'tool.call', %(status)s, %(note)s, 'process_module', %(task)s, %(life)s,
    %(input)s, %(output)s, now()
FROM agent_jobs_job j WHERE j.id = %(job)s
ON CONFLICT (id) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A call's task, input and output. `error` says why there is no output."""

    task_id: str | None = None
    input: Mapping[str, Any] | None = None
    output: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def write(row: Reservation, told: Told) -> None:
    """Upsert the `model.call` activity of a settled reservation."""
    note = f"asked model {row.model}"
    if told.error:
        note += f": {storable(told.error)[:_NOTE_LENGTH]}"  # the provider's own words
        if row.cost or row.input_tokens:
            note += "; all that was set aside for it is counted"
    output = {**told.output, "input_tokens": row.input_tokens, "output_tokens": row.output_tokens}
    status = ActivityStatus.FAILED if told.error else ActivityStatus.COMPLETED
    written = {"id": row.pk, "job": row.job_id, "task": told.task_id, "status": status, "note": note}
    money = {"allocated": row.reserved_cost, "consumed": row.cost}
    asked = None if told.input is None else json.dumps(told.input)
    prepared_sql.run(_WRITE, {**written, **money, "input": asked, "output": json.dumps(output)})


def write_tool(
    step: Step, output: Mapping[str, Any], arguments: Any, *, task_id: str, seconds: float | None = None
) -> None:
    """Write the activity of a finished tool call, in the transaction of its outcome. `arguments` contain no secrets."""
    failed = bool(output.get("error") or output.get("is_error"))
    text = str(output.get("text") or output.get("message") or "")
    came: dict[str, Any] = {"outcome": "failed" if failed else "answered", "text": _short(text, _MOST_ANSWER)}
    came |= {"error": output["error"]} if output.get("error") else {}
    came |= {"seconds": round(seconds, 3)} if seconds is not None else {}
    written = json.dumps(arguments, ensure_ascii=False)
    is_short = len(written) <= _MOST_ARGUMENTS
    given = {"tool": step.name, "step": step.number}
    given |= {"arguments": arguments} if is_short else {"arguments_cut": _short(written, _MOST_ARGUMENTS)}
    note = f"called tool {step.name}{f': {text[:_NOTE_LENGTH]}' if failed else ''}"
    whose = {"id": step.pk, "job": step.job_id, "life": step.life, "task": task_id, "note": storable(note)}
    status = ActivityStatus.FAILED if failed else ActivityStatus.COMPLETED
    told = {"input": json.dumps(storable(given)), "output": json.dumps(storable(came))}
    prepared_sql.run(_WRITE_TOOL, {**whose, "status": status, **told})


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
