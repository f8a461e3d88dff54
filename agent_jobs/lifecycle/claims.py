"""`settle_and_claim`: ends turns and begins the next ones, in one statement and one commit.

A worker's loop consists of this statement, so it decides the throughput of the service. The cost is in round trips and
commits, not in SQL.

Claims are a weighted round robin over the organisations. A worker remembers the organisation it served last, and then
takes the next one with work, in the order of ids. It claims from it as many times as its weight says. Within an
organisation, `queue_order` sets the order.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar, cast
from uuid import UUID

from django.db import transaction

from agent_jobs import runners
from agent_jobs.lifecycle import running_caps
from agent_jobs.lifecycle.queue_order import HEAD_START
from agent_jobs.lifecycle.settlements import Claim, ClaimResult, OrgRotation, Settlement, as_json
from agent_jobs.runners.base import Wake
from agent_jobs.states import ActivityStatus, WaitingFor
from channels_integration import outbox
from infra import database, prepared_sql

log = logging.getLogger(__name__)
_T = TypeVar("_T")

# A process claims only jobs that it understands; those of a newer release wait for a newer worker.
_UNDERSTOOD = running_caps.UNDERSTOOD
# The most turns that one statement settles or claims.
MOST_AT_ONCE = 32

_SETTLED = f"""
settlements AS (
    SELECT * FROM json_to_recordset(%(settlements)s::json) AS s(
        id uuid, token bigint, task_id uuid, status text, task_status text, task_result text, task_report json,
        waiting_for text, wake_seconds float8, timer_message_id uuid, timer_seconds float8, resume text, inbox_seen int,
        follow_ups_sent int, follow_ups_total int, failed_attempts int, result text, result_data json,
        error_code text, error_message text, note text, outgoing json, lines json, notes json, actor text,
        request_id text)
    LIMIT {MOST_AT_ONCE}
), settled AS (
    UPDATE agent_jobs_job j SET
        status = s.status, waiting_for = s.waiting_for, wake_at = now() + make_interval(secs => s.wake_seconds),
        timer_message_id = s.timer_message_id, timer_seconds = s.timer_seconds, resume = s.resume,
        queue_at = CASE WHEN s.waiting_for = 'reply' AND j.inbox_count > s.inbox_seen THEN now() - {HEAD_START} END,
        inbox_seen = s.inbox_seen, follow_ups_sent = s.follow_ups_sent, follow_ups_total = s.follow_ups_total,
        failed_attempts = s.failed_attempts, crash_count = 0, turn = j.turn + (s.waiting_for = 'reply')::int,
        result = s.result, result_data = s.result_data,
        error_code = s.error_code, error_message = s.error_message, lease_until = NULL, worker_id = NULL,
        finished_at = CASE WHEN s.status <> 'RUNNING' THEN now() END, updated_at = now()
    FROM settlements s
    WHERE j.id = s.id AND j.lease_token = s.token AND j.status = 'RUNNING' AND j.lease_until IS NOT NULL
    RETURNING j.id, j.org_id, j.retry_count, s.task_id, s.status, s.task_status, s.task_result, s.task_report,
        s.error_code, s.note, s.outgoing, s.lines, s.notes, s.actor, s.request_id, j.queue_at IS NOT NULL AS is_ready
), ended_tasks AS (
    UPDATE agent_jobs_task t SET status = s.task_status, result = s.task_result, report = s.task_report,
        finished_at = now()
    FROM settled s WHERE t.id = s.task_id
), outgoing_rows AS (
    SELECT record FROM settled s, json_array_elements(s.outgoing) record
), outgoing AS (
    {outbox.INSERT_FROM_JSON}
), said AS (
    INSERT INTO agent_jobs_message (key, job_id, is_human, author, text, delivered_at, heard)
    SELECT l.key, s.id, false, 'agent', l.text, CASE WHEN l.is_delivered THEN now() END, l.heard
    FROM settled s, json_to_recordset(s.lines) AS l(key uuid, text text, is_delivered boolean, heard int)
), noted AS (
    INSERT INTO agent_jobs_activity
        (id, org_id, job_id, code, status, note, actor, request_id, moved_from, moved_to, life, source_type,
        execution_id, input, output, processed_at)
    SELECT coalesce(n.id, uuidv7()), s.org_id, s.id, n.code, coalesce(n.status, '{ActivityStatus.COMPLETED}'), n.note,
        coalesce(n.actor, ''), s.request_id, coalesce(n.moved_from, ''), coalesce(n.moved_to, ''), s.retry_count,
        'process_module', s.task_id, n.input, n.output, CASE WHEN n.status = 'submitted' THEN NULL ELSE now() END
    FROM settled s CROSS JOIN LATERAL (
        SELECT place, id, code, status, note, NULL AS actor, NULL AS moved_from, NULL AS moved_to, input, output
        FROM ROWS FROM (
            json_to_recordset(s.notes) AS (id uuid, code text, status text, note text, input json, output json)
        ) WITH ORDINALITY AS n (id, code, status, note, input, output, place)
        UNION ALL
        SELECT NULL, NULL, CASE s.status WHEN 'COMPLETED' THEN 'job.completed' ELSE 'job.failed' END, NULL, s.note,
            s.actor, 'RUNNING', s.status, NULL, NULL
        WHERE s.status <> 'RUNNING'
    ) n
    ORDER BY s.id, n.place NULLS LAST -- the end has the highest number
)"""

# The first organisation after a place in the queue, of the same lane. It is found in the order of the queue's index
# (`job_queue`) and of no other: a queue fills and empties faster than statistics are renewed, and with those of another
# moment the planner would walk all of an organisation's jobs.
_ORG_AFTER = f"""(
    SELECT CASE lane WHEN %(lane)s THEN org_id END FROM (
        SELECT lane, org_id FROM agent_jobs_job
        WHERE queue_at IS NOT NULL AND (lane, org_id) > (%(lane)s, {{after}}) AND {_UNDERSTOOD}
        ORDER BY lane, org_id LIMIT 1) place)"""
_NEXT = f"""
next_org AS MATERIALIZED (
    SELECT coalesce(
        CASE WHEN %(stay)s THEN (
            SELECT org_id FROM agent_jobs_job
            WHERE queue_at IS NOT NULL AND lane = %(lane)s AND org_id = %(after)s AND {_UNDERSTOOD}
            ORDER BY queue_at LIMIT 1) END,
        {_ORG_AFTER.format(after="%(after)s")},
        {_ORG_AFTER.format(after="''")}) AS org_id
), org AS MATERIALIZED (
    SELECT o.id, o.weight, {running_caps.HAS_CAPS} AS has_caps
    FROM agent_jobs_org o WHERE o.id = (SELECT org_id FROM next_org)
), candidates AS (
    SELECT id FROM agent_jobs_job
    WHERE queue_at IS NOT NULL AND lane = %(lane)s AND org_id = (SELECT org_id FROM next_org)
        AND NOT (SELECT has_caps FROM org) AND {_UNDERSTOOD}
    ORDER BY queue_at, id LIMIT {{batch}} FOR UPDATE SKIP LOCKED
)"""

# started_at uses clock_timestamp(), because now() may be older than the commit of the claimed job. The statement reads
# it once per job, so that the deadline is exactly `deadline_minutes` after the start.
_CLAIMED = """
claimed AS (
    UPDATE agent_jobs_job j SET
        status = 'RUNNING', queue_at = NULL, lease_token = j.lease_token + 1,
        lease_until = now() + make_interval(secs => %(lease_seconds)s), worker_id = %(worker_id)s,
        attempt = j.attempt + 1, started_at = coalesce(j.started_at, c.begins_at),
        deadline_at = coalesce(j.deadline_at, c.begins_at + make_interval(secs => j.deadline_minutes * 60)),
        wake_at = NULL, updated_at = now()
    FROM (SELECT id, clock_timestamp() AS begins_at FROM candidates) c WHERE j.id = c.id AND j.queue_at IS NOT NULL
    RETURNING j.*, old.status AS status_before
), begun_tasks AS (
    INSERT INTO agent_jobs_task (job_id, number, lease_token) SELECT id, attempt, lease_token FROM claimed
    RETURNING id, job_id
), begun AS (
    INSERT INTO agent_jobs_activity
        (org_id, job_id, code, note, actor, moved_from, moved_to, life, source_type, execution_id, processed_at)
    SELECT c.org_id, c.id, 'job.started', 'RUNNING: attempt ' || c.attempt, 'system:worker', c.status_before, 'RUNNING',
        c.retry_count, 'process_module', t.id, now()
    FROM claimed c JOIN begun_tasks t ON t.job_id = c.id WHERE c.status_before = 'WAITING'
)"""

# The columns of a job that a turn needs (`Claim`).
_CLAIMED_JSON = """
(SELECT json_agg(json_build_object(
    'id', c.id, 'org_id', c.org_id, 'job_type_key', c.job_type_key, 'task_id', t.id, 'token', c.lease_token,
    'runner', c.runner,
    'prompt', c.prompt, 'params', c.params, 'config', c.config, 'agent', c.agent, 'work', c.work,
    'sealed_work', c.sealed_work, 'schedule_id', coalesce(c.schedule_id::text, ''), 'scheduled_at', c.scheduled_at,
    'fire_at', c.fire_at, 'platform', c.platform,
    'channel_code', c.channel_code, 'channel_type', c.channel_type, 'channel_data', c.channel_data,
    'waiting_for', c.waiting_for, 'resume', c.resume, 'inbox_count', c.inbox_count, 'inbox_seen', c.inbox_seen,
    'follow_ups_sent', c.follow_ups_sent, 'follow_ups_total', c.follow_ups_total,
    'failed_attempts', c.failed_attempts, 'crash_count', c.crash_count, 'attempt', c.attempt, 'result', c.result,
    'life', c.retry_count, 'turn', c.turn, 'is_replay', c.replay_of IS NOT NULL,
    'has_hours', (
        SELECT o.hours IS NOT NULL OR EXISTS (SELECT FROM agent_jobs_placehours h WHERE h.org_id = o.id)
        FROM agent_jobs_org o WHERE o.id = c.org_id),
    'trace', c.trace, 'seconds_late', extract(epoch FROM c.started_at - c.scheduled_at),
    'seconds_left', extract(epoch FROM c.deadline_at - now())))
 FROM claimed c JOIN begun_tasks t ON t.job_id = c.id)"""

_SETTLED_IDS = "(SELECT array_agg(id) FROM settled)"
_ORG = "(SELECT id FROM org), (SELECT weight FROM org), (SELECT has_caps FROM org)"
_HAS_MORE = f"""
(SELECT count(*) > (SELECT count(*) FROM claimed) FROM (
    SELECT lane FROM agent_jobs_job WHERE queue_at IS NOT NULL AND (lane, org_id) >= (%(lane)s, '') AND {_UNDERSTOOD}
    ORDER BY lane, org_id, queue_at LIMIT {{batch}} + 1) waiting
 WHERE lane = %(lane)s)"""
# The statement claims from its snapshot, which does not show the jobs that it itself puts back into the queue.
_HAS_READY = "(SELECT coalesce(bool_or(is_ready), false) FROM settled)"


@lru_cache
def _statement(*, settles: bool, claims: bool, batch: int) -> str:
    """LIMITs are literals: for a parameter, the planner assumes a share of the whole table."""
    claim = f"{_NEXT}, {_CLAIMED}".replace("{batch}", str(batch))
    has_more = _HAS_MORE.replace("{batch}", str(batch))
    if not settles:
        return f"WITH {claim} SELECT NULL, {_ORG}, {_CLAIMED_JSON}, {has_more}"
    if not claims:
        return f"WITH {_SETTLED} SELECT {_SETTLED_IDS}, NULL, NULL, NULL, NULL, {_HAS_READY}"
    return f"WITH {_SETTLED}, {claim} SELECT {_SETTLED_IDS}, {_ORG}, {_CLAIMED_JSON}, {has_more} OR {_HAS_READY}"


@lru_cache
def _capped_statement(*, batch: int) -> str:
    return f"WITH {running_caps.CANDIDATES}, {_CLAIMED} SELECT {_CLAIMED_JSON}".replace("{batch}", str(batch))


_LOCK = "SELECT FROM agent_jobs_job WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE"
_IS_PENDING = "SELECT EXISTS (SELECT FROM agent_jobs_activity WHERE id = %(message)s AND status = 'submitted')"
_Row = tuple[list[UUID] | None, str | None, int, bool, list[dict[str, Any]] | None, bool]


def settle_and_claim(
    settlements: Sequence[Settlement],
    *,
    lane: str = "",
    turn: OrgRotation | None = None,
    worker_id: int = 0,
    batch: int = 1,
    lease_seconds: float = 30,
) -> ClaimResult:
    """End turns and, with a `turn`, claim up to `batch` jobs of one organisation: one statement, one commit.

    A settlement with a stale token writes nothing. Updates `turn` in place. Claims from an organisation with caps in a
    second transaction (`lifecycle.running_caps`).
    """
    assert len(settlements) <= MOST_AT_ONCE >= batch
    if any(settlement.rests_on for settlement in settlements):
        answer = _settle_resting(settlements)
        if turn is None:
            return answer
        going_on = turn  # for the type checker
        claiming = _after_settling(
            answer.settled,
            lambda: settle_and_claim(
                [], lane=lane, turn=going_on, worker_id=worker_id, batch=batch, lease_seconds=lease_seconds
            ),
        )
        return replace(claiming, settled=answer.settled) if claiming else replace(answer, has_more=True)
    statement = _statement(settles=bool(settlements), claims=turn is not None, batch=batch)
    turn = turn or OrgRotation()
    parameters = {"lane": lane, "worker_id": worker_id, "lease_seconds": lease_seconds, **_known()}
    row = prepared_sql.first(
        statement,
        {
            **parameters,
            "settlements": as_json(settlements),
            "after": turn.org_id,
            "stay": turn.left > 0,
        },
    )
    settled, org_id, weight, has_caps, claimed, has_more = cast(_Row, row)
    if org_id is not None:
        turn.left = (turn.left if turn.org_id == org_id and turn.left > 0 else weight) - 1
        turn.org_id = org_id
        if has_caps:
            claimed = _after_settling(settled, lambda: _claim_capped(org_id, parameters, batch))
    begun = tuple(Claim.of(record) for record in claimed or ())
    return ClaimResult(frozenset(settled or ()), org_id, begun, has_more, is_full=bool(has_caps and not begun))


def _claim_capped(org_id: str, parameters: Mapping[str, Any], batch: int) -> list[dict[str, Any]] | None:
    with transaction.atomic():
        capped = {**parameters, "org_id": org_id, "org_cap": running_caps.lock(org_id)}
        (claimed,) = prepared_sql.first(_capped_statement(batch=batch), capped)
        return cast(list[dict[str, Any]] | None, claimed)


def _after_settling(settled: Collection[UUID] | None, claim: Callable[[], _T]) -> _T | None:
    """Run `claim` after the transaction that settled. Returns None if the database fails and something was settled.

    If this raised, the caller would settle again and count the settled turns as lost. The caller claims again anyway,
    and that call raises a lasting error.
    """
    try:
        return claim()
    except database.Error as error:
        if not settled:
            raise
        log.warning("could not claim after settling: %s", database.reason(error))
        return None


def _known() -> dict[str, list[str]]:
    return {
        "runners": runners.names(),
        "waits": ["", *WaitingFor],
        "wakes": ["", *Wake],
    }


_WERE_SETTLED = """
SELECT t.job_id FROM jsonb_to_recordset(%(ended)s::jsonb) AS e(task_id uuid, task_status text, task_result text)
JOIN agent_jobs_task t ON t.id = e.task_id
WHERE t.finished_at IS NOT NULL AND t.status = e.task_status AND t.result = e.task_result
"""


def were_settled(settlements: Sequence[Settlement]) -> frozenset[UUID]:
    """The jobs whose settlement was committed already, although the acknowledgement of the commit did not arrive.

    It compares the task's result. Recovery and cancel also end a turn, but leave no result on its task.
    """
    rows = prepared_sql.all_rows(_WERE_SETTLED, {"ended": as_json(settlements)})
    return frozenset(row[0] for row in rows)


def _settle_resting(settlements: Sequence[Settlement]) -> ClaimResult:
    """End turns, some of which depend on whether an earlier message has been delivered.

    The delivery of a message is recorded under the lock of the job's row. So this locks the rows before it reads the
    messages; otherwise it could miss a delivery.
    """
    with transaction.atomic():
        prepared_sql.run(_LOCK, {"ids": [settlement.id for settlement in settlements]})
        return settle_and_claim([_as_it_is_now(settlement) for settlement in settlements])


def _as_it_is_now(settlement: Settlement) -> Settlement:
    if settlement.rests_on is None:
        return settlement
    (is_pending,) = prepared_sql.first(_IS_PENDING, {"message": settlement.rests_on})
    return replace(
        settlement if is_pending else settlement.if_delivered or settlement, rests_on=None, if_delivered=None
    )
