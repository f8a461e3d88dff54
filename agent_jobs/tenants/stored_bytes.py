"""Measures the bytes that an organisation stores, and enforces its quota.

A duty measures each organisation about once a minute, and less often if that takes long. In between, each web process
adds what it admits itself, so other processes may overshoot the quota by what they admit in that time. Sizes are those
on disk, after compression: they are read from the rows alone, without loading the large values.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from agent_jobs import duty_rounds
from agent_jobs.errors import QuotaReached
from agent_jobs.models import Org
from channels_integration import transcript
from infra import prepared_sql

# The default where an organisation has no `max_stored_bytes`.
MAX_STORED_BYTES = 20 * 1024**3
_SHORTEST_INTERVAL = 60.0
# A measurement that takes one second is repeated every 20 seconds at most.
_SHARE = 20
_SLICE_SECONDS = 10.0
_RETRY_AFTER_SECONDS = 60

_OF_JOBS = """
SELECT sum(pg_column_size(prompt) + pg_column_size(params) + pg_column_size(config) + pg_column_size(channel_data)
    + pg_column_size(agent) + pg_column_size(work) + pg_column_size(metadata)
    + coalesce(pg_column_size(result), 0) + coalesce(pg_column_size(result_data), 0))
FROM agent_jobs_job WHERE org_id = %(org)s
"""
_OF_REPORTS = """
SELECT sum(pg_column_size(t.report)) FROM agent_jobs_task t JOIN agent_jobs_job j ON j.id = t.job_id
WHERE j.org_id = %(org)s
"""
_OF_MESSAGES = """
SELECT sum(pg_column_size(m.text)) FROM agent_jobs_message m JOIN agent_jobs_job j ON j.id = m.job_id
WHERE j.org_id = %(org)s
"""
_OF_STEPS = """
SELECT sum(pg_column_size(s.input) + coalesce(pg_column_size(s.output), 0))
FROM agent_jobs_step s JOIN agent_jobs_job j ON j.id = s.job_id WHERE j.org_id = %(org)s
"""
_OF_ACTIVITIES = """
SELECT sum(pg_column_size(note) + coalesce(pg_column_size(input), 0) + coalesce(pg_column_size(output), 0))
FROM agent_jobs_activity WHERE org_id = %(org)s
"""
_OF_ANSWERS = "SELECT sum(pg_column_size(answer)) FROM agent_jobs_idempotencykey WHERE org_id = %(org)s"
_SIZES = (_OF_JOBS, _OF_REPORTS, _OF_MESSAGES, _OF_STEPS, _OF_ACTIVITIES, _OF_ANSWERS, transcript.STORED_BYTES)
# Schedule the next measurement first: one that fails must not delay the others.
_NEXT = """
UPDATE agent_jobs_org SET measure_at = statement_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = (
    SELECT id FROM agent_jobs_org WHERE measure_at <= statement_timestamp() AND erased_at IS NULL
    ORDER BY measure_at LIMIT 1)
RETURNING id
"""
_NOTE = """
UPDATE agent_jobs_org SET stored_bytes = %(bytes)s,
    measure_at = statement_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = %(org)s
"""


def admit(org: Org, new_bytes: int) -> None:
    """Reserve this many bytes. Raises QuotaReached if the quota has no room."""
    cap = MAX_STORED_BYTES if org.max_stored_bytes is None else org.max_stored_bytes
    with _guard:
        admitted = _admitted.get(org.pk)
        if admitted is None or admitted.measured != org.measure_at:
            admitted = _admitted[org.pk] = _Admitted(org.measure_at)
        if org.stored_bytes + admitted.bytes + new_bytes > cap:
            raise QuotaReached(
                f"the organization has stored {org.stored_bytes + admitted.bytes:,} bytes, and may have {cap:,}"
                " (max_stored_bytes); ended jobs are deleted after their retention",
                code="storage_quota_reached",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        admitted.bytes += new_bytes


def admit_text(org_id: str, text: str) -> None:
    """Admit a message of this text, as `admit` does. A missing organisation has no quota."""
    org = prepared_sql.instance(Org, "id = %(id)s", {"id": org_id})
    if org is not None:
        admit(org, len(text.encode("utf-8", "replace")))


def measure_due() -> int:
    """The duty: measure the organisations that are due, for some seconds. Returns how many."""
    measured, until = 0, time.monotonic() + _SLICE_SECONDS
    with duty_rounds.alone("measure", silent_seconds=60.0) as is_alone:
        while is_alone and time.monotonic() < until and not duty_rounds.STOPPING.is_set():
            found = prepared_sql.first(_NEXT, {"seconds": _SHORTEST_INTERVAL})
            if found is None:
                break
            _measure(found[0])
            measured += 1
    duty_rounds.note_done("measure")
    return measured


def _measure(org_id: str) -> None:
    begun = time.monotonic()
    total = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        for size in _SIZES:
            cursor.execute(size, {"org": org_id})
            total += int(cursor.fetchone()[0] or 0)
    took = time.monotonic() - begun
    prepared_sql.run(_NOTE, {"org": org_id, "bytes": total, "seconds": max(_SHORTEST_INTERVAL, _SHARE * took)})


@dataclass(slots=True)
class _Admitted:
    """The bytes that this process admitted since the measurement `measured`."""

    measured: datetime
    bytes: int = 0


_admitted: dict[str, _Admitted] = {}
_guard = threading.Lock()
