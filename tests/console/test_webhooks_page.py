import re

import pytest

from agent_jobs.models import WebhookDelivery, WebhookEndpoint
from agent_jobs.webhooks import endpoints
from tests import rows
from tests.rows import TESTER

LIST = "/console/acme/webhooks"
URL = "https://hooks.example/agent-jobs"
ACTIONS = ("edit", "rotate", "remove", "test")


def made(org_id="acme"):
    rows.org(org_id)
    return endpoints.create(org_id, actor=TESTER, url=URL)[0]


@pytest.fixture
def endpoint(db):
    return made()


def page(endpoint, action=""):
    return f"/console/{endpoint.org_id}/webhooks/{endpoint.pk}{'/' if action else ''}{action}"


def secret_in(answer):
    assert answer.status_code == 200
    return re.search(r"whsec_[A-Za-z0-9+/=]+", answer.content.decode())[0]


def test_a_new_endpoint_shows_its_secret_once(admin, db):
    sent = {"url": URL, "event_types": ["job.failed"], "enabled": "on", "description": "ops"}

    secret = secret_in(admin.post(f"{LIST}/new", sent))

    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.url, endpoint.event_types, endpoint.enabled) == (URL, ["job.failed"], True)
    for address in (LIST, page(endpoint), page(endpoint, "edit")):
        assert secret not in admin.get(address).content.decode()


@pytest.mark.parametrize("wrong", [{"url": "ftp://x"}, {"url": ""}, {"event_types": []}, {"event_types": ["job.x"]}])
def test_a_wrong_endpoint_is_refused_and_the_form_keeps_its_words(admin, db, wrong):
    answer = admin.post(f"{LIST}/new", {"url": URL, "event_types": ["job.failed"], "description": "ops team", **wrong})

    assert answer.status_code == 400
    assert "ops team" in answer.content.decode()
    assert not WebhookEndpoint.objects.exists()


def test_an_admin_edits_rotates_tests_and_deletes(admin, endpoint):
    first = secret_in(admin.post(page(endpoint, "rotate")))
    admin.post(page(endpoint, "edit"), {"url": f"{URL}/2", "event_types": ["job.failed"], "enabled": "on"})
    admin.post(page(endpoint, "test"))

    endpoint.refresh_from_db()
    assert endpoint.url == f"{URL}/2"
    assert endpoint.previous_secret_until is not None
    assert first not in admin.get(page(endpoint)).content.decode()
    assert WebhookDelivery.objects.get().event == "webhook.test"

    admin.post(page(endpoint, "remove"))
    assert not WebhookEndpoint.objects.exists()


def test_a_failed_delivery_says_why_and_is_delivered_again(admin, endpoint):
    delivery = endpoints.send_test("acme", endpoint.pk, actor=TESTER)
    attempts = [{"at": "2026-01-01T00:00:00Z", "status_code": 500, "duration_ms": 12, "error": "server error"}]
    failed = next(status for status in WebhookDelivery.Status.values if status not in ("pending", "delivered"))
    WebhookDelivery.objects.update(status=failed, attempts=attempts, ended_at=delivery.created_at)

    html = admin.get(page(endpoint)).content.decode()
    admin.post(page(endpoint, f"deliveries/{delivery.pk}/redeliver"))

    delivery.refresh_from_db()
    assert "HTTP 500" in html
    assert "server error" in html
    assert delivery.status == "pending"


def test_a_member_reads_and_may_not_change(member, endpoint):
    assert member.get(LIST).status_code == 200
    assert "Send a test" not in member.get(page(endpoint)).content.decode()
    for action in ACTIONS:
        assert member.post(page(endpoint, action)).status_code == 403
    assert member.post(f"{LIST}/new", {"url": URL}).status_code == 403
    assert WebhookEndpoint.objects.count() == 1


def test_an_endpoint_of_another_organisation_is_not_there(admin, endpoint):
    theirs = made("rival")
    delivery = endpoints.send_test("rival", theirs.pk, actor=TESTER)
    ours = page(theirs).replace("/rival/", "/acme/")

    assert admin.get(ours).status_code == 404
    for action in ("edit", "rotate", "remove", "test", f"deliveries/{delivery.pk}/redeliver"):
        assert admin.post(f"{ours}/{action}").status_code == 404
    wrong = page(endpoint, f"deliveries/{delivery.pk}/redeliver")
    assert admin.post(wrong).status_code == 404


def test_pages_of_webhooks_take_few_queries(admin, endpoint, django_assert_max_num_queries):
    for _ in range(5):
        endpoints.send_test("acme", endpoint.pk, actor=TESTER)
    for address in (LIST, page(endpoint)):
        with django_assert_max_num_queries(12):
            admin.get(address)
