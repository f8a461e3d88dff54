"""Endpoints of outgoing webhooks over HTTP: made, shown, changed, refused. `tests/webhooks` has what they are sent."""

from typing import Any

import pytest

from agent_jobs.models import AuditEntry, WebhookDelivery, WebhookEndpoint
from agent_jobs.webhooks import endpoints
from agent_jobs.webhooks.event_types import EVENT_TYPES
from tests import factories

pytestmark = pytest.mark.django_db
ENDPOINTS = "/services/webhook-endpoints"
URL = "https://example.com/hooks"
NOBODYS = "01930000-0000-7000-8000-000000000000"


@pytest.fixture
def api() -> factories.Api:
    return factories.api("acme", "SERVICES:ADMIN")


def made(api: factories.Api, **fields: Any) -> dict[str, Any]:
    response = api.post(ENDPOINTS, {"url": URL, **fields})
    assert response.status_code == 201, response.content
    shown: dict[str, Any] = response.json()["data"]
    return shown


def test_an_endpoint_is_made_with_a_secret_that_only_this_answer_shows(api: factories.Api) -> None:
    endpoint = made(api, description="CRM", event_types=["job.failed", "job.created"])
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    assert (endpoint["url"], endpoint["enabled"], endpoint["description"]) == (URL, True, "CRM")
    assert endpoint["event_types"] == ["job.created", "job.failed"]
    shown = api.get(f"{ENDPOINTS}/{endpoint['id']}")
    assert shown.json()["data"] == endpoint
    assert api.get(ENDPOINTS).json()["data"] == [endpoint]
    for response in (shown, api.get(ENDPOINTS), api.patch(f"{ENDPOINTS}/{endpoint['id']}", {"url": URL})):
        assert secret not in response.content.decode()
    assert secret not in WebhookEndpoint.objects.get().sealed_secret
    assert secret not in str(list(AuditEntry.objects.values()))


def test_a_repeated_key_makes_one_endpoint_and_shows_no_secret_again(api: factories.Api) -> None:
    first, second = (api.post(ENDPOINTS, {"url": URL}, Idempotency_Key="k").json()["data"] for _ in range(2))
    assert first["id"] == second["id"]
    assert ("secret" in first, "secret" in second) == (True, False)
    assert WebhookEndpoint.objects.count() == 1


def test_without_event_types_it_asks_for_all(api: factories.Api) -> None:
    assert made(api)["event_types"] == list(EVENT_TYPES)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "https://example.com:22/"}, "url"),
        ({"url": "https://user:pass@example.com/"}, "url"),
        ({"url": "https://example.com/\r\nX: y"}, "url"),
        ({"url": ""}, "url"),
        ({"url": None}, "url"),
        ({"url": 7}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["job.completed", "job.exploded"]}, "event_types.1"),
        ({"event_types": ["webhook.test"]}, "event_types.0"),
        ({"event_types": "job.completed"}, "event_types"),
        ({"description": "x" * 501}, "description"),
        ({"enabled": "yes"}, "enabled"),
        ({"secret": "whsec_x"}, "secret"),
    ],
)
def test_what_does_not_hold_is_refused_by_its_field(
    api: factories.Api, settings: Any, change: dict[str, Any], field: str
) -> None:
    settings.ALLOW_PRIVATE_ADDRESSES = False
    refused = api.post(ENDPOINTS, {"url": URL, **change})
    assert (refused.status_code, factories.fields_of(refused)) == (400, [field])
    assert not WebhookEndpoint.objects.exists()
    endpoint = made(api)
    if change != {"url": None}:  # null means absent in a PATCH
        refused = api.patch(f"{ENDPOINTS}/{endpoint['id']}", change)
        assert (refused.status_code, factories.fields_of(refused)) == (400, [field])


def test_a_change_names_only_what_changes_in_the_audit(api: factories.Api) -> None:
    endpoint = made(api)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    changed = api.patch(path, {"event_types": ["job.failed"], "enabled": False}).json()["data"]
    assert (changed["event_types"], changed["enabled"]) == (["job.failed"], False)
    assert changed["disabled_at"]
    assert "disabled_reason" not in changed
    assert api.patch(path, {"enabled": False}).status_code == 200
    entries = AuditEntry.objects.filter(object_id=endpoint["id"]).order_by("id")
    assert [entry.action for entry in entries] == ["webhook_endpoint.created", "webhook_endpoint.updated"]
    assert set(entries[1].after) == {"event_types", "enabled"}


def test_a_deleted_endpoint_is_gone(api: factories.Api) -> None:
    path = f"{ENDPOINTS}/{made(api)['id']}"
    assert api.delete(path).status_code == 200
    assert api.delete(path).json()["code"] == "webhook_endpoint_not_found"
    assert AuditEntry.objects.filter(action="webhook_endpoint.removed").exists()


