"""Conversations, deliveries and dead messages, as the demo organisation shows them."""

from datetime import datetime, timedelta
from typing import Any

from uuid_utils.compat import uuid7

from agent_jobs.models import Announcement, Job, WebhookDelivery, WebhookEndpoint
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus
from agent_jobs.webhooks import endpoints
from channels_integration.models import Channel, OutboundMessage, WebMessage

_ACTOR = Actor("user", "mara")
_LINES = (
    ("finance-desk", 190, "out", "agent", "Hi Tom, INV-2041 for Brightwave is 12 days over. What holds it up?"),
    ("finance-desk", 120, "in", "Tom Hale", "They say two pallets were missing and want 5 % off. Sounds fair."),
    ("finance-desk", 118, "out", "agent", "DN-8812 shows 38 of 40 pallets signed for, so they are right."),
    ("finance-desk", 40, "in", "Tom Hale", "Then please credit it. 10 December is fine."),
    ("people-desk", 75, "out", "agent", "Morning Priya! What did you finish yesterday, and what comes next?"),
    ("people-desk", 61, "in", "Priya Nair", "Reviews mostly. Next is the flaky test."),
)
_DEAD = (
    ("slack", "#team-atlas", "Morning Yusuf! What are you working on today?", "not_in_channel"),
    ("webhook", "wms.kestrelfoods.example", "48 items changed", "http_410"),
)


def fill(org_id: str, *, now: datetime) -> None:
    _fill_conversations(org_id, now)
    for number, (platform, code, text, error) in enumerate(_DEAD):
        OutboundMessage.objects.create(
            id=uuid7(),
            org_id=org_id,
            platform=platform,
            code=code,
            text=text,
            lane=f"{org_id}/{platform}/{number}",
            status=OutboundMessage.Status.DEAD,
            failures=5,
            error_code=error,
            error_message="the bot is not in this channel" if platform == "slack" else "the address answered 410 Gone",
            created_at=now - timedelta(hours=2 + number * 5),
        )
    _fill_endpoints(org_id, now)


def _fill_conversations(org_id: str, now: datetime) -> None:
    for channel in Channel.objects.filter(org_id=org_id, platform="web"):
        said = [line for line in _LINES if line[0] == channel.code]
        WebMessage.objects.bulk_create(
            WebMessage(
                channel=channel,
                position=place + 1,
                direction=direction,
                author=author,
                text=text,
                created_at=now - timedelta(minutes=ago),
            )
            for place, (_, ago, direction, author, text) in enumerate(said)
        )
        Channel.objects.filter(pk=channel.pk).update(last_position=len(said))


def _fill_endpoints(org_id: str, now: datetime) -> None:
    url = "https://hooks.acme.example/agent-jobs"
    crm, _ = endpoints.create(org_id, actor=_ACTOR, url=url, event_types=("job.failed",), description="On-call pager")
    old, _ = endpoints.create(org_id, actor=_ACTOR, url="https://crm.acme.example/events", description="The old CRM")
    endpoints.change(org_id, old.pk, {"enabled": False}, actor=_ACTOR)
    WebhookEndpoint.objects.filter(org_id=org_id).update(created_at=now - timedelta(days=60))
    failed = Job.objects.filter(org_id=org_id, status=JobStatus.FAILED).order_by("-finished_at")
    for place, job in enumerate(failed[:12]):
        at = job.finished_at or now
        announcement = Announcement.objects.create(
            id=uuid7(),
            org_id=org_id,
            event="job.failed",
            subject_id=str(job.pk),
            payload={"job_id": str(job.pk)},
            created_at=at,
            expanded_at=at,
        )
        is_failed = place in (3, 4)
        tries: list[dict[str, Any]] = [{"at": at.isoformat(), "status_code": 200, "duration_ms": 180, "error": ""}]
        if is_failed:
            tries = [{"at": at.isoformat(), "status_code": 503, "duration_ms": 30, "error": "answered 503"}] * 6
        WebhookDelivery.objects.create(
            org_id=org_id,
            endpoint=crm,
            announcement=announcement,
            event="job.failed",
            status=WebhookDelivery.Status.FAILED if is_failed else WebhookDelivery.Status.DELIVERED,
            tries=len(tries),
            attempts=tries,
            created_at=at,
            ended_at=at + timedelta(seconds=1),
        )
