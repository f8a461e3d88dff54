"""Outgoing webhooks: `/services/webhook-endpoints`, the log of their deliveries, and redelivery.

Writing needs ADMIN, because an endpoint gets every job's content. READ shows everything but the secrets.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api import paging, parsing
from agent_jobs.api.base import Resource, each, read_id
from agent_jobs.api.docs import item_of, operation, page_of, removal
from agent_jobs.api.fields import Flag, StrictSerializer, Text, Whole
from agent_jobs.api.filters import WebhookDeliveryFilters
from agent_jobs.api.formatting import shown
from agent_jobs.reads import queries
from agent_jobs.webhooks import endpoints, sending
from agent_jobs.webhooks.event_types import EVENT_TYPES, TEST

_TIMES = {"created_at": "created_at", "updated_at": "updated_at"}
ENDPOINTS_BY = paging.Sorting("webhook_endpoints", _TIMES, default="created_at:asc")
DELIVERIES_BY = paging.Sorting("webhook_deliveries", {"created_at": "created_at"}, default="created_at:desc")


# --- Requests and responses ------------------------------------------------------------------------------------
class WebhookEndpointRequest(StrictSerializer):
    url = Text(max_length=2_000, help_text="Where events are POSTed, as https://…; no private address.")
    event_types = serializers.ListField(
        child=Text(max_length=64), required=False, help_text=f"All if absent. Known are {', '.join(EVENT_TYPES)}."
    )
    description = Text(max_length=500, required=False, allow_blank=True)
    enabled = Flag(required=False)


class RotateWebhookSecretRequest(StrictSerializer):
    overlap_minutes = Whole(
        required=False,
        min_value=0,
        max_value=endpoints.MAX_OVERLAP_MINUTES,
        help_text="How long the old secret signs too. Default: a day. 0: it stops at once.",
    )


class WebhookEndpointSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    url = serializers.CharField()
    event_types = serializers.ListField(child=serializers.ChoiceField(list(EVENT_TYPES)))
    description = serializers.CharField(required=False)
    enabled = serializers.BooleanField()
    disabled_at = serializers.DateTimeField(required=False)
    disabled_reason = serializers.CharField(required=False, help_text="If its failures disabled it.")
    failing_since = serializers.DateTimeField(
        required=False, help_text="Since then every attempt has failed. After five days the endpoint is disabled."
    )
    previous_secret_until = serializers.DateTimeField(
        required=False, help_text="Until then the secret before the last rotation signs too."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class NewWebhookEndpoint(WebhookEndpointSerializer):
    secret = serializers.CharField(required=False, help_text="As whsec_…; shown by this answer only.")


class WebhookAttempt(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    status_code = serializers.IntegerField(allow_null=True, help_text="null: there was no answer.")
    duration_ms = serializers.IntegerField()
    error = serializers.CharField(required=False)


class WebhookDeliverySerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    endpoint_id = serializers.CharField()
    webhook_id = serializers.CharField(help_text="The header `webhook-id`: the same at each attempt and redelivery.")
    event = serializers.ChoiceField([*EVENT_TYPES, TEST])
    status = serializers.ChoiceField(list(queries.WEBHOOK_DELIVERY_STATUSES))
    attempts = WebhookAttempt(many=True, help_text="The last 50, oldest first.")
    next_attempt_at = serializers.DateTimeField(required=False, help_text="While it is pending.")
    payload = serializers.DictField(help_text="The body that is sent.")
    created_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(required=False)


WebhookEndpointItem = item_of("WebhookEndpointItem", WebhookEndpointSerializer)
NewWebhookEndpointItem = item_of("NewWebhookEndpointItem", NewWebhookEndpoint)
WebhookDeliveryItem = item_of("WebhookDeliveryItem", WebhookDeliverySerializer)


def endpoint_json(row: queries.Row) -> dict[str, Any]:
    return shown(WebhookEndpointSerializer, row)


def delivery_json(row: queries.Row) -> dict[str, Any]:
    return shown(
        WebhookDeliverySerializer,
        row,
        webhook_id=row["announcement_id"],
        next_attempt_at=row["due_at"] if row["status"] == "pending" else None,
        payload=sending.body_of(row["event"], row["announcement__created_at"], row["announcement__payload"]),
    )


# --- Views -----------------------------------------------------------------------------------------------------
class _Webhooks(Resource):
    write_level = scopes.Level.ADMIN

    def read_endpoint_id(self, text: str) -> UUID:
        return read_id(text, endpoints.endpoint_not_found)

    def endpoint_row(self, endpoint_id: UUID) -> queries.Row:
        found = queries.webhook_endpoints(self.org_id).filter(pk=endpoint_id)
        row: queries.Row | None = found.values(*queries.WEBHOOK_ENDPOINT_COLUMNS).first()
        if row is None:
            raise endpoints.endpoint_not_found(str(endpoint_id))
        return row

    def item(self, endpoint: Any) -> dict[str, Any]:
        return {"data": endpoint_json(vars(endpoint)), "meta": self.meta(endpoint.pk)}

    def delivery_item(self, endpoint_id: UUID, delivery_id: UUID) -> dict[str, Any]:
        found = queries.webhook_deliveries(self.org_id, endpoint_id).filter(pk=delivery_id)
        row = found.values(*queries.WEBHOOK_DELIVERY_COLUMNS).get()
        return {"data": delivery_json(row), "meta": self.meta(delivery_id)}


class WebhookEndpoints(_Webhooks):
    @operation(
        "webhook_endpoints_list",
        "List webhook endpoints",
        answers={200: page_of("WebhookEndpointPage", WebhookEndpointSerializer)},
        sorting=ENDPOINTS_BY,
        description="Never shows the secrets.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=ENDPOINTS_BY)
        found = queries.webhook_endpoints(self.org_id)
        return self.listed(asked, found, queries.WEBHOOK_ENDPOINT_COLUMNS, each(endpoint_json))

    @operation(
        "webhook_endpoints_create",
        "Create a webhook endpoint",
        answers={201: NewWebhookEndpointItem},
        request=WebhookEndpointRequest,
        description="Needs SERVICES:ADMIN. Only this answer shows the secret that signs; a repeated Idempotency-Key"
        f" does not get it. 409 `too_many_webhook_endpoints` if there are {endpoints.MOST_ENDPOINTS}.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=WebhookEndpointRequest).body
        made: dict[str, str] = {}

        def effect() -> tuple[int, Mapping[str, Any]]:
            endpoint, made["secret"] = endpoints.create(self.org_id, actor=self.actor, **fields)
            return 201, self.item(endpoint)

        return self.once(effect, secrets=made)


class WebhookEndpointDetail(_Webhooks):
    @operation("webhook_endpoints_retrieve", "Get a webhook endpoint", answers={200: WebhookEndpointItem})
    def get(self, request: Request, endpoint_id: str) -> Response:
        self.asked()
        row = self.endpoint_row(self.read_endpoint_id(endpoint_id))
        return Response({"data": endpoint_json(row), "meta": self.meta(row["id"])})

    @operation(
        "webhook_endpoints_change",
        "Change a webhook endpoint",
        answers={200: WebhookEndpointItem},
        request=WebhookEndpointRequest,
        description="Needs SERVICES:ADMIN. A disabled endpoint gets no new events; its pending deliveries wait until it"
        " is enabled. Enabling it forgets its failures.",
    )
    def patch(self, request: Request, endpoint_id: str) -> Response:
        fields = self.asked(body=WebhookEndpointRequest, partial=True).body
        changed = endpoints.change(self.org_id, self.read_endpoint_id(endpoint_id), fields, actor=self.actor)
        return Response(self.item(changed))

    @operation(
        "webhook_endpoints_delete",
        "Delete a webhook endpoint",
        answers={200: removal("RemovedWebhookEndpoint")},
        description="Needs SERVICES:ADMIN. Deletes its deliveries, too.",
    )
    def delete(self, request: Request, endpoint_id: str) -> Response:
        self.asked()
        found = self.read_endpoint_id(endpoint_id)
        endpoints.remove(self.org_id, found, actor=self.actor)
        return Response({"meta": self.meta(found), "message": f"Webhook endpoint '{found}' deleted"})


class RotateWebhookSecret(_Webhooks):
    @operation(
        "webhook_endpoints_rotate_secret",
        "Rotate the secret of a webhook endpoint",
        answers={200: NewWebhookEndpointItem},
        request=RotateWebhookSecretRequest,
        description="Needs SERVICES:ADMIN. Makes a new secret, which only this answer shows. Until"
        " `previous_secret_until` the old one signs too: each delivery then has two signatures. The body is optional.",
    )
    def post(self, request: Request, endpoint_id: str) -> HttpResponseBase:
        fields = self.asked(body=RotateWebhookSecretRequest).body
        found = self.read_endpoint_id(endpoint_id)
        made: dict[str, str] = {}
        minutes = fields.get("overlap_minutes", endpoints.DEFAULT_OVERLAP_MINUTES)

        def effect() -> tuple[int, Mapping[str, Any]]:
            endpoint, made["secret"] = endpoints.rotate_secret(
                self.org_id, found, overlap_minutes=minutes, actor=self.actor
            )
            return 200, self.item(endpoint)

        return self.once(effect, secrets=made)


class TestWebhook(_Webhooks):
    @operation(
        "webhook_endpoints_test",
        "Send a test event",
        answers={201: WebhookDeliveryItem},
        description="Needs SERVICES:ADMIN. Makes a delivery of the type `webhook.test` to this endpoint only.",
    )
    def post(self, request: Request, endpoint_id: str) -> HttpResponseBase:
        self.asked()
        found = self.read_endpoint_id(endpoint_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            delivery = endpoints.send_test(self.org_id, found, actor=self.actor)
            return 201, self.delivery_item(found, delivery.pk)

        return self.once(effect)


class WebhookDeliveries(_Webhooks):
    @operation(
        "webhook_deliveries_list",
        "List the deliveries of a webhook endpoint",
        answers={200: page_of("WebhookDeliveryPage", WebhookDeliverySerializer)},
        sorting=DELIVERIES_BY,
        filtered=WebhookDeliveryFilters,
        description="Kept for 30 days, or as long as ended jobs if that is shorter.",
    )
    def get(self, request: Request, endpoint_id: str) -> Response:
        try:
            wanted = parsing.read_uuid(endpoint_id)
        except ValueError:
            wanted = UUID(int=0)
        found = queries.webhook_deliveries(self.org_id, wanted)
        asked = self.asked(sorting=DELIVERIES_BY, rows=found, filtered=WebhookDeliveryFilters)
        self.endpoint_row(self.read_endpoint_id(endpoint_id))
        return self.listed(asked, asked.rows, queries.WEBHOOK_DELIVERY_COLUMNS, each(delivery_json))


class RedeliverWebhook(_Webhooks):
    @operation(
        "webhook_deliveries_redeliver",
        "Redeliver an event",
        answers={200: WebhookDeliveryItem},
        description="Needs SERVICES:ADMIN. Sends it again whatever its status, with the same `webhook-id` and a new"
        " series of tries.",
    )
    def post(self, request: Request, endpoint_id: str, delivery_id: str) -> HttpResponseBase:
        self.asked()
        endpoint, delivery = self.read_endpoint_id(endpoint_id), read_id(delivery_id, endpoints.delivery_not_found)

        def effect() -> tuple[int, Mapping[str, Any]]:
            endpoints.redeliver(self.org_id, endpoint, delivery, actor=self.actor)
            return 200, self.delivery_item(endpoint, delivery)

        return self.once(effect)
