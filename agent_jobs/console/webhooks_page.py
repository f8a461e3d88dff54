"""Webhook endpoints: which events go where, how deliveries fare, and their secrets, each shown once."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponse, QueryDict

from agent_jobs.api.webhook_endpoints import WebhookEndpointRequest
from agent_jobs.console import body_checks, visits
from agent_jobs.console.templatetags.console import sentence
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, Invalid
from agent_jobs.reads import queries
from agent_jobs.webhooks import endpoints
from agent_jobs.webhooks.event_types import EVENT_TYPES

PAGE = 50


@visits.page
def webhooks(visit: Visit) -> HttpResponse:
    found = queries.webhook_endpoints(visit.org_id).order_by("-created_at", "-id")
    context = {"endpoints": list(found.values(*queries.WEBHOOK_ENDPOINT_COLUMNS))}
    return visit.render("webhooks.html", context, here="webhooks")


@visits.page
def webhook(visit: Visit, endpoint_id: UUID) -> HttpResponse:
    row = _row(visit, endpoint_id)
    status = visit.request.GET.get("status", "")
    status = status if status in queries.WEBHOOK_DELIVERY_STATUSES else ""
    found = queries.webhook_deliveries(visit.org_id, endpoint_id).order_by("-created_at", "-id")
    found = found.filter(status=status) if status else found
    rows = list(found.values(*queries.WEBHOOK_DELIVERY_COLUMNS)[: PAGE + 1])
    context = {
        "row": row,
        "deliveries": [{**each, "last": each["attempts"][-1] if each["attempts"] else None} for each in rows[:PAGE]],
        "has_more": len(rows) > PAGE,
        "status": status,
        "statuses": queries.WEBHOOK_DELIVERY_STATUSES,
    }
    return visit.render("webhook.html", context, here="webhooks")


@visits.form
def new(visit: Visit) -> HttpResponse:
    if visit.request.method != "POST":
        return _form(visit, None, {"url": "", "description": "", "event_types": list(EVENT_TYPES), "enabled": True})
    values = _sent(visit.request.POST)
    try:
        fields = body_checks.checked(WebhookEndpointRequest, values)
        made, secret = endpoints.create(visit.org_id, actor=visit.actor, **fields)
    except (Invalid, Conflict) as error:
        return _form(visit, None, values, error)
    return _secret(visit, made.pk, secret, "The endpoint is made")


@visits.form
def edit(visit: Visit, endpoint_id: UUID) -> HttpResponse:
    row = _row(visit, endpoint_id)
    if visit.request.method != "POST":
        return _form(visit, row, row)
    values = _sent(visit.request.POST)
    try:
        fields = body_checks.checked(WebhookEndpointRequest, values, partial=True)
        endpoints.change(visit.org_id, endpoint_id, fields, actor=visit.actor)
    except (Invalid, Conflict) as error:
        return _form(visit, row, values, error)
    return visit.said("The endpoint is changed", values["url"], address=visit.url("webhook", endpoint_id))


@visits.form
def rotate(visit: Visit, endpoint_id: UUID) -> HttpResponse:
    row = _row(visit, endpoint_id)
    if visit.request.method == "POST":
        minutes = endpoints.DEFAULT_OVERLAP_MINUTES
        _, secret = endpoints.rotate_secret(visit.org_id, endpoint_id, overlap_minutes=minutes, actor=visit.actor)
        return _secret(visit, endpoint_id, secret, "The secret is rotated")
    return visit.ask(
        "Make a new secret?",
        "The next page shows it once. The old one signs too for a day, so that the receiver can change.",
        "Make a new secret",
        back=visit.url("webhook", endpoint_id),
        facts=[("Endpoint", row["url"])],
        here="webhooks",
    )


@visits.form
def remove(visit: Visit, endpoint_id: UUID) -> HttpResponse:
    row = _row(visit, endpoint_id)
    if visit.request.method == "POST":
        endpoints.remove(visit.org_id, endpoint_id, actor=visit.actor)
        return visit.said("The endpoint is deleted", row["url"], address=visit.url("webhooks"))
    return visit.ask(
        "Delete this endpoint?",
        "It gets no more events, and the record of its deliveries goes with it.",
        "Delete this endpoint",
        back=visit.url("webhook", endpoint_id),
        keep="Keep it",
        is_danger=True,
        facts=[("Endpoint", row["url"])],
        here="webhooks",
    )


@visits.action
def send_test(visit: Visit, endpoint_id: UUID) -> HttpResponse:
    page = visit.url("webhook", endpoint_id)
    try:
        endpoints.send_test(visit.org_id, endpoint_id, actor=visit.actor)
    except Conflict as error:
        return visit.refused("No test was sent", sentence(error.message), address=page)
    return visit.said("A test event is on its way", address=page)


@visits.action
def redeliver(visit: Visit, endpoint_id: UUID, delivery_id: UUID) -> HttpResponse:
    page = visit.back(visit.url("webhook", endpoint_id))
    try:
        endpoints.redeliver(visit.org_id, endpoint_id, delivery_id, actor=visit.actor)
    except Conflict as error:
        return visit.refused("It was not delivered again", sentence(error.message), address=page)
    return visit.said("It is delivered again", "Under the same webhook-id.", address=page)


def _row(visit: Visit, endpoint_id: UUID) -> Mapping[str, Any]:
    found = queries.webhook_endpoints(visit.org_id).filter(pk=endpoint_id)
    row: Mapping[str, Any] | None = found.values(*queries.WEBHOOK_ENDPOINT_COLUMNS).first()
    if row is None:
        raise endpoints.endpoint_not_found(str(endpoint_id))
    return row


def _sent(sent: QueryDict) -> dict[str, Any]:
    return {
        "url": sent.get("url", "").strip(),
        "description": sent.get("description", ""),
        "event_types": sent.getlist("event_types"),
        "enabled": sent.get("enabled") == "on",
    }


def _form(
    visit: Visit, row: Mapping[str, Any] | None, values: Mapping[str, Any], error: Invalid | Conflict | None = None
) -> HttpResponse:
    problems = body_checks.told(error)
    context = {
        "row": row,
        "values": values,
        "events": [(name, name in values["event_types"]) for name in EVENT_TYPES],
        "problems": problems,
        "back": visit.url("webhook", row["id"]) if row else visit.url("webhooks"),
    }
    return visit.render("webhook_edit.html", context, here="webhooks", is_refused=bool(error))


def _secret(visit: Visit, endpoint_id: UUID, secret: str, title: str) -> HttpResponse:
    """The only page that shows a secret. It is the answer of the POST, so nothing keeps it."""
    context = {
        "title": title,
        "what": "The secret that signs its deliveries",
        "secret": secret,
        "next": visit.url("webhook", endpoint_id),
    }
    return visit.render("shown_once.html", context, here="webhooks")
