"""App tokens over HTTP: made once, shown once, two to an app, and gone at once when they are revoked."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs.models import AppToken, AuditEntry
from agent_jobs.tenants import app_tokens
from tests import factories, rows
from tests.waiting import PATIENCE

TOKENS = "/services/app-tokens"
CRM = {"app": "crm", "scopes": ["SERVICES:WRITE"]}
pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(db):
    return factories.api("acme", "SERVICES:ADMIN")


def ids(response):
    return [token["public_id"] for token in response.json()["data"]]


def test_a_token_is_made_and_works_and_is_never_shown_again(admin):
    made = admin.post(TOKENS, {**CRM, "name": "CRM, blue"})

    assert made.status_code == 201
    token = made.json()["data"]
    plain = token.pop("token")
    assert app_tokens.PATTERN.fullmatch(plain)
    assert made.json()["meta"] == {"org_id": "acme", "id": token["public_id"]}
    assert (token["app"], token["name"], token["scopes"]) == ("crm", "CRM, blue", ["SERVICES:WRITE"])
    assert token["created_by"].startswith("token:ajt_live_")
    stored = AppToken.objects.get(app="crm")
    assert (stored.expires_at - stored.created_at).days == 90
    assert factories.Api(plain).get("/services/agent-jobs").status_code == 200

    shown = admin.get(f"{TOKENS}/{token['public_id']}").json()["data"]
    assert shown == {**token, "last_used_at": shown["last_used_at"]}
    listed = admin.get(TOKENS)
    assert token["public_id"] in ids(listed)
    for answer in (listed, admin.get(f"{TOKENS}/{token['public_id']}"), admin.get("/services/audit")):
        assert plain not in answer.content.decode()
        assert "digest" not in answer.content.decode()


def test_a_repeated_key_makes_one_token_and_tells_it_once(admin):
    first = admin.post(TOKENS, CRM, Idempotency_Key="k1")
    again = admin.post(TOKENS, CRM, Idempotency_Key="k1")

    assert (first.status_code, again.status_code) == (201, 201)
    plain = first.json()["data"].pop("token")
    assert plain not in again.content.decode()
    assert "token" not in again.json()["data"]
    assert AppToken.objects.filter(app="crm").count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT answer::text FROM agent_jobs_idempotencykey")
        assert plain not in cursor.fetchone()[0]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"app": ""}, "app"),
        ({"app": "x" * 201}, "app"),
        ({"app": 5}, "app"),
        ({"name": " "}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "SERVICES:READ"}, "scopes"),
        ({"scopes": ["SERVICES:ALL"]}, "scopes"),
        ({"scopes": [5]}, "scopes.0"),
        ({"scopes": {"a": 1}}, "scopes"),
        ({"scopes": ["SERVICES:READ"] * 11}, "scopes"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_in_days": 366}, "expires_in_days"),
        ({"expires_in_days": 1.5}, "expires_in_days"),
        ({"name": "crm\u202e"}, "name"),
        ({"app": "cr\u200bm"}, "app"),
        ({"token": "ajt_live_x"}, "token"),
    ],
)
def test_what_cannot_be_is_refused_and_named(admin, change, field):
    answer = admin.post(TOKENS, {**CRM, **change})

    assert answer.status_code == 400
    assert factories.fields_of(answer) == [field]
    assert not AppToken.objects.filter(app="crm").exists()


@pytest.mark.parametrize("scope", ["SERVICES:READ", "SERVICES:WRITE"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", ""), ("GET", "/x"), ("DELETE", "/x")])
def test_only_admins_have_to_do_with_tokens(scope, method, path):
    answer = factories.api("acme", scope).send(method, TOKENS + path, CRM if method == "POST" else None)

    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert "SERVICES:ADMIN" in answer.json()["message"]


def test_an_app_has_two_active_tokens_at_most(admin):
    first, second = (admin.post(TOKENS, CRM).json()["data"] for _ in range(2))

    third = admin.post(TOKENS, CRM)
    assert (third.status_code, third.json()["code"]) == (409, "too_many_active_tokens")
    assert admin.post(TOKENS, {**CRM, "app": "other"}).status_code == 201
    assert factories.api("rival", "SERVICES:ADMIN").post(TOKENS, CRM).status_code == 201

    admin.delete(f"{TOKENS}/{first['public_id']}")
    assert admin.post(TOKENS, CRM).status_code == 201
    assert admin.post(TOKENS, CRM).status_code == 409
    AppToken.objects.filter(public_id=second["public_id"]).update(expires_at=Now() - timedelta(seconds=1))
    assert admin.post(TOKENS, CRM).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_make_two():
    plain = factories.token("acme", "SERVICES:ADMIN")
    gate = threading.Barrier(20)

    def post(_):
        try:
            gate.wait(PATIENCE)
            return factories.Api(plain).post(TOKENS, CRM).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(post, range(20)))

    assert statuses == [201] * 2 + [409] * 18
    assert AppToken.objects.filter(app="crm").count() == 2
    assert AuditEntry.objects.filter(action="app_token.created", after__app="crm").count() == 2


def test_revoking_is_at_once_and_again_is_no_error(admin):
    made = admin.post(TOKENS, CRM).json()["data"]
    client = factories.Api(made["token"])
    assert client.get("/services/agent-jobs").status_code == 200

    first = admin.delete(f"{TOKENS}/{made['public_id']}")
    again = admin.delete(f"{TOKENS}/{made['public_id']}")

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert first.json()["data"]["revoked_at"]
    assert client.get("/services/agent-jobs").status_code == 401
    assert AuditEntry.objects.filter(action="app_token.revoked").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_revoked_token_is_refused_on_a_connection_that_has_just_used_it():
    """No process keeps a yes: two threads with connections of their own, as two web processes have."""
    admin, plain = factories.api("acme", "SERVICES:ADMIN"), factories.token("acme", "SERVICES:READ")
    used, revoked = threading.Event(), threading.Event()

    def use():
        try:
            client = factories.Api(plain)
            before = client.get("/services/agent-jobs").status_code
            used.set()
            assert revoked.wait(PATIENCE)
            return before, client.get("/services/agent-jobs").status_code
        finally:
            used.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(use)
        assert used.wait(PATIENCE)
        assert admin.delete(f"{TOKENS}/{plain[:16]}").status_code == 200
        revoked.set()

        assert seen.result() == (200, 401)


def test_the_list_holds_every_token_of_the_organization_and_can_be_filtered(admin):
    made = [admin.post(TOKENS, {**CRM, "app": app}).json()["data"]["public_id"] for app in ("a", "b", "a")]
    rows.org("rival")
    factories.token("rival", "SERVICES:ADMIN")

    listed = admin.get(TOKENS, {"sort": "created_at:asc"})
    assert ids(listed)[1:] == made
    assert listed.json()["meta"]["total"] == 4
    assert ids(admin.get(TOKENS, {"app": "a", "sort": "created_at:asc"})) == [made[0], made[2]]
    page = admin.get(TOKENS, {"limit": 2, "sort": "app:desc"}).json()
    rest = admin.get(TOKENS, {"limit": 2, "cursor": page["meta"]["next_cursor"]}).json()
    assert {t["app"] for t in page["data"] + rest["data"]} == {"a", "b", "test"}


def test_anothers_token_is_as_if_it_were_not_there(admin):
    theirs = factories.token("rival", "SERVICES:READ")[:16]

    for method in ("GET", "DELETE"):
        answers = [admin.send(method, f"{TOKENS}/{name}") for name in (theirs, "ajt_live_0000000", "a%00b")]
        assert [answer.status_code for answer in answers] == [404] * 3
        foreign, unknown, _ = ({**answer.json(), "meta": None} for answer in answers)
        assert str(foreign).replace(theirs, "x") == str(unknown).replace("ajt_live_0000000", "x")
    assert AppToken.objects.get(public_id=theirs).revoked_at is None
    denied = AuditEntry.objects.filter(action="access.denied").order_by("id")
    assert [(e.org_id, e.object_type, e.object_id, e.after["method"]) for e in denied] == [
        ("acme", "app_token", theirs, "GET"),
        ("acme", "app_token", theirs, "DELETE"),
    ]
