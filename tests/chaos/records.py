"""Reads the two ledgers that are not the client's: the database's rows, and what the tests' Slack accepted."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg.rows

from tests.chaos.ledgers import Chain, Line, Moved, Posted, Recorded, Terminal
from tests.fakes.slack import Post

_JOBS = """
SELECT id::text, coalesce(tags[1], '') AS name, org_id AS org, status, platform, error_code, crash_count,
    retry_count AS life, extract(epoch FROM created_at)::float8 AS created_at,
    extract(epoch FROM scheduled_at)::float8 AS due_at, extract(epoch FROM started_at)::float8 AS started_at,
    extract(epoch FROM finished_at)::float8 AS finished_at, extract(epoch FROM deadline_at)::float8 AS deadline_at
FROM agent_jobs_job ORDER BY agent_jobs_job.created_at
"""
_TERMINALS = """
SELECT job_id::text, life, moved_to, extract(epoch FROM created_at)::float8 FROM agent_jobs_activity
WHERE moved_to IN ('COMPLETED', 'FAILED', 'CANCELED') ORDER BY created_at
"""
_LINES = """
SELECT job_id::text, key::text, text, is_human, extract(epoch FROM delivered_at)::float8,
    extract(epoch FROM created_at)::float8
FROM agent_jobs_message ORDER BY job_id, id
"""
_MOVES = "SELECT job_id::text, moved_from, moved_to FROM agent_jobs_activity WHERE moved_to <> '' ORDER BY created_at"
_AUDITED = """
SELECT object_id, coalesce(before ->> 'status', ''), after ->> 'status' FROM agent_jobs_auditentry
WHERE object_type = 'job' AND after ? 'status' ORDER BY id
"""
_UNSEALED = """
SELECT org_id, count(*) FROM (
    SELECT org_id, id FROM agent_jobs_auditentry EXCEPT SELECT org_id, unnest(entry_ids) FROM agent_jobs_auditseal
) unsealed GROUP BY org_id
"""
# What `manage.py verify_audit` says of an organisation.
_VERDICT = re.compile(r"^(?P<org>\S+): (?P<entries>\d+) entries, \d+ seals, head \S+: (?P<problem>.*)$", re.MULTILINE)
_OPEN = """
SELECT
    (SELECT count(*) FROM agent_jobs_job WHERE status = 'SCHEDULED'),
    (SELECT count(*) FROM agent_jobs_job WHERE status = 'WAITING'),
    (SELECT count(*) FROM agent_jobs_job WHERE status = 'RUNNING'),
    (SELECT count(*) FROM channels_integration_outboundmessage WHERE status IN ('pending', 'sending', 'unknown')),
    (SELECT count(*) FROM channels_integration_inboundevent WHERE status = 'waiting'),
    (SELECT count(*) FROM agent_jobs_schedule WHERE next_at <= now())
        + (SELECT count(*) FROM agent_jobs_schedulefiring WHERE outcome = 'queued')
"""


@dataclass(frozen=True, slots=True)
class Open:
    """The number of unfinished rows of each kind."""

    scheduled: int
    waiting: int
    running: int
    messages: int
    events: int
    firings: int

    @property
    def is_quiet(self) -> bool:
        jobs = self.scheduled or self.waiting or self.running
        return not (jobs or self.messages or self.events or self.firings)

    def __str__(self) -> str:
        return (
            f"scheduled {self.scheduled} · waiting {self.waiting} · running {self.running}"
            f" · messages under way {self.messages} · events {self.events}"
            f" · firings {self.firings}"
        )


def still_open(connection: psycopg.Connection[Any]) -> Open:
    row = connection.execute(_OPEN).fetchone()
    assert row is not None
    return Open(*row)


class Looks:
    """How much is still open, again and again, over one connection for as long as that lives.

    A new one for each look, with the statement planned anew, would cost the machine as much as some messages do.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connect = connect
        self._connection: psycopg.Connection[Any] | None = None

    def __call__(self) -> Open | None:
        """None where there is no database."""
        try:
            self._connection = self._connection or self._connect()
            return still_open(self._connection)
        except psycopg.OperationalError:
            self.close()
            return None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def recorded(connection: psycopg.Connection[Any]) -> list[Recorded]:
    terminals: defaultdict[str, list[Terminal]] = defaultdict(list)
    for job_id, *terminal in connection.execute(_TERMINALS):
        terminals[job_id].append(Terminal(*terminal))
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for job_id, *line in connection.execute(_LINES):
        lines[job_id].append(Line(*line))
    moves: defaultdict[str, list[Moved]] = defaultdict(list)
    for job_id, *move in connection.execute(_MOVES):
        moves[job_id].append(Moved(*move))
    audited: defaultdict[str, list[Moved]] = defaultdict(list)
    for job_id, *move in connection.execute(_AUDITED):
        audited[job_id].append(Moved(*move))
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return [
            Recorded(
                **row,
                terminals=tuple(terminals[row["id"]]),
                lines=tuple(lines[row["id"]]),
                moves=tuple(moves[row["id"]]),
                audited=tuple(audited[row["id"]]),
            )
            for row in cursor.execute(_JOBS)
        ]


def unsealed(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Entries of the audit that no seal holds, by organisation."""
    return dict(connection.execute(_UNSEALED).fetchall())


def chains(verdicts: str, unsealed: Mapping[str, int]) -> list[Chain]:
    """From what `manage.py verify_audit` printed. Raises ValueError where that is nothing that we know."""
    found = [
        Chain(
            verdict["org"],
            int(verdict["entries"]),
            unsealed.get(verdict["org"], 0),
            "" if verdict["problem"] == "ok" else verdict["problem"],
        )
        for verdict in _VERDICT.finditer(verdicts)
    ]
    if not found or not set(unsealed) <= {chain.org for chain in found}:
        raise ValueError(f"the audit was not verified: {verdicts}")
    return found


def posted(posts: Sequence[Post]) -> list[Posted]:
    return [
        Posted(post.id, post.channel, post.thread_ts or "", post.ts, post.text, post.asked_at, post.at)
        for post in posts
    ]
