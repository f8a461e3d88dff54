"""The audit log: immutable entries, and a hash chain of seals per organisation that reveals tampering.

A trigger (migration 0004) writes an entry for each move of a job. Services `record` their changes in the transaction of
the write. API handlers `record_denied` requests that were refused because the object belongs to another organisation.

Writers only insert and never wait for each other. A duty seals new entries each second. An entry's digest is the
SHA-256 of its canonical text (`CANONICAL`). A seal's hash is the SHA-256 of the previous hash, the canonical text of
the seal's organisation, number and time, and the digests of its entries in id order. Changing, removing or inserting an
entry therefore requires forging every later seal, and anyone who keeps a hash elsewhere detects that too
(`audit.verification`).
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now

from agent_jobs import duty_rounds
from agent_jobs.models import AuditEntry, AuditMark, WorkerProcess
from agent_jobs.specs import Actor
from infra import meters
from infra.storable_text import marked

MASK = "******"
BATCH = 10_000
MOST_DENIED = 200
_MOST_BATCHES = 10
_LOCK = (WorkerProcess.LOCK_SPACE, duty_rounds.LOCKS["audit"])
_MAX_ID = 600
_SECRET = re.compile(r"secret|password|token|digest|api_?key", re.IGNORECASE)

# The hashed text of an entry. Never change it: that would break every chain.
CANONICAL = """jsonb_build_array(e.id, e.org_id, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), e.txid,
    e.actor, e.request_id, e.action, e.object_type, e.object_id, e.before, e.after)::text"""
# The hashed text of a seal, next to the previous hash and the entries' digests.
CANONICAL_SEAL = (
    """jsonb_build_array(s.org_id, s.seq, to_char(s.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'))::text"""
)


# --- Entries ---------------------------------------------------------------------------------------------------
def record(
    org_id: str,
    action: str,
    object_id: object,
    *,
    actor: Actor,
    object_type: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry; call it in the transaction of the change. Texts under secret-like names are masked.

    The first word of the action is the type of the object, if no other is given: `schedule.created`.
    """
    AuditEntry.objects.create(
        org_id=org_id,
        action=action,
        object_type=object_type or action.partition(".")[0],
        object_id=str(marked(str(object_id), "?"))[:_MAX_ID],
        actor=str(actor),
        request_id=actor.request_id,
        before=None if before is None else masked(before),
        after=None if after is None else masked(after),
    )


def record_change(
    org_id: str,
    object_type: str,
    object_id: object,
    *,
    actor: Actor,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
) -> None:
    """Record a creation if there is no `before`, else what differs, if anything does."""
    if before is None:
        record(org_id, f"{object_type}.created", object_id, actor=actor, after=after)
        return
    old, new = changes(before, after)
    if new:
        record(org_id, f"{object_type}.updated", object_id, actor=actor, before=old, after=new)


def record_denied(org_id: str, object_type: str, object_id: str, *, actor: Actor, method: str, code: str) -> None:
    """Record that an actor of `org_id` asked for an object of another organisation, or for one that does not exist.

    The entry must not reveal which, so both cases write it. It names the first object asked for. There is one entry an
    hour per actor, object type and method, and at most MOST_DENIED per organisation; a metric counts all.
    """
    meters.add("denied_accesses", kind=object_type)
    lately = AuditEntry.objects.filter(org_id=org_id, action="access.denied", at__gt=Now() - timedelta(hours=1))
    same = {"actor": str(actor), "object_type": object_type, "after__method": marked(method, "?")}
    if lately.filter(**same).exists() or lately.count() >= MOST_DENIED:
        return
    record(
        org_id,
        "access.denied",
        object_id,
        object_type=object_type,
        actor=actor,
        after={"method": marked(method, "?"), "code": code},
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys that differ between two states, before and after: `({"name": "A"}, {"name": "B"})`."""
    names = [name for name in after if name not in before or before[name] != after[name]]
    return {name: before[name] for name in names if name in before}, {name: after[name] for name in names}


def masked(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, name) for inner in value]
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return MASK if isinstance(value, str) and value and _SECRET.search(name) else value


# --- Seals -----------------------------------------------------------------------------------------------------
_LOOK = """
SELECT coalesce((SELECT max(id) FROM agent_jobs_auditentry), 0), coalesce(m.floor, 0), coalesce(m.candidate_id, 0),
    coalesce(m.candidate_txid <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        OR m.candidate_txid > pg_snapshot_xmax(pg_current_snapshot())::text::bigint, true)
FROM (SELECT 1) one LEFT JOIN agent_jobs_auditmark m ON m.id = 1
"""
_SEAL = f"""
WITH unsealed AS MATERIALIZED (
    SELECT e.id, e.org_id, sha256(convert_to({CANONICAL}, 'UTF8')) AS digest
    FROM agent_jobs_auditentry e
    JOIN (
        (SELECT id FROM agent_jobs_auditentry WHERE id > %(floor)s
            EXCEPT SELECT unnest(entry_ids) FROM agent_jobs_auditseal WHERE last_id > %(floor)s)
        ORDER BY id LIMIT %(batch)s
    ) unseen USING (id)
), s AS MATERIALIZED (
    SELECT found.*, coalesce(last.seq, 0) + 1 AS seq, coalesce(last.hash, '') AS prev_hash, now() AS at
    FROM (
        SELECT org_id, array_agg(id ORDER BY id) AS entry_ids, max(id) AS last_id,
            string_agg(digest, '' ORDER BY id) AS digests
        FROM unsealed GROUP BY org_id
    ) found
    LEFT JOIN LATERAL (
        SELECT seq, hash FROM agent_jobs_auditseal l WHERE l.org_id = found.org_id ORDER BY seq DESC LIMIT 1
    ) last ON true
), made AS (
    INSERT INTO agent_jobs_auditseal (org_id, seq, at, entry_ids, digests, last_id, prev_hash, hash)
    SELECT org_id, seq, at, entry_ids, digests, last_id, prev_hash,
        sha256(prev_hash || convert_to({CANONICAL_SEAL}, 'UTF8') || digests)
    FROM s
)
SELECT count(*) FROM unsealed
"""  # noqa: S608 - constants
_MOVE_MARK = f"""
INSERT INTO {AuditMark._meta.db_table} AS m (id, floor, candidate_id, candidate_txid)
VALUES (1, %(floor)s, %(candidate)s, pg_current_xact_id()::text::bigint)
ON CONFLICT (id) DO UPDATE SET floor = excluded.floor, candidate_id = excluded.candidate_id,
    candidate_txid = excluded.candidate_txid
"""  # noqa: S608 - a constant


def seal() -> int:
    """Seal every visible entry that has no seal yet. Returns how many; 0 at once if another process is sealing.

    Entries above the mark's floor are compared with the seals that reach above it. The floor lags: the highest id seen
    is a candidate, and becomes the floor once every transaction that was under way then has ended.
    """
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", _LOCK)
        if not cursor.fetchone()[0]:
            return 0
        # Read this before our transaction gets a number: every transaction that already has one then has a smaller one.
        # The snapshot's own upper end is not enough: it follows the last number that ended, not the last one assigned.
        cursor.execute(_LOOK)
        highest, floor, candidate, is_settled = cursor.fetchone()
        sealed = 0
        if highest > floor:
            is_all = False
            for _ in range(_MOST_BATCHES):
                cursor.execute(_SEAL, {"floor": floor, "batch": BATCH})
                (count,) = cursor.fetchone()
                sealed += count
                if is_all := count < BATCH:
                    break
            if is_settled and is_all:
                cursor.execute(_MOVE_MARK, {"floor": max(floor, candidate), "candidate": highest})
        duty_rounds.note_done("audit")
    return sealed
