"""Counts what the channels have still to do, and how late it is, for metrics. Bounded: takes a few ms."""

from dataclasses import dataclass

from infra import raw_sql

# A larger count says "at least": metrics shall not read a million rows every few seconds.
MOST_COUNTED = 10_000

_OUTBOX = f"""
SELECT status, count(*), coalesce(max(extract(epoch FROM now() - due_at)), 0), coalesce(max(extract(epoch FROM
    now() - created_at)), 0)
FROM (SELECT status, due_at, created_at FROM channels_integration_outboundmessage
    WHERE status IN ('pending', 'sending', 'unknown') LIMIT {MOST_COUNTED}) waiting
GROUP BY status
"""
_INBOX = f"""
SELECT count(*), coalesce(max(extract(epoch FROM now() - due_at)), 0)
FROM (SELECT due_at FROM channels_integration_inboundevent WHERE status = 'waiting' LIMIT {MOST_COUNTED}) waiting
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """`outbox` by status: how many, seconds since the most overdue was due (0 if none is), age of the oldest."""

    outbox: dict[str, tuple[int, float, float]]
    inbox: int
    inbox_late_seconds: float


def backlog() -> Backlog:
    outbox = {
        status: (count, max(float(late), 0.0), max(float(age), 0.0))
        for status, count, late, age in raw_sql.all_rows(_OUTBOX)
    }
    count, late = raw_sql.first(_INBOX)
    return Backlog(outbox, count, max(float(late), 0.0))
