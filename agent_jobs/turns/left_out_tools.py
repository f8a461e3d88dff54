"""Records the tools of MCP servers that an agent could not be offered, with the reasons.

One activity for each life of a job and each set of reasons: a turn that finds the same ones again writes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from uuid import NAMESPACE_URL, uuid5

from agent_jobs.lifecycle import Claim
from agent_jobs.tools import LeftOut
from infra import prepared_sql
from infra.storable_text import storable

CODE = "tools.left_out"
_MOST_TOLD = 50
_NOTE_LENGTH = 200
_WRITE = """
INSERT INTO agent_jobs_activity
    (id, org_id, job_id, code, status, note, source_type, execution_id, life, input, output, processed_at)
SELECT %(id)s, j.org_id, j.id, 'tools.left_out', 'failed', %(note)s, 'process_module', %(task)s, j.retry_count,
    NULL, %(output)s, now()
FROM agent_jobs_job j WHERE j.id = %(job)s
ON CONFLICT (id) DO NOTHING
"""


def record(claim: Claim, left_out: Sequence[LeftOut]) -> None:
    if not left_out:
        return
    told = [storable(asdict(one)) for one in left_out[:_MOST_TOLD]]
    output = json.dumps({"left_out": told, "count": len(left_out)})
    first = left_out[0]
    what = f"the tool {first.tool!r} of {first.server}" if first.tool else f"the tool server {first.server}"
    more = f"; and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    note = f"not offered: {what}, {first.reason}"[: _NOTE_LENGTH - len(more)] + more
    named = uuid5(NAMESPACE_URL, f"{claim.id} {claim.life} {output}")
    whose = {"id": named, "job": claim.id, "task": claim.task_id}
    prepared_sql.run(_WRITE, {**whose, "note": storable(note), "output": output})
