"""Secrets of tools: stored and forgotten by admins, named by declarations, never shown to anybody."""

import pytest

from agent_jobs.models import AuditEntry, ToolSecret
from agent_jobs.tools import tool_secrets
from tests import factories, rows

pytestmark = pytest.mark.django_db
SECRETS = "/services/tool-secrets"
VALUE = "canary-of-a-secret"
HOSTS = ["crm.example.com"]
URL = "https://crm.example.com/7"


@pytest.fixture
def api(db):
    return factories.api("acme", "SERVICES:ADMIN")


def test_a_secret_is_stored_sealed_and_shown_as_a_mask(api):
    first, second = (api.put(f"{SECRETS}/crm", {"value": VALUE, "hosts": HOSTS}) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 200)
    for response in (first, second, api.get(f"{SECRETS}/crm"), api.get(SECRETS)):
        assert VALUE not in response.content.decode()
    (shown,) = api.get(SECRETS).json()["data"]
    assert (shown["name"], shown["value"], shown["org_id"]) == ("crm", "******", "acme")
    assert shown["hosts"] == HOSTS
    assert VALUE not in ToolSecret.objects.get().sealed_value
    assert tool_secrets.Filled("acme", {"X": "Bearer {secret:crm}"}, tool="t", url=URL).headers == {
        "X": f"Bearer {VALUE}"
    }


def test_a_new_value_takes_the_place_of_the_old_one(api):
    for value in (VALUE, "another-secret"):
        api.put(f"{SECRETS}/crm", {"value": value, "hosts": HOSTS})

    assert tool_secrets.Filled("acme", {"X": "{secret:crm}"}, tool="t", url=URL).headers == {"X": "another-secret"}
    assert ToolSecret.objects.count() == 1


def test_a_deleted_secret_is_gone(api):
    api.put(f"{SECRETS}/crm", {"value": VALUE, "hosts": HOSTS})

    assert api.delete(f"{SECRETS}/crm").status_code == 200
    assert api.delete(f"{SECRETS}/crm").json()["code"] == "tool_secret_not_found"
    assert api.get(SECRETS).json()["data"] == []


def test_the_audit_tells_of_each_change_and_of_no_value(api):
    api.put(f"{SECRETS}/crm", {"value": VALUE, "hosts": HOSTS})
    api.put(f"{SECRETS}/crm", {"value": VALUE, "hosts": ["new.example.com"]})
    api.delete(f"{SECRETS}/crm")

    entries = AuditEntry.objects.filter(object_type="tool_secret").order_by("id")
    assert [entry.action for entry in entries] == ["tool_secret.created", "tool_secret.updated", "tool_secret.removed"]
    assert (entries[1].before["hosts"], entries[1].after["hosts"]) == (HOSTS, ["new.example.com"])
    assert VALUE not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("crm", {"hosts": HOSTS}, "value"),
        ("crm", {"value": VALUE}, "hosts"),
        ("crm", {"value": VALUE, "hosts": []}, "hosts"),
        ("crm", {"value": VALUE, "hosts": None}, "hosts"),
        ("crm", {"value": VALUE, "hosts": "crm.example.com"}, "hosts"),
        ("crm", {"value": VALUE, "hosts": ["*"]}, "hosts"),
        ("crm", {"value": VALUE, "hosts": ["*.com"]}, "hosts"),
        ("crm", {"value": VALUE, "hosts": ["https://crm.example.com"]}, "hosts"),
        ("crm", {"value": VALUE, "hosts": ["crm.example.com:443"]}, "hosts"),
        ("crm", {"value": VALUE, "hosts": ["a.example.com"] * 51}, "hosts"),
        ("crm", {"value": "short", "hosts": HOSTS}, "value"),
        ("crm", {"value": "x" * 4_001, "hosts": HOSTS}, "value"),
        ("crm", {"value": "line\nbreak-in-it", "hosts": HOSTS}, "value"),
        ("crm", {"value": "schlüssel-zum-glück", "hosts": HOSTS}, "value"),
        ("crm", {"value": " spaces-around ", "hosts": HOSTS}, "value"),
        ("crm", {"value": 12345678, "hosts": HOSTS}, "value"),
        ("crm", {"value": VALUE, "hosts": HOSTS, "name": "x"}, "name"),
        ("has space", {"value": VALUE, "hosts": HOSTS}, "name"),
        ("-crm", {"value": VALUE, "hosts": HOSTS}, "name"),
        ("x" * 65, {"value": VALUE, "hosts": HOSTS}, "name"),
        ("{secret:x}", {"value": VALUE, "hosts": HOSTS}, "name"),
    ],
)
def test_a_secret_that_does_not_hold_is_refused_by_its_field(api, name, body, field):
    response = api.put(f"{SECRETS}/{name}", body)

    assert response.status_code == 400
    assert factories.fields_of(response) == [field]
    assert not ToolSecret.objects.exists()


def test_there_is_room_for_so_many(api, monkeypatch):
    monkeypatch.setattr(tool_secrets, "MAX_SECRETS", 2)
    statuses = [
        api.put(f"{SECRETS}/s{number}", {"value": VALUE, "hosts": HOSTS}).status_code for number in (1, 2, 3, 2)
    ]

    assert statuses == [201, 201, 409, 200]


@pytest.mark.parametrize("scope", ["SERVICES:READ", "SERVICES:WRITE"])
def test_others_than_admins_are_refused(db, scope):
    rows.org("acme")
    tool_secrets.store("acme", "crm", VALUE, hosts=HOSTS, actor=rows.TESTER)
    others = factories.api("acme", scope)

    asked = [others.get(SECRETS), others.get(f"{SECRETS}/crm"), others.delete(f"{SECRETS}/crm")]
    assert {response.status_code for response in asked} == {403}
