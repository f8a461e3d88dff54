"""Reads, plans, writes and closes the step rows of a turn."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from django.db.models import Max
from uuid_utils.compat import uuid7

from agent_jobs import llm
from agent_jobs.errors import LeaseLost
from agent_jobs.lifecycle import Claim
from agent_jobs.models import Step
from infra import prepared_sql
from infra.storable_text import storable

_INSERT = """
INSERT INTO agent_jobs_step (id, org_id, job_id, life, number, turn, kind, name, call_id, input)
SELECT %(id)s, org_id, id, %(life)s, %(number)s, %(turn)s, %(kind)s, %(name)s, %(call)s, %(input)s FROM (
    SELECT id, org_id FROM agent_jobs_job
    WHERE id = %(job)s AND lease_token = %(token)s AND status = 'RUNNING' AND lease_until IS NOT NULL
    FOR NO KEY UPDATE) mine
ON CONFLICT (id) DO UPDATE SET name = excluded.name
"""
_UPDATE = """
UPDATE agent_jobs_step SET output = %(output)s, ended_at = statement_timestamp() WHERE id = %(id)s AND output IS NULL
"""
_REWRITE = "UPDATE agent_jobs_step SET output = %(output)s WHERE id = %(id)s"


class Walk:
    """A cursor over the steps of one turn, in the order in which they were recorded."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._found: list[Step] = []
        self._place = self._number = 0

    def read(self) -> None:
        mine = Step.objects.filter(job_id=self._claim.id, life=self._claim.life)
        self._number = mine.aggregate(last=Max("number"))["last"] or 0
        found = mine.filter(turn=self._claim.turn).order_by("number")
        self._found = [step for step in found if "error" not in (step.output or {})]

    @property
    def ahead(self) -> Sequence[Step]:
        """The recorded steps that this pass has not reached yet."""
        return self._found[self._place :]

    def recorded(self, kind: Step.Kind, *, call_id: str = "") -> Step | None:
        """The next recorded step, if it has this kind and call id. Otherwise None, and the cursor does not move."""
        step = next(iter(self.ahead), None)
        if step is None or step.kind != kind or step.call_id != call_id[:128]:
            return None
        self._place += 1
        return step

    def planned(self, kind: Step.Kind, name: str, given: Mapping[str, Any], *, call_id: str = "") -> Step:
        """A new next step, not written yet."""
        self._number += 1
        return Step(
            id=uuid7(),
            org_id=self._claim.org_id,
            job_id=self._claim.id,
            life=self._claim.life,
            number=self._number,
            turn=self._claim.turn,
            kind=kind,
            name=name,
            call_id=call_id[:128],
            input=given,
        )

    def insert(self, step: Step) -> None:
        """Write a planned step; needs a transaction. Idempotent, because a commit may succeed without acknowledgement.

        Locks the job's row. Raises LeaseLost if this process no longer holds the job.
        """
        place = {"id": step.pk, "life": step.life, "number": step.number, "turn": step.turn}
        given = json.dumps(storable(step.input))
        call = {"kind": step.kind, "name": step.name, "call": step.call_id, "input": given}
        if not prepared_sql.run(_INSERT, {**place, **call, "job": self._claim.id, "token": self._claim.token}):
            raise LeaseLost("this worker no longer holds the job")


def close(step: Step, output: Mapping[str, Any]) -> bool:
    """Write the outcome of a step. Returns False if it has one already, or was never written. `step.output` is the one
    that holds.
    """
    if prepared_sql.run(_UPDATE, {"id": step.pk, "output": json.dumps(storable(output))}):
        step.output = dict(output)
        return True
    step.output = Step.objects.filter(pk=step.pk).values_list("output", flat=True).first()
    return False


def rewrite(step: Step, output: Mapping[str, Any]) -> None:
    """Replace the outcome of a step."""
    prepared_sql.run(_REWRITE, {"id": step.pk, "output": json.dumps(storable(output))})


def reply_of(record: Mapping[str, Any]) -> llm.Reply:
    """The reply that a step recorded. Ignores fields that only another release knows."""
    known = {field.name for field in fields(llm.Reply)}
    made: dict[str, Any] = {name: value for name, value in record.items() if name in known}
    made["calls"] = tuple(llm.ToolCall(call["id"], call["name"], call["arguments"]) for call in record["calls"])
    made["usage"] = llm.Usage(record["usage"]["input_tokens"], record["usage"]["output_tokens"])
    made["before"] = tuple(record.get("before") or ())
    if slip := record.get("slip"):
        made["slip"] = llm.Slip(slip["code"], slip["what"], slip["mend"], slip["is_final"])
    return llm.Reply(**made)
