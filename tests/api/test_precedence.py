"""A request with several errors gets the first of this order:

401, 403 scope, 411/413/415, 400 JSON, 400 fields, 404 org and type, 403/404 object, 409/422.
"""

import pytest

from agent_jobs.models import Job
from agent_jobs.states import JobStatus
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
TOO_LARGE = b'{"params": "' + b"x" * 256 * 1024 + b'"}'
WRONG_ORG = {"target_channel": {"org_id": "rival", "platform": "web", "code": "x"}, "job_type_id": "nothing"}


def post(api, *, raw=b"{", query="?delay=x", **headers):
    return api.send("POST", JOBS + query, raw=raw, **headers)


def test_a_missing_token_wins_over_everything(nobody):
    assert post(nobody, raw=TOO_LARGE, content_type="text/plain").status_code == 401


def test_a_missing_scope_wins_over_a_bad_body(reader):
    assert post(reader, raw=TOO_LARGE, content_type="text/plain").status_code == 403


def test_a_chunked_body_is_a_411(acme):
    response = post(acme, Transfer_Encoding="chunked")

    assert response.status_code == 411
    assert response.json()["code"] == "length_required"


def test_a_chunked_cancellation_is_a_411_and_cancels_nothing(acme):
    job = rows.job()

    assert acme.delete(f"{JOBS}/{job.pk}", Transfer_Encoding="chunked").status_code == 411
    assert Job.objects.get().status == JobStatus.WAITING


def test_a_body_beyond_256_kib_is_a_413_in_json(acme):
    response = post(acme, raw=TOO_LARGE)

    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"


def test_a_body_of_just_256_kib_is_read(acme):
    body = factories.job_request(params={"name": "Ann", "filling": ""})
    import json

    raw = json.dumps(body).encode()
    raw = raw.replace(b'"filling": ""', b'"filling": "' + b"x" * (256 * 1024 - len(raw)) + b'"')
    assert len(raw) == 256 * 1024

    assert acme.send("POST", JOBS, raw=raw).status_code == 201


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense"])
def test_another_content_type_is_a_415(acme, kind):
    assert post(acme, content_type=kind).status_code == 415


def test_a_charset_beside_the_content_type_is_fine(acme):
    response = acme.post(JOBS, factories.job_request(), content_type="Application/JSON; charset=utf-8")

    assert response.status_code == 201


def test_bad_json_wins_over_a_bad_query(acme):
    response = post(acme)

    assert response.status_code == 400
    assert factories.fields_of(response) == ["body"]


def test_a_bad_field_wins_over_an_organization_that_is_not_there(acme):
    assert acme.post(JOBS, {**WRONG_ORG, "priority": 99}).status_code == 400


def test_an_organization_that_is_not_there_wins_over_a_type_that_is_not_there(acme):
    response = acme.post(JOBS, WRONG_ORG)

    assert (response.status_code, response.json()["code"]) == (404, "org_not_found")


def test_a_type_that_is_not_there_is_a_404(acme):
    response = acme.post(JOBS, factories.job_request(job_type_id="nothing"))

    assert (response.status_code, response.json()["code"]) == (404, "job_type_not_found")


def test_a_profile_that_is_not_there_is_a_404(acme):
    response = acme.post(JOBS, factories.job_request(config={"profile_id": "nobody"}))

    assert (response.status_code, response.json()["code"]) == (404, "profile_not_found")
    assert not Job.objects.exists()


def test_a_bad_reason_wins_over_a_job_that_is_not_ours(acme):
    theirs = rows.job(org_id="rival")

    assert acme.delete(f"{JOBS}/{theirs.pk}", {"reason": 5}).status_code == 400


def test_a_job_that_is_not_ours_wins_over_one_that_has_ended(acme):
    theirs = rows.job(JobStatus.COMPLETED, org_id="rival")

    assert acme.delete(f"{JOBS}/{theirs.pk}").status_code == 403


def test_json_may_be_stated_where_there_is_no_body(acme):
    job = rows.job()

    assert acme.get(JOBS, Content_Type="application/json").status_code == 200
    assert acme.delete(f"{JOBS}/{job.pk}", content_type="application/json").status_code == 200
