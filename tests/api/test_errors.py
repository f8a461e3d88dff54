"""Refusals have one form, carry a request id, and a database that is away is a 503 that says when to come back."""

import psycopg
import pytest
from django.db import DataError, InternalError, OperationalError

from agent_jobs.models import AppToken
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("connection refused"),
        caused(OperationalError("no space left on device"), psycopg.errors.DiskFull()),
        caused(OperationalError("terminating connection"), psycopg.errors.AdminShutdown()),
        caused(InternalError("cannot execute INSERT"), psycopg.errors.ReadOnlySqlTransaction()),
    ],
)
def test_a_database_that_cannot_be_used_is_a_503(acme, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("agent_jobs.jobs.create", fail)

    response = acme.post(JOBS, factories.job_request())

    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert response.json()["code"] == "unavailable"
    assert "connection" not in response.json()["message"]


def test_a_database_that_is_away_when_the_token_is_looked_up_is_a_503(acme, monkeypatch):
    def fail(*args, **kwargs):
        raise OperationalError("connection refused")

    monkeypatch.setattr("agent_jobs.tenants.app_tokens.authenticate", fail)

    assert acme.get(JOBS).status_code == 503


def test_a_value_that_slips_past_the_parsers_is_a_400(acme, monkeypatch):
    def fail(*args, **kwargs):
        raise DataError("invalid byte sequence")

    monkeypatch.setattr("agent_jobs.jobs.create", fail)

    response = acme.post(JOBS, factories.job_request())

    assert response.status_code == 400
    assert "byte" not in response.json()["message"]


def test_a_fault_of_our_own_is_a_500_in_json_that_tells_nothing(acme, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("agent_jobs.jobs.create", fail)

    response = acme.post(JOBS, factories.job_request(), X_Request_ID="mine")

    assert response.status_code == 500
    assert response.json() == {
        "code": "internal_error",
        "message": "something went wrong here; it has been recorded",
        "errors": [],
        "meta": {"request_id": "mine"},
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (JOBS, 200),
        (f"{JOBS}?limit=0", 400),
        (f"{JOBS}/x", 404),
        ("/nowhere", 404),
        ("/health/live", 200),
        ("/schema", 200),
        ("/docs", 200),
    ],
)
def test_every_answer_carries_a_request_id(acme, path, status):
    first, second = acme.get(path), acme.get(path)

    assert first.status_code == status
    assert first["X-Request-ID"]
    assert first["X-Request-ID"] != second["X-Request-ID"]
    assert acme.get(path, X_Request_ID="abc-123")["X-Request-ID"] == "abc-123"
    if status >= 400:
        assert first.json()["meta"]["request_id"] == first["X-Request-ID"]


@pytest.mark.parametrize("stated", ["", " ", "x" * 129, "a b", "<script>", "é", "-x", "a,b"])
def test_an_insane_request_id_is_replaced(acme, stated):
    assert acme.get(JOBS, X_Request_ID=stated)["X-Request-ID"] != stated


def test_a_401_a_403_and_a_405_have_the_form_too(nobody, reader):
    for response in (nobody.get(JOBS), reader.post(JOBS, {}), reader.send("PUT", "/health/live")):
        assert set(response.json()) == {"code", "message", "errors", "meta"}
        assert response.json()["meta"]["request_id"] == response["X-Request-ID"]


def test_errors_of_the_admin_stay_what_they_are(admin_client):
    assert admin_client.get("/admin/").status_code == 200
    assert admin_client.get("/admin/agent_jobs/job/").status_code == 200
    rows.job()
    assert admin_client.get("/admin/agent_jobs/job/").status_code == 200


def test_no_admin_page_shows_a_digest_or_changes_a_job(admin_client):
    job = rows.job()
    factories.token()
    token = AppToken.objects.get()
    page = admin_client.get(f"/admin/agent_jobs/apptoken/{token.pk}/change/").content.decode()
    assert token.public_id in page
    assert "digest" not in page
    assert admin_client.post(f"/admin/agent_jobs/job/{job.pk}/change/", {"status": "COMPLETED"}).status_code == 403
    assert admin_client.post(f"/admin/agent_jobs/job/{job.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_token_is_revoked_in_the_admin(admin_client):
    api = factories.api()
    assert api.get(JOBS).status_code == 200

    chosen = {"action": "revoke", "_selected_action": [AppToken.objects.get().pk]}
    admin_client.post("/admin/agent_jobs/apptoken/", chosen)

    assert api.get(JOBS).status_code == 401


def test_18_000_unknown_keys_are_answered_in_a_few_kilobytes(acme):
    unknown = {f"k{number}": 1 for number in range(18_000)}

    for sent in (
        factories.job_request(config=unknown),
        {**factories.job_request(), **unknown},
        factories.job_request(config={"x" * 100_000: 1}),
    ):
        response = acme.post(JOBS, sent)
        assert response.status_code == 400
        assert len(response.content) < 30_000
    many = acme.post(JOBS, factories.job_request(config=unknown)).json()
    assert len(many["errors"]) == 20
    assert many["errors"][0]["field"] == "config.k0"
    assert many["message"].endswith("; and 17,980 more")
    fields = acme.post(JOBS, {**factories.job_request(), **dict.fromkeys(list(unknown)[:14_000])}).json()
    assert len(fields["errors"]) == 20
    assert "nor are 13,980 others" in fields["errors"][0]["message"]
