"""Changes an organisation's webhook endpoints, with an audit entry for each change.

Secrets are made here, sealed, and returned once. After a rotation the old secret signs too, for the overlap, so that a
receiver can change to the new one without refusing a delivery. At most two secrets are active.

`delivery_claims` decides when to disable an endpoint because of failures: on a 410 Gone, or when every attempt has
failed for `retry_plan.DISABLE_AFTER`. `disable_overfull` disables one with too many pending deliveries.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound
from agent_jobs.models import Announcement, WebhookDelivery, WebhookEndpoint
from agent_jobs.specs import Actor
from agent_jobs.tenants import row_limits
from agent_jobs.webhooks.event_types import EVENT_TYPES, TEST
from infra import sealing
from infra.egress import requests_client

MOST_ENDPOINTS = 20
DEFAULT_OVERLAP_MINUTES = 24 * 60
MAX_OVERLAP_MINUTES = 7 * 24 * 60
# A receiver that does not keep up must not fill the disk.
MOST_PENDING = 100_000
_SENDER = Actor("system", "webhooks")


def create(
    org_id: str,
    *,
    actor: Actor,
    url: str,
    event_types: Sequence[str] = EVENT_TYPES,
    description: str = "",
    enabled: bool = True,
) -> tuple[WebhookEndpoint, str]:
    """Create an endpoint. Returns it with its secret, which nothing shows again. Raises Invalid, Conflict and
    SealingError.
    """
    _check(url, event_types)
    with transaction.atomic():
        known = WebhookEndpoint.objects.filter(org_id=org_id)
        row_limits.require(org_id, known, MOST_ENDPOINTS, what="webhook endpoints", code="too_many_webhook_endpoints")
        endpoint = WebhookEndpoint(
            org_id=org_id, url=url, event_types=_ordered(event_types), description=description, enabled=enabled
        )
        secret = _new_secret()
        endpoint.sealed_secret = sealing.seal_for(endpoint, "sealed_secret", secret)
        endpoint.save(force_insert=True)
        endpoint.refresh_from_db()
        _record(endpoint, "created", actor, after=_told(endpoint))
    return endpoint, secret


def change(org_id: str, endpoint_id: UUID, fields: Mapping[str, Any], *, actor: Actor) -> WebhookEndpoint:
    """Change `url`, `event_types`, `description` or `enabled`. Raises NotFound and Invalid.

    Enabling forgets the failures: deliveries that were pending go on. A change that changes nothing leaves no entry.
    """
    with transaction.atomic():
        endpoint = _locked(org_id, endpoint_id)
        before = _told(endpoint)
        _check(fields.get("url", endpoint.url), fields.get("event_types", endpoint.event_types))
        for name, value in fields.items():
            setattr(endpoint, name, _ordered(value) if name == "event_types" else value)
        old, new = audit_log.changes(before, _told(endpoint))
        if not new:
            return endpoint
        if "enabled" in new:
            endpoint.disabled_at = None if endpoint.enabled else Now()
            endpoint.disabled_reason = ""
            endpoint.failing_since = endpoint.last_failed_at = None
        endpoint.updated_at = Now()
        endpoint.save()
        endpoint.refresh_from_db()
        _record(endpoint, "updated", actor, before=old, after=new)
    return endpoint


def remove(org_id: str, endpoint_id: UUID, *, actor: Actor) -> None:
    """Delete the endpoint with its deliveries. Raises NotFound."""
    with transaction.atomic():
        endpoint = _locked(org_id, endpoint_id)
        _record(endpoint, "removed", actor, before=_told(endpoint))
        endpoint.delete()


def rotate_secret(org_id: str, endpoint_id: UUID, *, overlap_minutes: int, actor: Actor) -> tuple[WebhookEndpoint, str]:
    """Make a new secret. The old one signs too for `overlap_minutes`, an older one no more. NotFound; SealingError."""
    with transaction.atomic():
        endpoint = _locked(org_id, endpoint_id)
        old, secret = sealing.opened(endpoint, "sealed_secret"), _new_secret()
        endpoint.sealed_secret = sealing.seal_for(endpoint, "sealed_secret", secret)
        endpoint.sealed_previous_secret, endpoint.previous_secret_until = "", None
        if overlap_minutes:
            endpoint.sealed_previous_secret = sealing.seal_for(endpoint, "sealed_previous_secret", old)
            endpoint.previous_secret_until = Now() + timedelta(minutes=overlap_minutes)
        endpoint.updated_at = Now()
        endpoint.save()
        endpoint.refresh_from_db()
        _record(endpoint, "secret_rotated", actor, after={"overlap_minutes": overlap_minutes})
    return endpoint, secret


def send_test(org_id: str, endpoint_id: UUID, *, actor: Actor) -> WebhookDelivery:
    """Make a delivery of a test event, to this endpoint only. Raises NotFound, and Conflict if it is disabled."""
    with transaction.atomic():
        endpoint = _locked(org_id, endpoint_id)
        _require_enabled(endpoint)
        announcement = Announcement.objects.create(
            id=uuid7(),
            org_id=org_id,
            event=TEST,
            subject_id=str(endpoint.pk),
            payload={"org_id": org_id, "endpoint_id": str(endpoint.pk), "message": "This is a test."},
            expanded_at=Now(),
        )
        delivery = WebhookDelivery.objects.create(
            org_id=org_id, endpoint=endpoint, announcement=announcement, event=TEST
        )
        _record(endpoint, "tested", actor)
    return delivery


def redeliver(org_id: str, endpoint_id: UUID, delivery_id: UUID, *, actor: Actor) -> WebhookDelivery:
    """Send a delivery again, under the same `webhook-id`, with a new series of tries. One that is pending is due now.

    Raises NotFound, and Conflict if the endpoint is disabled.
    """
    with transaction.atomic():
        endpoint = _locked(org_id, endpoint_id)
        delivery = endpoint.deliveries.select_for_update(no_key=True).filter(pk=delivery_id).first()
        if delivery is None:
            raise delivery_not_found(str(delivery_id))
        _require_enabled(endpoint)
        delivery.status = WebhookDelivery.Status.PENDING
        delivery.tries, delivery.due_at, delivery.ended_at = 0, Now(), None
        # A sender that has it at this moment cannot settle it any more: its attempt does not count.
        delivery.claim_token = delivery.claimed_until = None
        delivery.save()
        audit_log.record(org_id, "webhook_delivery.redelivered", delivery_id, actor=actor)
    return delivery


def disable(endpoint: WebhookEndpoint, *, reason: str) -> None:
    """Stop deliveries because of what the receiver did. The caller has locked the row, and saves it."""
    endpoint.enabled = False
    endpoint.disabled_at = Now()
    endpoint.disabled_reason = reason
    endpoint.updated_at = Now()
    _record(endpoint, "disabled", _SENDER, before={"enabled": True}, after={"enabled": False, "reason": reason})


def disable_overfull(endpoint: WebhookEndpoint) -> None:
    """Disable an endpoint with as many pending deliveries as it may have. The caller has locked the row."""
    pending = endpoint.deliveries.filter(status=WebhookDelivery.Status.PENDING)
    if endpoint.enabled and len(pending.order_by("due_at").values_list("due_at")[MOST_PENDING - 1 : MOST_PENDING]):
        disable(endpoint, reason=f"{MOST_PENDING:,} deliveries are pending, which is the limit")
        endpoint.save()


def endpoint_not_found(endpoint_id: str) -> NotFound:
    return NotFound(
        f"there is no webhook endpoint {endpoint_id[:64]!r}",
        code="webhook_endpoint_not_found",
        denied=("webhook_endpoint", endpoint_id[:64]),
    )


def delivery_not_found(delivery_id: str) -> NotFound:
    return NotFound(
        f"there is no delivery {delivery_id[:64]!r} of this endpoint",
        code="webhook_delivery_not_found",
        denied=("webhook_delivery", delivery_id[:64]),
    )


def _locked(org_id: str, endpoint_id: UUID) -> WebhookEndpoint:
    found = WebhookEndpoint.objects.select_for_update(no_key=True).filter(org_id=org_id, pk=endpoint_id).first()
    if found is None:
        raise endpoint_not_found(str(endpoint_id))
    return found


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.enabled:
        raise Conflict("the webhook endpoint is disabled; enable it first", code="webhook_endpoint_disabled")


def _check(url: str, event_types: Sequence[str]) -> None:
    errors = []
    if reason := requests_client.refusal(url):
        errors.append(FieldError("url", "invalid", reason))
    known = ", ".join(EVENT_TYPES)
    if not event_types:
        errors.append(FieldError("event_types", "invalid", f"must name one or more of {known}"))
    for place, name in enumerate(event_types):
        if name not in EVENT_TYPES:
            errors.append(FieldError(f"event_types.{place}", "invalid", f"must be one of {known}"))
    if errors:
        raise Invalid(*errors)


def _ordered(event_types: Sequence[str]) -> list[str]:
    return [name for name in EVENT_TYPES if name in event_types]


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _told(endpoint: WebhookEndpoint) -> dict[str, Any]:
    names = ("url", "event_types", "description", "enabled")
    return {name: getattr(endpoint, name) for name in names}


def _record(endpoint: WebhookEndpoint, verb: str, actor: Actor, **states: Any) -> None:
    audit_log.record(endpoint.org_id, f"webhook_endpoint.{verb}", endpoint.pk, actor=actor, **states)