def test_there_is_room_for_so_many(api: factories.Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MOST_ENDPOINTS", 2)
    responses = [api.post(ENDPOINTS, {"url": URL}) for _ in range(3)]
    assert [response.status_code for response in responses] == [201, 201, 409]
    assert responses[-1].json()["code"] == "too_many_webhook_endpoints"


@pytest.mark.parametrize(
    ("overlap", "field"),
    [(-1, "overlap_minutes"), (endpoints.MAX_OVERLAP_MINUTES + 1, "overlap_minutes"), ("5", "overlap_minutes")],
)
def test_an_impossible_overlap_is_refused(api: factories.Api, overlap: Any, field: str) -> None:
    refused = api.post(f"{ENDPOINTS}/{made(api)['id']}/rotate-secret", {"overlap_minutes": overlap})
    assert (refused.status_code, factories.fields_of(refused)) == (400, [field])


def test_a_test_event_is_one_delivery_to_this_endpoint_only(api: factories.Api) -> None:
    endpoint, other = made(api, event_types=["job.created"]), made(api)
    response = api.post(f"{ENDPOINTS}/{endpoint['id']}/test")
    assert response.status_code == 201
    assert response.json()["data"]["payload"]["type"] == "webhook.test"
    listed = api.get(f"{ENDPOINTS}/{endpoint['id']}/deliveries").json()
    assert listed["data"] == [response.json()["data"]]
    assert listed["meta"]["total"] == 1
    assert api.get(f"{ENDPOINTS}/{other['id']}/deliveries").json()["data"] == []


def test_deliveries_are_filtered_and_paged(api: factories.Api) -> None:
    endpoint = made(api)
    path = f"{ENDPOINTS}/{endpoint['id']}/deliveries"
    ids = [api.post(f"{ENDPOINTS}/{endpoint['id']}/test").json()["data"]["id"] for _ in range(3)]
    WebhookDelivery.objects.filter(pk=ids[0]).update(status="failed")
    WebhookDelivery.objects.filter(pk=ids[1]).update(event="job.failed")
    for query, expected in (
        ({}, [ids[2], ids[1], ids[0]]),
        ({"status": "failed"}, [ids[0]]),
        ({"status": "delivered"}, []),
        ({"event": "job.failed"}, [ids[1]]),
        ({"event": "webhook.test", "sort": "created_at"}, [ids[0], ids[2]]),
        ({"limit": 1, "offset": 1}, [ids[1]]),
    ):
        assert [one["id"] for one in api.get(path, query).json()["data"]] == expected, query
    cursor = api.get(path, {"limit": 2}).json()["meta"]["next_cursor"]
    assert [one["id"] for one in api.get(path, {"limit": 2, "cursor": cursor}).json()["data"]] == [ids[0]]
    for query in ({"status": "lost"}, {"event": "job.exploded"}, {"endpoint": "x"}):
        assert factories.fields_of(api.get(path, query)) == list(query)


@pytest.mark.parametrize("wanted", [NOBODYS, "nonsense", "%00", "1"])
def test_what_does_not_exist_is_not_found(api: factories.Api, wanted: str) -> None:
    endpoint = made(api)
    path = f"{ENDPOINTS}/{wanted}"
    responses = [
        api.get(path),
        api.patch(path, {"enabled": True}),
        api.delete(path),
        api.post(f"{path}/test"),
        api.post(f"{path}/rotate-secret"),
        api.get(f"{path}/deliveries"),
        api.post(f"{path}/deliveries/{NOBODYS}/redeliver"),
    ]
    assert {response.json()["code"] for response in responses} == {"webhook_endpoint_not_found"}
    of_it = api.post(f"{ENDPOINTS}/{endpoint['id']}/deliveries/{wanted}/redeliver")
    assert (of_it.status_code, of_it.json()["code"]) == (404, "webhook_delivery_not_found")


def test_a_delivery_of_another_endpoint_is_not_found(api: factories.Api) -> None:
    endpoint, other = made(api), made(api)
    delivery = api.post(f"{ENDPOINTS}/{endpoint['id']}/test").json()["data"]["id"]
    assert api.post(f"{ENDPOINTS}/{other['id']}/deliveries/{delivery}/redeliver").status_code == 404


@pytest.mark.parametrize("scope", ["SERVICES:READ", "SERVICES:WRITE"])
def test_others_than_admins_only_read(api: factories.Api, scope: str) -> None:
    endpoint, others = made(api), factories.api("acme", scope)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    assert {others.get(one).status_code for one in (ENDPOINTS, path, f"{path}/deliveries")} == {200}
    refused = [
        others.post(ENDPOINTS, {"url": URL}),
        others.patch(path, {"enabled": False}),
        others.delete(path),
        *(others.post(f"{path}/{word}") for word in ("test", "rotate-secret", f"deliveries/{NOBODYS}/redeliver")),
    ]
    assert {response.status_code for response in refused} == {403}
