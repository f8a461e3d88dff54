"""Claims deliveries that are due, and records how each attempt ended.

A claim is a lease: if its sender dies, the delivery is due again when the lease is over, under the same `webhook-id`.
The settlement of an attempt names its claim, and changes nothing under another one.

Fair: each endpoint has a limited number of deliveries in flight, one that fails has one only, and an organisation has a
limit over all its endpoints. Of those that are due, every endpoint's first one comes before anybody's second one.

A failed attempt may disable its endpoint (`_note_failure`).
"""

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from uuid_utils.compat import uuid7

from agent_jobs.models import WebhookDelivery, WebhookEndpoint
from agent_jobs.webhooks import endpoints, retry_plan
from infra import meters, raw_sql

log = logging.getLogger(__name__)
# Much longer than one attempt may take.
LEASE_SECONDS = 60
MOST_OF_ENDPOINT = 8
MOST_OF_ORG = 16
MOST_ATTEMPTS_KEPT = 50
GONE = 410

# The recursion steps through the endpoints in the index of pending deliveries, without reading all of them.
_CLAIM = f"""
WITH RECURSIVE waiting AS (
    (SELECT endpoint_id FROM agent_jobs_webhookdelivery WHERE status = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM agent_jobs_webhookdelivery d
        WHERE d.status = 'pending' AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
    FROM waiting w WHERE w.endpoint_id IS NOT NULL
), open AS MATERIALIZED (
    SELECT e.id, e.org_id, CASE WHEN e.failing_since IS NULL THEN {MOST_OF_ENDPOINT} ELSE 1 END - f.count AS room,
        sum(f.count) OVER (PARTITION BY e.org_id) AS org_in_flight
    FROM waiting w JOIN agent_jobs_webhookendpoint e ON e.id = w.endpoint_id JOIN agent_jobs_org o ON o.id = e.org_id
    CROSS JOIN LATERAL (
        SELECT count(*) FROM agent_jobs_webhookdelivery d WHERE d.endpoint_id = e.id AND d.claimed_until > %(now)s) f
    WHERE e.enabled AND o.closed_at IS NULL
), due AS (
    SELECT d.id, d.place, e.org_in_flight,
        row_number() OVER (PARTITION BY e.org_id ORDER BY d.place, random()) AS place_in_org
    FROM open e CROSS JOIN LATERAL (
        SELECT id, row_number() OVER (ORDER BY due_at, id) AS place FROM (
            SELECT id, due_at FROM agent_jobs_webhookdelivery
            WHERE endpoint_id = e.id AND status = 'pending' AND due_at <= %(now)s
            ORDER BY due_at LIMIT greatest(e.room, 0)) first
    ) d
), chosen AS (
    SELECT id FROM due WHERE place_in_org + org_in_flight <= {MOST_OF_ORG}
    ORDER BY place, random() LIMIT %(most)s
), locked AS (
    SELECT id FROM agent_jobs_webhookdelivery
    WHERE id IN (SELECT id FROM chosen) AND status = 'pending' AND due_at <= %(now)s
    FOR UPDATE SKIP LOCKED
)
UPDATE agent_jobs_webhookdelivery d SET
    claim_token = %(token)s, claimed_until = %(until)s, due_at = %(until)s, tries = d.tries + 1
FROM locked, agent_jobs_webhookendpoint e, agent_jobs_announcement a
WHERE d.id = locked.id AND e.id = d.endpoint_id AND a.id = d.announcement_id
RETURNING d.id, d.org_id, d.endpoint_id, d.event, d.tries, e.url, e.sealed_secret, e.sealed_previous_secret,
    e.previous_secret_until, a.id AS announcement_id, a.created_at, a.payload
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """One delivery, with all that its attempt needs."""

    id: UUID
    token: UUID
    org_id: str
    endpoint_id: UUID
    announcement_id: UUID
    event: str
    tries: int
    url: str
    sealed_secrets: Mapping[str, str]
    announced_at: datetime
    payload: Any


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended. `error` is '' if the receiver took it; `status_code` is None without an answer."""

    duration_ms: int
    status_code: int | None = None
    error: str = ""
    retry_after: float | None = None


