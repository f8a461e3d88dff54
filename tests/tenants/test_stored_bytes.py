"""The quota on what an organisation stores: measured by a duty, and what was admitted since is added."""

import itertools
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from agent_jobs.models import Job, Message, Org
from agent_jobs.tenants import stored_bytes
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
_names = (f"stores{number}" for number in itertools.count())


@pytest.fixture
def org_id():
    """An organisation of its own, because processes remember by organisation what they admitted."""
    org_id = next(_names)
    rows.job_type(org_id)
    return org_id


@pytest.fixture
def api(org_id):
    return factories.api(org_id)


def measure(org_id):
    Org.objects.filter(pk=org_id).update(measure_at=Now())
    stored_bytes.measure_due()
    return Org.objects.get(pk=org_id).stored_bytes


def post(api, org_id, text="x" * 1_000):
    return api.post(JOBS, factories.job_request(org_id, params={"name": text}))


def test_what_is_stored_is_measured_for_its_organisation_alone(org_id):
    nothing = measure(org_id)
    other = next(_names)
    noise = "".join(map(chr, range(33, 120))) * 20
    for org in (org_id, other, other):
        job = rows.job(org_id=org, params={"text": noise}, result=noise, result_data=[noise])
        Message.objects.create(job=job, is_human=True, author="Ann", text=noise)
        factories.activity(job, output={"text": noise})

    found, others = measure(org_id), measure(other)

    assert nothing == 0
    assert found > 400
    assert others == 2 * found


def test_a_job_and_a_message_beyond_the_quota_are_a_429_and_store_nothing(api, org_id):
    Org.objects.filter(pk=org_id).update(max_stored_bytes=10_000, stored_bytes=9_999)

    refused = post(api, org_id)
    said = api.post("/services/channels/web/lobby/messages", {"text": "hello", "author": "Ann"})

    assert (refused.status_code, refused["Retry-After"]) == (429, "60")
    assert refused.json()["code"] == said.json()["code"] == "storage_quota_reached"
    assert "max_stored_bytes" in refused.json()["message"]
    assert not Job.objects.filter(org_id=org_id).exists()


def test_what_was_admitted_since_the_measurement_counts(api, org_id):
    Org.objects.filter(pk=org_id).update(max_stored_bytes=5_000)

    statuses = [post(api, org_id).status_code for _ in range(6)]

    assert statuses == [201] * 4 + [429] * 2


def test_a_new_measurement_makes_room(api, org_id):
    Org.objects.filter(pk=org_id).update(max_stored_bytes=30_000)
    while post(api, org_id, "x" * 10_000).status_code == 201:
        pass

    assert 0 < measure(org_id) < 15_000  # it is compressed on disk
    assert post(api, org_id, "x" * 10_000).status_code == 201


def test_an_organisation_without_a_quota_of_its_own_has_the_default(api, org_id, monkeypatch):
    assert post(api, org_id).status_code == 201
    monkeypatch.setattr(stored_bytes, "MAX_STORED_BYTES", 100)

    assert post(api, org_id).status_code == 429


def test_it_is_measured_once_a_minute_and_the_others_do_not_wait_for_one_that_fails(org_id, monkeypatch):
    other = next(_names)
    rows.org(other)
    Org.objects.exclude(pk__in=(org_id, other)).update(measure_at=Now() + timedelta(hours=1))
    asked = []

    def fail(found):
        asked.append(found)
        raise RuntimeError("broken")

    monkeypatch.setattr(stored_bytes, "_measure", fail)
    for _ in range(3):
        try:
            stored_bytes.measure_due()
        except RuntimeError:
            continue

    assert sorted(asked) == sorted([org_id, other])
