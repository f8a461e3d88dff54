"""The cap on jobs that were not started, and that it stays cheap."""

import itertools

import pytest

from agent_jobs import jobs
from agent_jobs.errors import QuotaReached
from agent_jobs.jobs import admission
from agent_jobs.models import Job, Org
from agent_jobs.states import JobStatus
from tests import factories, rows
from tests.races import in_threads
from tests.waiting import PATIENCE

JOBS = "/services/agent-jobs"
_names = (f"capped{number}" for number in itertools.count())


@pytest.fixture
def org_id(db):
    """An organisation of its own, because processes remember counts by organisation."""
    org_id = next(_names)
    rows.job_type(org_id)
    return org_id


@pytest.fixture
def always_counted(monkeypatch):
    monkeypatch.setattr(admission, "REMEMBER_SECONDS", 0.0)


def cap(org_id, most):
    Org.objects.filter(pk=org_id).update(max_waiting_jobs=most)


def statuses(api, times, **fields):
    return [api.post(JOBS, factories.job_request(api.org_id, **fields)).status_code for _ in range(times)]


@pytest.fixture
def api(org_id):
    api = factories.api(org_id)
    api.org_id = org_id
    return api


def test_a_job_beyond_the_cap_is_a_429_that_names_it_and_stores_nothing(api, org_id):
    cap(org_id, 3)
    assert statuses(api, 3) == [201, 201, 201]

    refused = api.post(JOBS, factories.job_request(org_id), Idempotency_Key="k")

    assert (refused.status_code, refused["Retry-After"]) == (429, "10")
    body = refused.json()
    assert body["code"] == "too_many_waiting_jobs"
    assert "3 jobs" in body["message"]
    assert "max_waiting_jobs" in body["message"]
    assert Job.objects.filter(org_id=org_id).count() == 3


def test_the_refused_key_is_free_for_another_try(api, org_id, always_counted):
    cap(org_id, 0)
    assert api.post(JOBS, factories.job_request(org_id), Idempotency_Key="k").status_code == 429
    cap(org_id, 1)

    assert api.post(JOBS, factories.job_request(org_id), Idempotency_Key="k").status_code == 201


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (JobStatus.SCHEDULED, 429),
        (JobStatus.WAITING, 429),
        (JobStatus.RUNNING, 201),
        (JobStatus.COMPLETED, 201),
        (JobStatus.FAILED, 201),
        (JobStatus.CANCELED, 201),
    ],
)
def test_only_jobs_that_were_not_started_count(api, org_id, status, answer):
    cap(org_id, 1)
    rows.job(status, org_id)

    assert statuses(api, 1) == [answer]


def test_scheduled_jobs_are_capped_as_well(api, org_id):
    cap(org_id, 1)

    assert statuses(api, 2, scheduled_at="2030-01-01") == [201, 429]


def test_another_organizations_jobs_do_not_count(api, org_id):
    cap(org_id, 1)
    for _ in range(3):
        rows.job(org_id="rival")

    assert statuses(api, 1) == [201]


def test_the_services_cap_holds_where_the_organization_has_none(api, monkeypatch):
    monkeypatch.setattr(admission, "MAX_WAITING_JOBS", 2)

    assert statuses(api, 3) == [201, 201, 429]


def test_a_place_that_has_become_free_is_given_again(api, org_id, always_counted):
    cap(org_id, 1)
    job = rows.job(org_id=org_id)
    assert statuses(api, 1) == [429]
    api.delete(f"{JOBS}/{job.pk}")

    assert statuses(api, 2) == [201, 429]


def test_a_cap_that_was_raised_counts_at_once(api, org_id):
    cap(org_id, 1)
    assert statuses(api, 2) == [201, 429]
    cap(org_id, 2)

    assert statuses(api, 2) == [201, 429]


def test_what_is_wrong_with_a_request_is_told_before_the_cap(api, org_id):
    cap(org_id, 0)

    assert api.post(JOBS, factories.job_request(org_id, job_type_id="nothing")).status_code == 404
    assert statuses(api, 1, params={}) == [400]


def test_the_rows_are_not_counted_for_every_post(org_id, django_assert_max_num_queries, monkeypatch):
    monkeypatch.setattr(admission, "REMEMBER_SECONDS", PATIENCE)
    org = Org.objects.get(pk=org_id)
    admission.admit_job(org)

    with django_assert_max_num_queries(0):
        for _ in range(20):
            admission.admit_job(org)


def test_counting_looks_at_no_more_rows_than_the_cap(org_id, django_assert_num_queries):
    for _ in range(9):
        rows.job(org_id=org_id)
    with django_assert_num_queries(1) as asked, pytest.raises(QuotaReached):
        admission.admit_job(Org(pk=org_id, max_waiting_jobs=5))

    assert "LIMIT 6" in asked.captured_queries[0]["sql"]


@pytest.mark.django_db(transaction=True)
def test_threads_of_one_process_together_make_exactly_as_many_as_there_is_room_for(settings):
    org_id = next(_names)
    rows.job_type(org_id)
    cap(org_id, 20)
    for _ in range(5):
        rows.job(org_id=org_id)
    made = []

    def post():
        for _ in range(4):
            try:
                jobs.create(org_id, rows.spec(), actor=rows.TESTER)
                made.append(1)
            except QuotaReached:
                made.append(0)

    in_threads(*[post] * 12)

    assert (len(made), sum(made)) == (48, 15)
    assert Job.objects.filter(org_id=org_id).count() == 20
