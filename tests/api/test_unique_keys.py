"""At most one job of an organisation holds a `unique_key`: refused, returned or replaced, also at the same instant."""

from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs import jobs
from agent_jobs.errors import DuplicateJob
from agent_jobs.models import Job, JobType
from agent_jobs.specs import Uniqueness
from agent_jobs.states import JobStatus
from tests import factories, races, rows

JOBS = "/services/agent-jobs"


def post(api, key="invoice-7", org_id="acme", **fields):
    return api.post(JOBS, factories.job_request(org_id, unique_key=key, **fields))


def id_of(response):
    assert response.status_code == 201, response.content
    return response.json()["data"]["id"]


def living():
    return {str(pk) for pk in Job.objects.filter(finished_at=None).values_list("pk", flat=True)}


@pytest.mark.django_db
class TestOneAfterTheOther:
    def test_a_second_job_with_the_key_is_refused_and_told_of_the_first(self, acme):
        first = id_of(post(acme))

        second = post(acme)

        assert (second.status_code, second.json()["code"]) == (409, "duplicate_job")
        assert second.json()["meta"]["job_id"] == first
        assert first in second.json()["message"]
        assert living() == {first}

    def test_the_answer_shows_key_and_scope(self, acme):
        shown = post(acme, unique_scope="org").json()["data"]

        assert (shown["unique_key"], shown["unique_scope"]) == ("invoice-7", "org")

    def test_return_answers_200_with_the_first_job(self, acme):
        first = id_of(post(acme, params={"name": "Ann"}))

        second = post(acme, params={"name": "Bob"}, on_conflict="return")

        assert second.status_code == 200, second.content
        assert second.json()["data"]["id"] == first
        assert second.json()["data"]["params"] == {"name": "Ann"}
        assert second.json()["meta"]["is_existing"] is True
        assert living() == {first}

    def test_replace_cancels_the_first_job(self, acme):
        first = id_of(post(acme))

        second = id_of(post(acme, on_conflict="replace"))

        assert living() == {second}
        replaced = acme.get(f"{JOBS}/{first}").json()["data"]
        assert replaced["job_status"] == "CANCELED"
        assert second in replaced["execution_log"][-1]

    def test_a_job_that_cannot_be_made_replaces_nothing(self, acme):
        first = id_of(post(acme))

        response = post(acme, on_conflict="replace", target_channel={"org_id": "acme", "platform": "x", "code": "y"})

        assert response.status_code in {400, 404}
        assert living() == {first}

    def test_a_full_queue_replaces_nothing(self, acme):
        first = id_of(post(acme))
        rows.org().__class__.objects.filter(pk="acme").update(max_waiting_jobs=1)

        response = post(acme, on_conflict="replace")

        assert response.status_code == 429
        assert living() == {first}

    def test_a_key_is_free_again_when_its_job_has_ended(self, acme):
        first = id_of(post(acme))
        acme.delete(f"{JOBS}/{first}")

        assert post(acme).status_code == 201

    @pytest.mark.parametrize(
        ("status", "minutes_ago", "window", "answer"),
        [
            (JobStatus.COMPLETED, 5, 10, 409),
            (JobStatus.COMPLETED, 15, 10, 201),
            (JobStatus.COMPLETED, 5, None, 201),
            (JobStatus.FAILED, 5, 10, 201),
            (JobStatus.CANCELED, 5, 10, 201),
            (JobStatus.RUNNING, 15, 10, 409),
            (JobStatus.RUNNING, 15, None, 409),
        ],
    )
    def test_a_window_counts_completed_jobs_too(self, acme, status, minutes_ago, window, answer):
        created_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        rows.job(status, unique_key="invoice-7", unique_scope="type", created_at=created_at)

        response = post(acme, **{"unique_window_minutes": window} if window else {})

        assert response.status_code == answer, response.content

    def test_a_completed_job_cannot_be_replaced(self, acme):
        rows.job(JobStatus.COMPLETED, unique_key="invoice-7", unique_scope="type")

        response = post(acme, on_conflict="replace", unique_window_minutes=10)

        assert (response.status_code, response.json()["code"]) == (409, "duplicate_job")

    @pytest.mark.parametrize(("scope", "answer"), [("type", 201), ("org", 409)])
    def test_the_scope_decides_whether_other_types_count(self, acme, scope, answer):
        rows.job_type(key="report")
        id_of(post(acme))

        assert post(acme, job_type_id="report", unique_scope=scope).status_code == answer

    def test_another_organisation_has_keys_of_its_own(self, acme, rival):
        id_of(post(acme))

        assert post(rival, org_id="rival").status_code == 201

    def test_jobs_without_a_key_are_never_duplicates(self, acme):
        assert [acme.post(JOBS, factories.job_request()).status_code for _ in range(2)] == [201, 201]

    def test_a_retry_is_refused_while_another_job_has_the_key(self, acme):
        failed = rows.job(JobStatus.FAILED, unique_key="invoice-7", unique_scope="type")
        other = id_of(post(acme))

        response = acme.post(f"{JOBS}/{failed.pk}/retry")

        assert (response.status_code, response.json()["code"]) == (409, "duplicate_job")
        assert response.json()["meta"]["job_id"] == other
        acme.delete(f"{JOBS}/{other}")
        assert acme.post(f"{JOBS}/{failed.pk}/retry").status_code == 200

    def test_a_replay_leaves_the_key_to_the_original(self, acme):
        first = id_of(post(acme))

        replayed = acme.post(f"{JOBS}/{first}/replay").json()["data"]

        assert "unique_key" not in replayed

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"unique_key": ""}, "unique_key"),
            ({"unique_key": "x" * 256}, "unique_key"),
            ({"unique_key": 5}, "unique_key"),
            ({"unique_key": "k", "unique_scope": "world"}, "unique_scope"),
            ({"unique_key": "k", "unique_window_minutes": 0}, "unique_window_minutes"),
            ({"unique_key": "k", "unique_window_minutes": 1.5}, "unique_window_minutes"),
            ({"unique_key": "k", "on_conflict": "ignore"}, "on_conflict"),
            ({"unique_key": "k", "on_conflict": ["reject"]}, "on_conflict"),
            ({"on_conflict": "return"}, "on_conflict"),
            ({"unique_scope": "org"}, "unique_scope"),
            ({"unique_window_minutes": 5}, "unique_window_minutes"),
        ],
    )
    def test_a_wrong_field_is_named(self, acme, fields, wrong):
        response = acme.post(JOBS, factories.job_request(**fields))

        assert (response.status_code, factories.fields_of(response)) == (400, [wrong])

    def test_within_a_batch_the_first_job_has_the_key(self, db):
        rows.job_type()
        spec = rows.spec(unique=Uniqueness("k", on_conflict="replace"))

        first, second = jobs.create_many("acme", [spec, spec], actor=rows.TESTER)

        assert isinstance(second, DuplicateJob)
        assert second.context["job_id"] == str(first.pk)
        assert living() == {str(first.pk)}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("on_conflict", ["reject", "return", "replace"])
def test_of_two_posts_at_the_same_instant_one_makes_the_job(on_conflict):
    rows.job_type()
    clients = [factories.api("acme", "SERVICES:WRITE") for _ in range(4)]

    answers = races.in_threads(*(lambda api=api: post(api, on_conflict=on_conflict) for api in clients))

    statuses = sorted(answer.status_code for answer in answers)
    assert (
        statuses == {"reject": [201, 409, 409, 409], "return": [200, 200, 200, 201], "replace": [201] * 4}[on_conflict]
    )
    assert len(living()) == 1
    assert Job.objects.count() == (4 if on_conflict == "replace" else 1)


@pytest.mark.django_db(transaction=True)
def test_batches_with_the_same_keys_in_other_orders_do_not_lock_each_other_out():
    rows.job_type()
    specs = [rows.spec(unique=Uniqueness(f"k{number}")) for number in range(50)]

    found = races.in_threads(
        *(lambda batch=batch: jobs.create_many("acme", batch, actor=rows.TESTER) for batch in (specs, specs[::-1]))
    )

    made = [sum(isinstance(job, Job) for job in batch) for batch in found]
    assert sorted(made) == [0, 50]
    assert JobType.objects.count() == 1
