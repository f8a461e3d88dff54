"""Valid tokens are accepted; a refusal tells nothing about the reason."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from agent_jobs.models import AppToken
from agent_jobs.tenants import app_tokens
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"


def refused(response):
    body = response.json()
    body["meta"].pop("request_id")
    return response.status_code, response["WWW-Authenticate"], body


def test_every_way_to_fail_gets_the_same_401():
    good = factories.token()
    expired = factories.token()
    AppToken.objects.filter(public_id=expired[:16]).update(expires_at=Now() - timedelta(1))
    revoked = factories.token()
    app_tokens.revoke(AppToken.objects.get(public_id=revoked[:16]))
    unknown, forgotten = app_tokens.issue(rows.org(), name="x", scopes=["SERVICES:READ"])[::-1]
    forgotten.delete()
    headers = [
        *(None, "", "Bearer", "Bearer ", f"Bearer  {good}", f"Bearer\t{good}", f" Bearer {good}", f"Bearer {good} "),
        *(good, f"Basic {good}", f"Token {good}", f"Bearer {good},Bearer {good}", f"Bearer {good}, {good}"),
        *(f"Bearer {good}x", f"Bearer {good[:-1]}", f"Bearer {good.swapcase()}", f"Bearer é{good}", "Bearer x" * 2000),
        *(f"Bearer {expired}", f"Bearer {revoked}", f"Bearer {unknown}"),
    ]

    answers = [
        refused(factories.Api(None).get(JOBS, **({} if header is None else {"Authorization": header})))
        for header in headers
    ]

    assert answers == [answers[0]] * len(headers)
    status, challenge, body = answers[0]
    assert (status, body["code"], body["errors"]) == (401, "unauthenticated", [])
    assert challenge.startswith("Bearer")


def test_the_scheme_is_taken_in_any_case():
    assert factories.Api(None).get(JOBS, Authorization=f"bearer {factories.token()}").status_code == 200


@pytest.mark.parametrize(
    ("scopes", "method", "status"),
    [
        (("SERVICES:READ",), "GET", 200),
        (("SERVICES:READ",), "HEAD", 200),
        (("SERVICES:READ",), "OPTIONS", 200),
        (("SERVICES:READ",), "POST", 403),
        (("SERVICES:READ",), "DELETE", 403),
        (("SERVICES:WRITE",), "GET", 200),
        (("SERVICES:WRITE",), "POST", 400),
        (("SERVICES:ADMIN",), "GET", 200),
        (("SERVICES:ADMIN",), "POST", 400),
        (("SERVICES:READ", "SERVICES:WRITE"), "POST", 400),
    ],
)
def test_a_scope_allows_what_its_level_implies(scopes, method, status):
    response = factories.api("acme", *scopes).send(method, JOBS, {} if method == "POST" else None)

    assert response.status_code == status
    if status == 403:
        assert response.json()["code"] == "insufficient_scope"


def test_a_session_is_no_credential(admin_client):
    assert admin_client.get(JOBS).status_code == 401


def test_the_organization_comes_from_the_token_alone(acme, rival):
    theirs = rows.job(org_id="rival")

    shown = acme.get(JOBS, X_Org_Id="rival").json()

    assert shown["meta"]["org_id"] == "acme"
    assert shown["data"] == []
    assert rival.get(JOBS).json()["data"][0]["id"] == str(theirs.pk)
