"""Verifies the audit log: recomputes every chain and finds entries that have no seal.

It trusts only the tables of entries and seals. It cannot see a chain that was truncated together with its last entries,
or forged from some seal on. To detect that, keep the reported hashes elsewhere and pass one in.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from agent_jobs.audit.audit_log import CANONICAL, CANONICAL_SEAL
from infra import raw_sql

_SEALS_AT_ONCE = 500
_DIGEST = hashlib.sha256().digest_size

_ORGS = """
SELECT org_id FROM agent_jobs_auditseal UNION SELECT org_id FROM agent_jobs_auditentry
UNION SELECT id FROM agent_jobs_org ORDER BY 1
"""
# Creating an organisation writes its first entry, which is sealed within a second or so.
_SHOULD_HAVE_SEALS = """
SELECT EXISTS (SELECT FROM agent_jobs_org WHERE id = %s AND created_at < clock_timestamp() - interval '1 minute')
"""
_SEALS = f"""
SELECT s.seq, s.entry_ids, s.digests, s.last_id, s.prev_hash, s.hash, {CANONICAL_SEAL}
FROM agent_jobs_auditseal s WHERE s.org_id = %s AND s.seq > %s ORDER BY s.seq LIMIT {_SEALS_AT_ONCE}
"""  # noqa: S608 - constants
_ENTRIES = f"SELECT e.id, {CANONICAL} FROM agent_jobs_auditentry e WHERE e.id = ANY(%s)"  # noqa: S608 - a constant
# One minute is sixty times the sealing interval. An entry dated in the future is reported as well.
_UNSEALED = """
SELECT e.id FROM agent_jobs_auditentry e
JOIN (
    SELECT id FROM agent_jobs_auditentry WHERE org_id = %(org_id)s
        EXCEPT SELECT unnest(entry_ids) FROM agent_jobs_auditseal WHERE org_id = %(org_id)s
) unsealed USING (id)
WHERE e.at NOT BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() + interval '1 minute'
ORDER BY e.id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one organisation. `problem` is "" if every link holds. `head` is the last seal's hash.

    `entries` and `seals` are how many were read.
    """

    org_id: str
    entries: int
    seals: int
    head: str
    problem: str = ""


def orgs() -> list[str]:
    """All existing organisations, and any others that entries or seals name."""
    return [org_id for (org_id,) in raw_sql.all_rows(_ORGS)]


def verify(org_id: str, *, expected: str = "") -> Verdict:
    """Recompute the organisation's chain. `expected` is an earlier reported hash that the chain must still contain."""
    entries, seals, head, hashes = 0, 0, b"", set()
    problem = ""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        for seal, texts in _links(cursor, org_id):
            problem = _wrong(seal, texts, number=seals + 1, head=head)
            if problem:
                break
            entries, seals, head = entries + len(seal.entry_ids), seals + 1, seal.hash
            hashes.add(head.hex())
        if not problem and not seals:
            cursor.execute(_SHOULD_HAVE_SEALS, [org_id])
            if cursor.fetchone()[0]:
                problem = "the whole chain is missing: the organization exists, and has no seal"
        if not problem:
            cursor.execute(_UNSEALED, {"org_id": org_id})
            if row := cursor.fetchone():
                problem = f"entry {row[0]} is in no seal: it was inserted, or sealing has stopped"
    if not problem and expected and expected not in hashes:
        problem = f"no seal has the hash {expected}: the chain was cut short or forged"
    return Verdict(org_id, entries, seals, bytes(head).hex(), problem)


@dataclass(frozen=True, slots=True)
class _Seal:
    seq: int
    entry_ids: list[int]
    digests: bytes
    last_id: int
    prev_hash: bytes
    hash: bytes
    canonical: str


def _links(cursor: Any, org_id: str) -> Iterator[tuple[_Seal, dict[int, str]]]:
    """Every seal in order, with the canonical texts of those of its entries that still exist."""
    last = -(2**63)
    while True:
        cursor.execute(_SEALS, [org_id, last])
        seals = [_Seal(*row) for row in cursor.fetchall()]
        if not seals:
            return
        cursor.execute(_ENTRIES, [[entry_id for seal in seals for entry_id in seal.entry_ids]])
        texts = dict(cursor.fetchall())
        for seal in seals:
            yield seal, texts
        last = seals[-1].seq


def _wrong(seal: _Seal, texts: dict[int, str], *, number: int, head: bytes) -> str:
    """The first thing wrong with this link, or ""."""
    if seal.seq != number:
        return f"seal {number} is missing: the next one is {seal.seq}"
    if seal.prev_hash != head:
        return f"seal {seal.seq} does not follow the one before it: the link is broken"
    fits = len(seal.digests) == _DIGEST * len(seal.entry_ids) and seal.entry_ids == sorted(set(seal.entry_ids))
    if not seal.entry_ids or not fits:
        return f"seal {seal.seq} was altered: its lists do not fit together"
    for place, entry_id in enumerate(seal.entry_ids):
        text = texts.get(entry_id)
        if text is None:
            return f"entry {entry_id} is missing: seal {seal.seq} holds it"
        if hashlib.sha256(text.encode()).digest() != seal.digests[place * _DIGEST : (place + 1) * _DIGEST]:
            return f"entry {entry_id} was altered: it is not what seal {seal.seq} holds"
    if seal.last_id != seal.entry_ids[-1]:
        return f"seal {seal.seq} was altered: its last entry is different"
    if hashlib.sha256(head + seal.canonical.encode() + seal.digests).digest() != seal.hash:
        return f"seal {seal.seq} was altered: its hash is different"
    return ""
