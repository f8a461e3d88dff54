"""Reads the two ledgers that are not the client's: the database's rows, and what the tests' Slack accepted."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg.rows

from tests.chaos.ledgers import Line, Posted, Recorded, Terminal
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
SELECT job_id::text, key::text, text, is_human, extract(epoch FROM delivered_at)::float8
FROM agent_jobs_message ORDER BY job_id, id
"""
_OPEN = """
SELECT
    (SELECT count(*) FROM agent_jobs_job WHERE status = 'SCHEDULED'),
    (SELECT count(*) FROM agent_jobs_job WHERE status = 'WAITING'),
    (SELECT count(*) FROM agent_jobs_job WHERE status = 'RUNNING'),
    (SELECT count(*) FROM channels_integration_outboundmessage WHERE status IN ('pending', 'sending', 'unknown')),
    (SELECT count(*) FROM channels_integration_inboundevent WHERE status = 'waiting')
"""


@dataclass(frozen=True, slots=True)
class Open:
    """What is not over yet, in rows."""

    scheduled: int
    waiting: int
    running: int
    messages: int
    events: int

    @property
    def is_quiet(self) -> bool:
        return not (self.scheduled or self.waiting or self.running or self.messages or self.events)

    def __str__(self) -> str:
        return (
            f"scheduled {self.scheduled} · waiting {self.waiting} · running {self.running}"
            f" · messages under way {self.messages} · events {self.events}"
        )


def still_open(connection: psycopg.Connection[Any]) -> Open:
    row = connection.execute(_OPEN).fetchone()
    assert row is not None
    return Open(*row)


def recorded(connection: psycopg.Connection[Any]) -> list[Recorded]:
    terminals: defaultdict[str, list[Terminal]] = defaultdict(list)
    for job_id, *terminal in connection.execute(_TERMINALS):
        terminals[job_id].append(Terminal(*terminal))
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for job_id, *line in connection.execute(_LINES):
        lines[job_id].append(Line(*line))
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return [
            Recorded(**row, terminals=tuple(terminals[row["id"]]), lines=tuple(lines[row["id"]]))
            for row in cursor.execute(_JOBS)
        ]


def posted(posts: Sequence[Post]) -> list[Posted]:
    return [
        Posted(post.id, post.channel, post.thread_ts or "", post.ts, post.text, post.asked_at, post.at)
        for post in posts
    ]
