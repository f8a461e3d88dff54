"""One key, one effect: also when 20 clients, or one very nervous one, send it at the same time."""

import json
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from agent_jobs.jobs import idempotency
from agent_jobs.models import IdempotencyKey, Job, JobType
from tests import factories, rows
from tests.api.clients import at_once
from tests.waiting import PATIENCE

JOBS = "/services/agent-jobs"
TYPES = "/services/organizations/acme/agent-jobs-type"


def post(api, key="k1", path=JOBS, **fields):
    return api.post(path, factories.job_request(**fields), Idempotency_Key=key)


@pytest.mark.django_db
class TestOneAfterTheOther:
    def test_a_repeated_post_gets_the_first_answer_and_makes_nothing(self, acme):
        first, second = post(acme), post(acme)

        assert (first.status_code, second.status_code) == (201, 201)
        assert first.content == second.content
        assert second["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in first
        assert Job.objects.count() == 1

    def test_the_answer_is_the_first_one_also_when_the_job_has_moved_on(self, acme):
        first = post(acme)
        acme.delete(f"{JOBS}/{first.json()['data']['id']}")

        assert post(acme).content == first.content

    @pytest.mark.parametrize(
        "change",
        [
            lambda api: post(api, priority=9),
            lambda api: post(api, path=f"{JOBS}?delay=5"),
            lambda api: api.post(TYPES, {"id": "x", "name": "X"}, Idempotency_Key="k1"),
        ],
    )
    def test_a_key_with_another_request_is_a_422(self, acme, change):
        post(acme)

        response = change(acme)

        assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
        assert Job.objects.count() == 1
        assert JobType.objects.count() == 1

    def test_how_a_request_is_written_down_does_not_matter(self, acme):
        first = post(acme)
        raw = json.dumps(dict(reversed(factories.job_request().items())), indent=3).encode()

        again = acme.send("POST", f"/api/v0{JOBS}", raw=raw, Idempotency_Key="k1")

        assert again.content == first.content

    def test_each_organization_has_its_own_keys(self, acme, rival):
        ours = post(acme).json()["data"]["id"]
        theirs = rival.post(JOBS, factories.job_request("rival"), Idempotency_Key="k1").json()["data"]["id"]

        assert ours != theirs
        assert Job.objects.count() == 2

    def test_a_refused_post_does_not_take_its_key(self, acme):
        assert post(acme, job_type_id="nothing").status_code == 404
        assert post(acme, priority=99).status_code == 400
        assert not IdempotencyKey.objects.exists()

        assert post(acme).status_code == 201

    def test_a_key_counts_for_48_hours(self, acme):
        post(acme)
        IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=47, minutes=59))
        assert post(acme).status_code == 201
        assert Job.objects.count() == 1
        IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=48, minutes=1))

        assert post(acme, priority=3).status_code == 201
        assert Job.objects.count() == 2
        assert post(acme).status_code == 422

    @pytest.mark.parametrize("key", ["", " ", "x" * 256, "é", "a\tb"])
    def test_a_bad_key_is_a_400(self, acme, key):
        response = post(acme, key)

        assert response.status_code == 400
        assert factories.fields_of(response) == ["Idempotency-Key"]
        assert not Job.objects.exists()

    @pytest.mark.parametrize("key", ["x" * 255, "a b", "~!,;=\"'"])
    def test_any_printable_ascii_is_a_key(self, acme, key):
        assert post(acme, key).content == post(acme, key).content

    def test_a_bad_body_wins_over_a_reused_key(self, acme):
        post(acme)

        assert post(acme, priority=99).status_code == 400

    def test_every_post_takes_a_key(self, acme):
        bodies = {
            TYPES: {"id": "x", "name": "X"},
            TYPES.replace("agent-jobs-type", "profiles"): {"id": "x", "name": "X"},
        }
        for path, body in bodies.items():
            answers = [acme.post(path, body, Idempotency_Key=path[-5:]) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [201, 201]
            assert answers[0].content == answers[1].content


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    def test_20_posts_of_one_key_make_one_job_and_get_one_answer(self):
        rows.job_type()
        token = factories.token()

        answers = at_once(20, lambda _: post(factories.Api(token)))

        assert [answer.status_code for answer in answers] == [201] * 20
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotency-Replayed" not in answer for answer in answers) == 1
        assert Job.objects.count() == IdempotencyKey.objects.count() == 1

    def test_20_posts_of_one_key_with_two_bodies_make_one_job(self):
        rows.job_type()
        token = factories.token()

        answers = at_once(20, lambda number: post(factories.Api(token), priority=number % 2))

        assert sorted(answer.status_code for answer in answers) == [201] * 10 + [422] * 10
        assert Job.objects.count() == 1

    def test_one_key_of_two_organizations_makes_two_jobs(self):
        tokens = {}
        for org_id in ("acme", "rival"):
            rows.job_type(org_id)
            tokens[org_id] = factories.token(org_id)

        def send(number):
            org_id = ("acme", "rival")[number % 2]
            body = factories.job_request(org_id)
            return factories.Api(tokens[org_id]).post(JOBS, body, Idempotency_Key="k1")

        answers = at_once(10, send)

        assert {answer.status_code for answer in answers} == {201}
        assert Job.objects.count() == 2

    def test_without_a_key_every_post_makes_a_job(self):
        rows.job_type()
        token = factories.token()

        at_once(5, lambda _: factories.Api(token).post(JOBS, factories.job_request()))

        assert Job.objects.count() == 5

    def test_one_that_waits_too_long_for_the_first_is_told_so(self):
        rows.job_type()
        api = factories.Api(factories.token())
        is_held, may_end = threading.Event(), threading.Event()

        def first():
            def effect():
                is_held.set()
                may_end.wait(PATIENCE)
                return idempotency.StoredAnswer(201, "{}")

            try:
                idempotency.once("acme", "k1", fingerprint="x", effect=effect)
            finally:
                connection.close()

        thread = threading.Thread(target=first)
        thread.start()
        try:
            assert is_held.wait(PATIENCE)
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '200ms'")
            response = post(api)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")
            may_end.set()
            thread.join(PATIENCE)

        assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_in_progress")
        assert not Job.objects.exists()

    def test_a_first_one_that_fails_leaves_the_key_to_those_who_wait(self):
        rows.org()
        ran = []

        def effect():
            ran.append(1)
            if len(ran) == 1:
                raise RuntimeError("the first one fails")
            return idempotency.StoredAnswer(201, "second")

        def send(_):
            try:
                return idempotency.once("acme", "k1", fingerprint="x", effect=effect).text
            except RuntimeError:
                return "failed"

        assert sorted(at_once(4, send)) == ["failed", "second", "second", "second"]

    def test_an_effect_and_its_key_are_one_transaction(self):
        rows.org()

        def effect():
            JobType.objects.create(org_id="acme", key="x", name="X")
            raise RuntimeError

        with pytest.raises(RuntimeError), transaction.atomic():
            idempotency.once("acme", "k1", fingerprint="x", effect=effect)

        assert not JobType.objects.exists()
        assert not IdempotencyKey.objects.exists()
