"""Deletes rows that the channels no longer need: settled messages, events, transcripts, idle lanes.

It walks rows in the order of their keys, which follows time (UUIDv7, a sequence). So it needs no index of its own, but
also passes once over rows that an organisation keeps longer. Transactions are short. Locked rows are left for the next
run, and unsent or unrouted rows are never touched. Any number of runs may go at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from infra import raw_sql

CHUNK = 1_000
IDLE_LANE_DAYS = 2

# A chunk of keys in order, and for each row: whether to delete it, and its owner. `cutoffs` may cover some
# organisations only. `last` ends the walk: no row after it is old enough for any of them.
_CUTOFFS = "SELECT * FROM unnest(%(org_ids)s::text[], %(befores)s::timestamptz[]) AS c(org_id, before)"
_OUTBOUND = f"""
WITH cutoffs AS ({_CUTOFFS})
SELECT m.id, m.owner_key, m.status IN ('sent', 'dead', 'withdrawn') AND m.created_at < c.before
FROM channels_integration_outboundmessage m LEFT JOIN cutoffs c USING (org_id)
WHERE m.id > %(after)s AND m.id < %(last)s ORDER BY m.id LIMIT {CHUNK}
"""
_INBOUND = f"""
WITH cutoffs AS ({_CUTOFFS})
SELECT e.id, '', e.status IN ('routed', 'parked') AND e.received_at < c.before, e.received_at >= %(newest)s
FROM channels_integration_inboundevent e LEFT JOIN cutoffs c USING (org_id)
WHERE e.id > %(after)s ORDER BY e.id LIMIT {CHUNK}
"""
_TRANSCRIPT = f"""
WITH cutoffs AS ({_CUTOFFS})
SELECT w.id, '', w.created_at < c.before
FROM channels_integration_webmessage w
JOIN channels_integration_channel h ON h.id = w.channel_id LEFT JOIN cutoffs c USING (org_id)
WHERE w.id > %(after)s AND w.id < %(last)s ORDER BY w.id LIMIT {CHUNK}
"""
_DELETE = "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id = ANY(%s) {still} FOR UPDATE SKIP LOCKED)"
_TABLES = {
    "outbound_messages": (
        "channels_integration_outboundmessage",
        _OUTBOUND,
        "AND status IN ('sent', 'dead', 'withdrawn')",
    ),
    "inbound_events": ("channels_integration_inboundevent", _INBOUND, "AND status IN ('routed', 'parked')"),
    "transcript_lines": ("channels_integration_webmessage", _TRANSCRIPT, ""),
}
KINDS = (*_TABLES, "idle_lanes")

_IDLE_LANES = f"""
    FROM channels_integration_lane l
    WHERE l.look_at IS NULL AND l.org_id = ANY(%(org_ids)s) AND l.opens_at < now() - interval '{IDLE_LANE_DAYS} days'
"""
_DELETE_LANES = f"""
DELETE FROM channels_integration_lane WHERE lane IN (SELECT lane {_IDLE_LANES} LIMIT {CHUNK} FOR UPDATE SKIP LOCKED)
"""


def steps(
    cutoffs: Mapping[str, datetime], *, kept: Callable[[Collection[str]], Collection[str]]
) -> Iterator[tuple[str, int]]:
    """Delete rows older than their organisation's cutoff, chunk by chunk; yields the kind and the number of rows.

    `kept` returns the owners whose messages stay, however old: a running job continues in the thread that they opened.
    """
    for kind, (table, _, still) in _TABLES.items():
        for ids in _doomed(kind, cutoffs, kept):
            if not ids:
                yield kind, 0
                continue
            yield kind, raw_sql.run(_DELETE.format(table=table, still=still), [ids])
    while True:
        deleted = raw_sql.run(_DELETE_LANES, {"org_ids": list(cutoffs)})
        yield "idle_lanes", deleted
        if deleted < CHUNK:
            return


def counts(
    cutoffs: Mapping[str, datetime], *, kept: Callable[[Collection[str]], Collection[str]]
) -> Iterator[tuple[str, int]]:
    """The numbers of rows that `steps` would delete."""
    for kind in _TABLES:
        for ids in _doomed(kind, cutoffs, kept):
            yield kind, len(ids)
    yield "idle_lanes", raw_sql.value(f"SELECT count(*) {_IDLE_LANES}", {"org_ids": list(cutoffs)})


def _doomed(
    kind: str, cutoffs: Mapping[str, datetime], kept: Callable[[Collection[str]], Collection[str]]
) -> Iterator[list[Any]]:
    if not cutoffs:
        return
    newest = max(cutoffs.values())
    parameters: dict[str, Any] = {
        "org_ids": list(cutoffs),
        "befores": list(cutoffs.values()),
        "newest": newest,
        "last": UUID(int=int(newest.timestamp() * 1000) << 80),
        "after": 0 if kind == "inbound_events" else UUID(int=0),
    }
    while True:
        rows = raw_sql.all_rows(_TABLES[kind][1], parameters)
        owners = kept({row[1] for row in rows if row[2] and row[1]})
        yield [row[0] for row in rows if row[2] and row[1] not in owners]
        if len(rows) < CHUNK or all(row[3:] == (True,) for row in rows):
            return
        parameters["after"] = rows[-1][0]