def claim(*, most: int, now: datetime) -> list[ClaimedDelivery]:
    """Claim up to `most` deliveries that are due at `now`."""
    token = uuid7()
    wanted = {"most": most, "now": now, "token": token, "until": now + timedelta(seconds=LEASE_SECONDS)}
    return [_claimed(row, token, now) for row in raw_sql.rows_by_name(_CLAIM, wanted)]


def _claimed(row: Mapping[str, Any], token: UUID, now: datetime) -> ClaimedDelivery:
    sealed = {"sealed_secret": row["sealed_secret"]}
    until = row["previous_secret_until"]
    if row["sealed_previous_secret"] and until is not None and until > now:
        sealed["sealed_previous_secret"] = row["sealed_previous_secret"]
    kept = ("id", "org_id", "endpoint_id", "announcement_id", "event", "tries", "url", "payload")
    values = {name: row[name] for name in kept}
    return ClaimedDelivery(**values, token=token, sealed_secrets=sealed, announced_at=row["created_at"])


def settle(
    claimed: ClaimedDelivery, result: AttemptResult, *, began_at: datetime, now: datetime, rng: random.Random
) -> bool:
    """Record the attempt. False, and nothing is written, if another claim has the delivery or it is gone.

    A failure plans the next try, and may disable the endpoint: at once for 410 Gone, or after five days of failures.
    """
    with transaction.atomic():
        # The endpoint first, as everywhere.
        endpoint = WebhookEndpoint.objects.select_for_update(no_key=True).filter(pk=claimed.endpoint_id).first()
        mine = WebhookDelivery.objects.select_for_update(no_key=True).filter(pk=claimed.id, claim_token=claimed.token)
        delivery = mine.first()
        if endpoint is None or delivery is None:
            return False
        delivery.attempts = [*delivery.attempts, _noted(result, began_at)][-MOST_ATTEMPTS_KEPT:]
        delivery.claim_token = delivery.claimed_until = None
        if not result.error:
            delivery.status, delivery.ended_at = WebhookDelivery.Status.DELIVERED, now
            _note_success(endpoint)
        else:
            wait = retry_plan.next_wait(delivery.tries, retry_after=result.retry_after, rng=rng)
            if wait is None or result.status_code == GONE:
                delivery.status, delivery.ended_at = WebhookDelivery.Status.FAILED, now
            else:
                delivery.due_at = now + wait
            _note_failure(endpoint, result, now=now)
        outcome = str(delivery.status) if delivery.ended_at else "put_off"
        transaction.on_commit(lambda: meters.add("webhook_attempts", outcome=outcome), robust=True)
        delivery.save(update_fields=["attempts", "claim_token", "claimed_until", "status", "ended_at", "due_at"])
    return True


def _note_success(endpoint: WebhookEndpoint) -> None:
    if endpoint.failing_since is not None:
        endpoint.failing_since = endpoint.last_failed_at = None
        endpoint.save(update_fields=["failing_since", "last_failed_at"])


def _note_failure(endpoint: WebhookEndpoint, result: AttemptResult, *, now: datetime) -> None:
    endpoint.failing_since = retry_plan.failing_since(endpoint.failing_since, endpoint.last_failed_at, now=now)
    endpoint.last_failed_at = now
    if endpoint.enabled and result.status_code == GONE:
        endpoints.disable(endpoint, reason="the receiver answered 410 Gone")
    elif endpoint.enabled and retry_plan.is_hopeless(endpoint.failing_since, now=now):
        days = retry_plan.DISABLE_AFTER.days
        endpoints.disable(
            endpoint,
            reason=f"every attempt of the last {days} days failed, the last one: {result.error}",
        )
    endpoint.save()


def _noted(result: AttemptResult, began_at: datetime) -> dict[str, Any]:
    noted = {"at": began_at.isoformat(), "status_code": result.status_code, "duration_ms": result.duration_ms}
    return noted | ({"error": result.error} if result.error else {})
